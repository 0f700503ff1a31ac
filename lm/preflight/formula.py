"""A configuration's memory and time on a topology by formula, to choose what is worth compiling (imports no jax).

Good to a factor of about WITHIN in memory and 2 in time: enough to order candidates, and never printed as a result.
"""

import dataclasses
import math
from typing import NamedTuple

from lm.data.objectives.shape import row_shape
from lm.model.flops import ledger
from lm.model.parts.stacks import members, streams
from lm.preflight.topologies import Topology
from lm.rows import RowShape
from lm.train.config import RunConfig
from lm.train.memory import COMPUTE_BYTES, device_bytes, layers_weights, moves_scores, tables_weights

WITHIN = 1.8  # memory, as a factor
AXES = ("data", "fsdp", "stage", "context", "tensor")  # over which a run can be split, as lm.mesh orders them
FLOAT32 = 4
# Bytes that a step moves for each query, key and head where attention writes their products, at once or in blocks, and for each weight
# and micro-batch: of compiled steps of a decoder of 1024 x 16 on 8 H100 (XLA of JAX 0.10.2).
SCORES = {"none": 129.0, "dots": 99.0, "dots_no_batch": 85.0, "full": 83.0}
MOVED = 53.0
RECOMPUTED = {"none": 1.0, "dots": 1.0, "dots_no_batch": 1.05, "full": 4 / 3}  # products of a step over those of one that keeps all


class Guess(NamedTuple):
    """An estimate of one step on one device, by formula."""

    memory: float  # bytes per device
    seconds: float  # per step


def guess(config: RunConfig, topology: Topology) -> Guess:
    """Estimates one step on one device."""
    return Guess(device_bytes(config, topology.kind), _seconds(config, topology))


def _seconds(config: RunConfig, topology: Topology) -> float:
    row = row_shape(config.data, config.model.architecture)
    flops = ledger(config.model, row).flops_per_token["matmul_full"] * row.text * config.batch_size / topology.devices
    compute = flops * RECOMPUTED[config.execution.remat] / topology.chip.flops
    stages = config.mesh.stage
    if stages > 1:
        compute *= _ticks(config) / _passes(config)
    network = sum(count / _rate(config, topology, axis) for axis, count in _sent(config).items())
    terms = (compute, network, _moved(config, row, topology) / topology.chip.bandwidth)
    return max(terms) + 0.1 * (sum(terms) - max(terms))


def _moved(config: RunConfig, row: RowShape, topology: Topology) -> float:
    """Returns the bytes that a device's memory moves per step, of weights and of attention's products alone."""
    model, how = config.model, config.execution
    weights = layers_weights(model, config.mesh) + tables_weights(model, config.mesh)
    moved = MOVED * how.micro_batches * weights / config.mesh.fsdp
    if moves_scores(config, topology.kind):
        scores = sum(
            stream.stack.layers * part.component.scores(stream.length, stream.memory if part.reads_memory else stream.length)
            for stream in streams(model, row)
            for part in members(model, stream.stack.cross)
        )
        moved += SCORES[how.remat] * config.batch_size * scores / topology.devices
    return moved


def _passes(config: RunConfig) -> int:
    """Returns the ticks in which a stage has work: its micro-batches through each of its groups of layers."""
    return (config.execution.pipeline_micro_batches or config.mesh.stage) * config.execution.pipeline_repeats


def _ticks(config: RunConfig) -> int:
    return _passes(config) + config.mesh.stage - 1


def _sent(config: RunConfig) -> dict[str, float]:
    """Returns the bytes that a device sends per step, by mesh axis, as rings do."""
    data, fsdp, stage, context, tensor = (getattr(config.mesh, axis) for axis in AXES)
    model, row, wide = config.model, row_shape(config.data, config.model.architecture), COMPUTE_BYTES[config.compute_dtype]
    micro = config.execution.micro_batches
    tables = tables_weights(model, config.mesh)
    weights = layers_weights(model, config.mesh) + tables
    positions = config.batch_size * (row.length + row.encoder_length) / (data * fsdp * stage * context)  # of a device, in a step
    layers = sum(stream.stack.layers for stream in streams(model, row))
    components = model.components.values()
    keys = sum(component.key_numbers for component in components) / tensor
    again = 1.5 if config.execution.remat == "full" else 1.0

    def ring(ways: int) -> float:
        return (ways - 1) / ways

    states = positions * model.d_model * wide
    flow = config.execution.pipeline_micro_batches or stage
    sent = {
        "data": 2 * FLOAT32 * weights / fsdp * ring(data),
        "fsdp": micro * (2 * wide + FLOAT32) * weights * ring(fsdp),  # gathered twice, gradients scattered
        # a tick passes a micro-batch on, forward and backward; rows come to the stages and go back; tables' gradients are summed
        "stage": ((2 * _ticks(config) * stage / flow + 4) * states + 2 * FLOAT32 * tables / fsdp) * (stage > 1),
        "tensor": 4 * len(components) * again * layers * states * ring(tensor),  # each component sums its states, forward and backward
        "context": 3 * layers * positions * context * keys * wide * ring(context),
    }
    return {axis: count for axis, count in sent.items() if count}


def _rate(config: RunConfig, topology: Topology, axis: str) -> float:
    """Returns bytes/s along an axis. The last axes are the innermost ones: they stay within a node while it has devices for them."""
    chip = topology.chip
    if chip.kind == "tpu":
        return 2 * chip.link
    inner = math.prod(getattr(config.mesh, name) for name in AXES[AXES.index(axis) :])
    per_node = topology.shape[1]
    if inner <= per_node:
        return chip.link
    within = max(1, per_node * getattr(config.mesh, axis) // inner)
    return min(chip.link, within * chip.node)


def with_mesh(config: RunConfig, **sizes: int) -> RunConfig:
    """Returns `config` with these sizes of AXES; axes of no use yet have size 1."""
    return dataclasses.replace(config, mesh=dataclasses.replace(config.mesh, expert=1, **sizes))
