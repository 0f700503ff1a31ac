"""Pipeline parallelism: a stack's layers as stages on other devices, through which micro-batches pass one behind the other.

Stage s holds R groups of k = L / (R S) consecutive layers; layer l = (r S + s) k + i is number i of its group r. Every micro-batch goes
round R times (the interleaved schedule: Narayanan et al. 2021, section 2.2), one group a tick. With S = 2, R = 2, M = 3:

    tick      0    1    2    3    4    5    6          0a: micro-batch 0 in group 0 of a stage, 0b: in its group 1
    stage 0   0a   1a   2a   0b   1b   2b   .
    stage 1   .    0a   1a   2a   0b   1b   2b         M R + S - 1 ticks, S - 1 of them idle on each stage

It is one `jax.shard_map`, manual over the mesh axis `stage` alone: the other axes split a stage's arrays as they split any. Round the
ring of devices goes what a micro-batch carries: its states, and in a decoder with cross-attention its encoder's. What it only reads
(positions, segments, angles, the bias of distances) lies on every stage and is looked up by its number.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from lm.errors import UserError
from lm.model.attention import Context
from lm.model.block import Aux
from lm.model.execution import Execution, Pipeline, remat
from lm.sharding import Rules, constrain

AXIS = "stage"
Layers = Callable[[Any, jax.Array, Context], tuple[jax.Array, Aux]]  # a group of layers: (weights [k, ...], x, context) -> (x, statistics)


def run(layers: Layers, weights: Any, x_BTD: jax.Array, context: Context, execution: Execution) -> tuple[jax.Array, Aux]:
    """Returns (states of the last layer, statistics [L] in the order of layers, means over micro-batches).

    `weights` are [R, S, k, ...]. Row r belongs to micro-batch r mod M, as in lm.train.step.accumulate. For the backward pass a tick keeps
    its inputs and what `execution.remat` keeps. Raises UserError for rows that do not divide, and on a mesh of other stages.
    """
    pipeline, rows = execution.pipeline, x_BTD.shape[0]
    assert pipeline is not None
    ways = _ways(rows, pipeline, execution.rules)
    aside = {name: getattr(context, name) for name in ("mask", "rope", "bias_BNTS", "memory_mask")}
    by_row = jax.tree.map(lambda x: x.shape[0] == rows > 1, aside)  # else of all rows alike

    def stage(weights: Any, moving: Any, aside: Any, relative: Any) -> tuple[jax.Array, Aux]:
        aside = jax.tree.map(lambda x, is_split: _split(x, pipeline.micro_batches) if is_split else x, aside, by_row)

        def work(weights: Any, moving: Any, aside: Any, relative: Any, number: jax.Array, group: jax.Array) -> tuple[Any, Aux]:
            x_BTD, memory_BSD = moving
            own = jax.tree.map(lambda x, is_split: _at(x, number) if is_split else x, aside, by_row)
            at_hand = context._replace(**own, relative=relative, memory_BSD=memory_BSD)
            x_BTD, aux = layers(jax.tree.map(lambda w: _at(w, group), weights), x_BTD, at_hand)
            return (x_BTD, memory_BSD), aux

        # The lookups belong to what is computed again: kept, they would be a copy of the weights for every tick.
        again = remat(work, "full" if execution.remat == "none" else execution.remat)
        weights = jax.tree.map(lambda w: w[:, 0], weights)
        slots = jax.tree.map(lambda x: _gather(x, pipeline, execution.rules), moving)
        slots, aux = _ticks(lambda moving, *which: again(weights, moving, aside, relative, *which), slots, pipeline)
        return _scatter(slots[0], ways, pipeline.stages), jax.tree.map(lambda a: _of_layers(a, pipeline), aux)

    # Rows by the devices that split a stage's rows, so that no row leaves its place but along the ring.
    moving = jax.tree.map(lambda x: x.reshape(ways, rows // ways, *x.shape[1:]), (x_BTD, context.memory_BSD))
    whole, split = PartitionSpec(), PartitionSpec(None, AXIS)
    staged = jax.shard_map(stage, in_specs=(split, split, whole, whole), out_specs=split, axis_names={AXIS}, check_vma=False)
    out, aux = staged(weights, moving, aside, context.relative)
    return out.reshape(x_BTD.shape), jax.tree.map(lambda a: a.reshape(-1, *a.shape[3:]), aux)


def _ways(rows: int, pipeline: Pipeline, rules: Rules) -> int:
    """Returns the number of devices over which a stage's rows are split."""
    mesh, stages = jax.sharding.get_abstract_mesh(), pipeline.stages
    if mesh.empty or mesh.shape[AXIS] != stages:
        raise UserError(f"a model of {stages} pipeline stages runs under jax.set_mesh with a mesh of stage={stages}")
    devices = rules.batch_ways(mesh)
    multiple = pipeline.rows_multiple(devices)
    if rows % multiple:
        counts = f"{pipeline.micro_batches} micro-batches of the pipeline and {stages} stages of {devices // stages} devices each"
        raise UserError(f"{rows} rows cannot be divided among {counts}: give a multiple of {multiple}")
    return devices // stages


def _ticks(work: Callable, slots: Any, pipeline: Pipeline) -> tuple[Any, Aux]:
    """Returns (slots with the results on stage 0, statistics [ticks, k]).

    `work` maps (what moves, number, group) to (what moves on, statistics [k]).

    Slot m of [M, ...] holds what micro-batch m brings to stage 0 next: its first states, then what came round, in the end its results.
    """
    stages, count, total = pipeline.stages, pipeline.micro_batches, pipeline.micro_batches * pipeline.repeats
    stage, ring = jax.lax.axis_index(AXIS), [(s, (s + 1) % stages) for s in range(stages)]

    def receive(slots: Any, came: Any, item: Any) -> Any:
        number, is_mine = item % count, (stage == 0) & (item >= 0)

        def put(slots: jax.Array, came: jax.Array) -> jax.Array:
            return jax.lax.dynamic_update_index_in_dim(slots, jnp.where(is_mine, came, _at(slots, number)), number, 0)

        return jax.tree.map(put, slots, came)

    def tick(carry: Any, t: jax.Array) -> tuple[Any, Aux]:
        slots, came = carry
        slots, item = receive(slots, came, t - stages), t - stage
        is_work, item = (item >= 0) & (item < total), jnp.clip(item, 0, total - 1)
        number = item % count
        # Zeros where there is no work: what follows from them is finite, and a gradient of zero stays one.
        moving = jax.tree.map(lambda s, c: jnp.where(is_work, jnp.where(stage == 0, _at(s, number), c), 0), slots, came)
        moving, aux = work(moving, number, item // count)
        return (slots, jax.lax.ppermute(moving, AXIS, ring)), aux

    start = (slots, jax.tree.map(lambda s: jnp.zeros_like(s[0]), slots))
    (slots, came), aux = jax.lax.scan(tick, start, jnp.arange(pipeline.ticks))
    return receive(slots, came, total - 1), aux


def _gather(x: jax.Array, pipeline: Pipeline, rules: Rules) -> jax.Array:
    """Gathers [ways, rows of one stage, ...] into slots [M, rows of a micro-batch, ...], on stage 0 with the rows of all stages.

    Every stage sends its rows to stage 0 alone, which is less than an all-gather and, going back, adds nothing up.
    """
    _, _, *rest = x.shape
    parts = [x, *(jax.lax.ppermute(x, AXIS, [(s, 0)]) for s in range(1, pipeline.stages))]
    slots = _split(jnp.stack(parts, axis=1).reshape(-1, *rest), pipeline.micro_batches)
    return constrain(slots, None, "act_batch", "act_stream", "act_embed", rules=rules.inside(AXIS))


def _scatter(slots: jax.Array, ways: int, stages: int) -> jax.Array:
    """Scatters stage 0's slots to [ways, rows of one stage, ...], the inverse of `_gather`."""
    _, _, *rest = slots.shape
    rows = jnp.moveaxis(slots, 0, 1).reshape(ways, stages, -1, *rest)
    own = jnp.where(jax.lax.axis_index(AXIS) == 0, rows[:, 0], 0)
    for s in range(1, stages):
        own = own + jax.lax.ppermute(rows[:, s], AXIS, [(0, s)])  # zeros on all stages but s
    return own


def _split(x: jax.Array, count: int) -> jax.Array:
    """Splits rows [B, ...] into [M, B / M, ...]: row r in micro-batch r mod M, so that rows stay on their devices."""
    return jnp.moveaxis(x.reshape(-1, count, *x.shape[1:]), 1, 0)


def _of_layers(values: jax.Array, pipeline: Pipeline) -> jax.Array:
    """Averages [ticks, k, ...] of one stage over micro-batches, of the ticks that did work: [R, 1, k, ...]."""
    count, repeats = pipeline.micro_batches, pipeline.repeats
    done = jax.lax.dynamic_slice_in_dim(values, jax.lax.axis_index(AXIS), count * repeats)
    return done.reshape(repeats, count, *values.shape[1:]).mean(axis=1)[:, None]


def _at(x: jax.Array, index: jax.Array) -> jax.Array:
    return x[0] if x.shape[0] == 1 else jax.lax.dynamic_index_in_dim(x, index, keepdims=False)
