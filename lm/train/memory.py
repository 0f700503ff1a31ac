"""Memory of a run's step on one device, by formula (imports no jax)."""

import dataclasses
import math
from collections.abc import Mapping

from lm.data.objectives.shape import row_shape
from lm.mesh import MeshConfig
from lm.model import counts
from lm.model.config import ModelConfig
from lm.model.memory import FLOAT32, PLAIN_PAIRS, activation_bytes
from lm.rows import RowShape
from lm.train.config import RunConfig

COMPUTE_BYTES = {"float32": 4, "bfloat16": 2}


def device_bytes(config: RunConfig, kind: str = "cpu") -> float:
    """Returns the bytes of one device of the configuration's mesh: weights, gradients, moments and activations.

    Args:
        config: the run; an axis of size -1, which takes what devices there are, counts 1
        kind: "tpu", "gpu" or "cpu", whose kernels of attention differ
    """
    mesh = dataclasses.replace(config.mesh, **{name: max(1, size) for name, size in dataclasses.asdict(config.mesh).items()})
    row = row_shape(config.data, config.model.architecture)
    weights = FLOAT32 * (layers_weights(config.model, mesh) + tables_weights(config.model, mesh)) / mesh.fsdp
    moments = config.optim.optimizer.state_per_weight * weights
    moments /= mesh.data if config.execution.shard_optimizer else 1
    return 2 * weights + moments + kept_bytes(config, dataclasses.asdict(mesh), row, fused=not holds_scores(config, row, kind))


def moves_scores(config: RunConfig, kind: str) -> bool:
    """Returns whether attention writes a number for every pair of tokens, whole or a block at a time, because no kernel spares it."""
    model, mesh = config.model, config.mesh
    packed = model.attention.documents == "isolated"
    apart = not packed or (mesh.stage <= 1 and model.attention.window is None and model.architecture != "encoder_decoder")
    spared = kind == "tpu" or (kind == "gpu" and apart and config.compute_dtype == "bfloat16")
    refused = model.positions == "relative" or model.architecture == "prefix_lm" or mesh.context > 1
    return refused or not spared


def holds_scores(config: RunConfig, row: RowShape, kind: str) -> bool:
    """Returns whether attention holds all of these numbers at once, which it does where rows are short."""
    return max(row.length, row.encoder_length) ** 2 <= PLAIN_PAIRS and moves_scores(config, kind)


def layers_weights(model: ModelConfig, mesh: MeshConfig) -> float:
    """Returns the weights of a stage's layers, split by `tensor`."""
    groups = counts.parameters(model)
    return (groups["blocks"] + groups["norms"]) / (mesh.stage * mesh.tensor)


def tables_weights(model: ModelConfig, mesh: MeshConfig) -> float:
    """Returns the weights of the tables, which every stage has, split by `tensor`."""
    groups = counts.parameters(model)
    return (groups["embedding"] + groups["position"] + groups["head"]) / mesh.tensor


def kept_bytes(config: RunConfig, shape: Mapping[str, int], row: RowShape, *, fused: bool) -> float:
    """Returns the bytes of activations that one device keeps for the backward pass, on a mesh of this shape (sizes by axis).

    A pipeline keeps what `dots` and `dots_no_batch` keep of every tick, idle ones included; with the other policies it keeps the inputs of
    each tick, and of one tick at a time what the policy keeps (see lm.model.execution.Execution).
    """
    how, stages, compute = config.execution, shape["stage"], COMPUTE_BYTES[config.compute_dtype]
    rows = math.ceil(config.batch_size / (shape["data"] * shape["fsdp"] * stages * how.micro_batches))
    flow = how.pipeline_micro_batches or stages
    passes = flow * how.pipeline_repeats
    ticks = passes + stages - 1
    times, inputs = 1.0, 0.0
    if stages > 1 and how.remat in ("none", "full"):
        times = 1 / passes
        inputs = ticks * stages / flow * rows * (row.length + row.encoder_length) * config.model.d_model * compute
    elif stages > 1:
        times = ticks / passes
    local = config.model.split(shape["tensor"])
    kept = activation_bytes(local, rows, row, remat=how.remat, compute_bytes=compute, fused=fused, times=times)
    return (kept + inputs) / shape["context"]
