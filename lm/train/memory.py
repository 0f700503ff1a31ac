"""Activation memory of a run's step on one device, by formula (imports no jax)."""

import math
from collections.abc import Mapping

from lm.model.memory import activation_bytes
from lm.rows import RowShape
from lm.train.config import RunConfig

COMPUTE_BYTES = {"float32": 4, "bfloat16": 2}


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
