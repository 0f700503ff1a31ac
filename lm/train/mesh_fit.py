"""Checks that a configuration fits its mesh: mesh axes divide the sizes that they split, and no option would do nothing."""

import math

from jax.sharding import Mesh

from lm.data.objectives.shape import row_shape
from lm.errors import UserError
from lm.sharding import RULES
from lm.train.config import RunConfig


def check_mesh_fit(config: RunConfig, mesh: Mesh) -> None:
    """Raises UserError, in one line with the names of the options, for the first thing that does not fit."""
    _check_options(config, mesh)
    _check_model(config, mesh)
    _check_rows(config, mesh)
    _check_lengths(config, mesh)


def _check_options(config: RunConfig, mesh: Mesh) -> None:
    """Refuses an option whose mesh axis has size 1: it would change nothing, and the user may believe that it does."""
    how, ways, flow = config.execution, mesh.shape, config.execution.pipeline_micro_batches
    needs = [
        ("sequence_parallel", how.sequence_parallel, "tensor", "splits the residual stream over that axis"),
        ("context_attention=ring", how.context_attention == "ring", "context", "passes keys and values round that axis"),
        (f"pipeline_repeats={how.pipeline_repeats}", how.pipeline_repeats != 1, "stage", "needs pipeline stages"),
        (f"pipeline_micro_batches={flow}", flow is not None, "stage", "needs pipeline stages"),
        ("shard_optimizer", how.shard_optimizer, "data", "splits optimizer state over that axis (fsdp splits it already)"),
    ]
    for option, is_set, axis, does in needs:
        if is_set and ways[axis] == 1:
            raise UserError(f"execution.{option} {does}, and mesh.{axis} is 1: leave it out, or raise --config.mesh.{axis}")
    for name in ("micro_batches", "pipeline_repeats", "pipeline_micro_batches", "steps_per_dispatch"):
        count = getattr(how, name)
        if count is not None and count < 1:
            raise UserError(f"execution.{name}={count}: give 1 or more")


def _check_model(config: RunConfig, mesh: Mesh) -> None:
    """Checks the sizes of the model that the mesh splits. lm.sharding.shardings checks any array, under its own name."""
    model, ways, how = config.model, mesh.shape, config.execution
    groups = ways["stage"] * how.pipeline_repeats
    per_stage = "mesh.stage" if how.pipeline_repeats == 1 else "mesh.stage x execution.pipeline_repeats"
    width = ("mesh.fsdp x mesh.data (with execution.shard_optimizer)", ways["fsdp"] * ways["data"])
    sizes = [
        *((name, size, "mesh.tensor", ways["tensor"]) for name, size in model.tensor_sizes().items()),
        ("d_model", model.d_model, *(width if how.shard_optimizer else ("mesh.fsdp", ways["fsdp"]))),
        ("num_layers", model.num_layers, per_stage, groups),
        ("encoder_layers", model.encoder_layers or model.num_layers, per_stage, groups),
    ]
    for name, size, of, parts in sizes:
        if size % parts:
            raise UserError(f"model.{name}={size} must be a multiple of {of}={parts}: change one of them")


def _check_rows(config: RunConfig, mesh: Mesh) -> None:
    """Checks that micro-batches, devices and pipeline stages divide the rows of a batch."""
    how, rows = config.execution, RULES.batch_ways(mesh)
    micro = how.micro_batches
    if config.batch_size < 1 or config.batch_size % (micro * rows):
        of = f"{micro * rows}: {micro} micro-batch{'es' * (micro > 1)} x {rows} devices that split its rows"
        raise UserError(f"batch_size={config.batch_size} must be a multiple of {of}: change --config.batch_size or the mesh")
    stages = mesh.shape["stage"]
    if stages > 1:
        flow = how.pipeline_micro_batches or stages
        multiple = micro * math.lcm(rows, rows // stages * flow)  # lm.model.execution.Pipeline.rows_multiple
        if config.batch_size % multiple:
            counts = f"{micro * rows // stages} groups of {stages} stages take rows in {flow} micro-batches each"
            advice = "change --config.batch_size or --config.execution.pipeline_micro_batches"
            raise UserError(f"batch_size={config.batch_size} must be a multiple of {multiple}: {counts}; {advice}")


def _check_lengths(config: RunConfig, mesh: Mesh) -> None:
    """Checks that mesh axes divide the sequence: two halves for each device of `context` (lm.train.zigzag), and sequence parallelism."""
    row, context = row_shape(config.data, config.model.architecture), mesh.shape["context"]
    parts, why = (2 * context, "2 x mesh.context") if context > 1 else (1, "1")
    if config.execution.sequence_parallel:
        tensor = mesh.shape["tensor"]
        parts, why = (
            (math.lcm(parts, context * tensor), f"{why} and mesh.context x mesh.tensor") if context > 1 else (tensor, "mesh.tensor")
        )
    counts = [
        ("positions", row.length, parts, why),
        ("positions of the encoder", row.encoder_length, parts, why),
        ("predicted positions", row.predicted or 0, context, "mesh.context"),
    ]
    for what, count, ways, of in counts:
        if count % ways:
            length = f"data.sequence_length={config.data.sequence_length} under objective {config.data.objective.name}"
            raise UserError(f"{length} makes rows of {count} {what}, which must be a multiple of {of}={ways}: change one of them")
