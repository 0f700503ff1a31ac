"""Checks that a configuration fits its mesh: mesh axes divide the sizes that they split, and no option would do nothing."""

import math

from jax.sharding import Mesh

from lm.data.objectives.shape import row_shape
from lm.errors import UserError
from lm.sharding import RULES
from lm.train.config import RunConfig


def check_mesh_fit(config: RunConfig, mesh: Mesh) -> None:
    """UserError, in one line with the names of the options, for the first thing that does not fit."""
    _check_options(config, mesh)
    _check_model(config, mesh)
    _check_rows(config, mesh)
    _check_lengths(config, mesh)


def _check_options(config: RunConfig, mesh: Mesh) -> None:
    """An option whose mesh axis has size 1 changes nothing: it is refused, so that nobody believes that it does."""
    how, ways = config.execution, mesh.shape
    needs = [
        ("sequence_parallel", how.sequence_parallel, "tensor", "splits what is between the regions of tensor parallelism"),
        ("context_attention=ring", how.context_attention == "ring", "context", "passes keys and values round that axis"),
        (f"pipeline_repeats={how.pipeline_repeats}", how.pipeline_repeats != 1, "stage", "is of a pipeline's stages"),
        (
            f"pipeline_micro_batches={how.pipeline_micro_batches}",
            how.pipeline_micro_batches is not None,
            "stage",
            "is of a pipeline's stages",
        ),
        ("shard_optimizer", how.shard_optimizer, "data", "splits optimizer state over that axis (fsdp splits it already)"),
    ]
    for option, is_set, axis, does in needs:
        if is_set and ways[axis] == 1:
            raise UserError(f"execution.{option} {does}, and mesh.{axis} is 1: leave it out, or raise mesh.{axis}")
    if how.micro_batches < 1 or how.pipeline_repeats < 1 or (how.pipeline_micro_batches or 1) < 1 or how.steps_per_dispatch < 1:
        names = ("micro_batches", "pipeline_repeats", "pipeline_micro_batches", "steps_per_dispatch")
        name = next(name for name in names if getattr(how, name) is not None and getattr(how, name) < 1)
        raise UserError(f"execution.{name}={getattr(how, name)}: give 1 or more")


def _check_model(config: RunConfig, mesh: Mesh) -> None:
    """Sizes of the model that the mesh splits. lm.sharding.shardings says the same of any array, by its own name."""
    model, ways, how = config.model, mesh.shape, config.execution
    groups = ways["stage"] * how.pipeline_repeats
    per_stage = "mesh.stage" if how.pipeline_repeats == 1 else "mesh.stage x execution.pipeline_repeats"
    width = ("mesh.fsdp x mesh.data (of execution.shard_optimizer)", ways["fsdp"] * ways["data"])
    sizes = [
        *((name, size, "mesh.tensor", ways["tensor"]) for name, size in model.tensor_sizes().items()),
        ("d_model", model.d_model, *(width if how.shard_optimizer else ("mesh.fsdp", ways["fsdp"]))),
        ("num_layers", model.num_layers, per_stage, groups),
        ("encoder_layers", model.encoder_layers or model.num_layers, per_stage, groups),
    ]
    for name, size, of, parts in sizes:
        if size % parts:
            raise UserError(f"model.{name}={size} is no multiple of {of}={parts}: change one of them")


def _check_rows(config: RunConfig, mesh: Mesh) -> None:
    how, rows = config.execution, RULES.batch_ways(mesh)
    micro = how.micro_batches
    if config.batch_size < 1 or config.batch_size % (micro * rows):
        of = f"{micro * rows}: {micro} micro-batch{'es' * (micro > 1)} x {rows} devices that split its rows"
        raise UserError(f"batch_size={config.batch_size} must be a multiple of {of}: change batch_size or the mesh")
    stages = mesh.shape["stage"]
    if stages > 1:
        flow = how.pipeline_micro_batches or stages
        multiple = micro * math.lcm(rows, rows // stages * flow)  # lm.model.execution.Pipeline.rows_multiple
        if config.batch_size % multiple:
            counts = f"{micro * rows // stages} groups of {stages} stages take rows in {flow} micro-batches each"
            advice = "change batch_size or execution.pipeline_micro_batches"
            raise UserError(f"batch_size={config.batch_size} must be a multiple of {multiple}: {counts}; {advice}")


def _check_lengths(config: RunConfig, mesh: Mesh) -> None:
    """The two halves of each device's part (lm.train.zigzag), and what sequence parallelism splits further."""
    row, context = row_shape(config.data, config.model.architecture), mesh.shape["context"]
    parts, why = (2 * context, "2 x mesh.context") if context > 1 else (1, "1")
    if config.execution.sequence_parallel:
        tensor = mesh.shape["tensor"]
        parts, why = (
            (math.lcm(parts, context * tensor), f"{why} and mesh.context x mesh.tensor") if context > 1 else (tensor, "mesh.tensor")
        )
    places = {"places": (row.length, parts, why), "places of the encoder": (row.encoder_length, parts, why)}
    places["predicted places"] = (row.predicted or 0, context, "mesh.context")
    for what, (count, ways, of) in places.items():
        if count % ways:
            length = f"data.sequence_length={config.data.sequence_length} under objective {config.data.objective.name}"
            raise UserError(f"{length} makes rows of {count} {what}, no multiple of {of}={ways}: change one of them")
