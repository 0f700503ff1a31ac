"""Describes a run before it is trained: its parameters, FLOPs, steps and memory, as text. Nothing is allocated."""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Optional

from jax.sharding import Mesh, PartitionSpec

from lm import config as config_lib
from lm.data.info import info
from lm.errors import counted
from lm.model.architectures import Model
from lm.model.flops import ledger, predicted
from lm.model.weights import flatten
from lm.rows import RowShape
from lm.scaling.words import short
from lm.sharding import Names
from lm.train.build import BuiltRun
from lm.train.config import RunConfig
from lm.train.derived import hyper_of, row_of, tokens_per_step, total_steps
from lm.train.memory import kept_bytes
from lm.train.placement import abstract_state, on_one_device
from lm.train.record import Source


def parameter_table(model: Model, mesh: Mesh) -> str:
    """Returns one line per weight: path, shape, logical axes, how it is split over the mesh, initial distribution, count."""
    trees = (model.abstract(), model.axes(), model.shardings(mesh), model.initials())
    rows = [("parameter", "shape", "axes", "split over", "initial", "count")]
    for path in flatten(trees[0]):
        leaf, axes, sharding, initial = (flatten(tree)[path] for tree in trees)
        shape = "x".join(map(str, leaf.shape))
        rows.append((path, shape, " ".join(map(str, axes)), _split(axes, sharding.spec, mesh), str(initial), f"{math.prod(leaf.shape):,}"))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)


def _split(axes: Names, spec: PartitionSpec, mesh: Mesh) -> str:
    """Names the logical axes that are split and the mesh axes that split them, such as "embed/fsdp=8"."""
    words = []
    for name, entry in zip(axes, spec, strict=False):
        over = [f"{axis}={mesh.shape[axis]}" for axis in ([entry] if isinstance(entry, str) else entry or ()) if mesh.shape[axis] > 1]
        words += [f"{name}/{'*'.join(over)}"] if over else []
    return " ".join(words) or "-"


def describe(parts: BuiltRun, source: Optional[Source] = None, first_weights: Mapping[str, str] = MappingProxyType({})) -> str:
    """Returns the text of `--dry_run`.

    Args:
      parts: the configuration with its model and mesh.
      source: the run whose weights it begins with.
      first_weights: what tells these, or imported ones, apart (lm.train.record.first_weights).

    Raises:
      UserError: the token budget holds no step.
    """
    config, model, mesh = parts.config, parts.model, parts.mesh
    per_step, steps, warmup = tokens_per_step(config), total_steps(config), int(hyper_of(config).warmup_steps)
    row = row_of(config)
    counts = ledger(config.model, row)
    flops = {name: per_token * steps * per_step for name, per_token in counts.flops_per_token.items()}
    lines = [
        parameter_table(model, mesh),
        "",
        *_parameter_counts(counts.params),
        "row         " + row_text(row, config.data.objective.name),
        f"steps       {steps:,} of {config.batch_size} rows x {row.text:,} = {per_step:,} tokens of text; warm-up {warmup:,}",
        f"tokens      {steps * per_step:,} ({steps * per_step / counts.params['total']:.1f} per parameter)",
        "FLOPs       " + ", ".join(short(f"{name} {count:.4g}") for name, count in flops.items()) + " (whole run)",
        "memory      " + memory(parts),
        f"devices     {mesh.size} x {mesh.devices.flat[0].device_kind}: "
        + ", ".join(f"{axis} {size}" for axis, size in mesh.shape.items()),
        *_pipeline(model),
        "data        " + _data(info(config.data, config.data_dir), config, steps, first_weights),
        *([f"weights     of {source.workdir}, step {source.recorded['step']:,}"] if source else []),
        *([f"weights     as imported, {first_weights['weights'][:12]}"] if "weights" in first_weights else []),
    ]
    return "\n".join(lines)


def _pipeline(model: Model) -> list[str]:
    schedule = model.execution.pipeline
    if schedule is None:
        return []
    counts = f"{schedule.stages} stages x {schedule.repeats} groups of layers, {schedule.micro_batches} micro-batches in turn"
    return [f"pipeline    {counts}: {schedule.bubble:.1%} of {schedule.ticks} ticks idle"]


def _parameter_counts(params: dict[str, int]) -> list[str]:
    """Returns two lines on the number of parameters: the total with its groups, and the other conventions."""
    others = ("total", "non_embedding", "matmul")
    groups = ", ".join(f"{name} {count:,}" for name, count in params.items() if name not in others)
    return [f"parameters  {params['total']:,}: {groups}", "            " + ", ".join(f"{name} {params[name]:,}" for name in others[1:])]


def row_text(row: RowShape, objective: str) -> str:
    """Describes the row that an objective makes of text: positions (with room for the longest draws), predictions, labels."""
    two = row.encoder_length > 0
    parts = [f"encoder {row.encoder_length:,}"] if two else []
    parts += [f"{'decoder ' if two else ''}{row.length:,} positions", f"{predicted(row):,} predicted"]
    parts += [f"{counted(row.sequences, 'sequence')} to label"] if row.sequences else []
    parts += [f"prefixes of {row.prefix:.4g} on average"] if row.prefix else []
    return f"{row.text:,} tokens of text under {objective}: " + ", ".join(parts)


def memory(parts: BuiltRun) -> str:
    """Says how many bytes one device holds, by formula."""
    config, mesh = parts.config, parts.mesh
    state = abstract_state(config, parts.model, mesh)
    weights, moments = on_one_device(state.params), on_one_device(state.opt_state)
    kept = kept_bytes(config, mesh.shape, row_of(config), fused=parts.fused)
    fixed = 2 * weights + moments
    return f"{_bytes(fixed + kept)} per device: {_bytes(fixed)} weights, gradients, moments; about {_bytes(kept)} activations"


def _bytes(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _data(prepared: Optional[dict[str, Any]], config: RunConfig, steps: int, first_weights: Mapping[str, str]) -> str:
    if prepared is None:
        return f"not prepared yet in {config.data_dir}"
    rows = steps * config.batch_size
    name = config_lib.identity(config, fingerprint=prepared["fingerprint"], **first_weights)
    epochs = rows / prepared["rows_per_epoch"]
    reads = f"{100 * epochs:.2g}% of them" if epochs <= 1 else f"them {epochs:.3g} times"
    return f"{prepared['tokens']['train']:,} training tokens; this run reads {reads}; its id is {name}"
