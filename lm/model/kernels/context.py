"""Attention over a sequence that the mesh splits over `context`: keys and values all gathered first, or passed round in a ring.

Both are blockwise attention under a shard_map that is manual over `context` alone, so that rows and heads stay split as they are. A device
works on the blocks that its own queries see: with the sequence in zigzag order all have the same work under a causal mask.
In the ring (Liu et al. 2023) each device holds one part of the keys at a time and sends it on while it computes; the backward pass sends
the keys' gradients after them, so that neither pass holds all keys.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Optional

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from lm.model.kernels import blocks as cut
from lm.model.kernels import blockwise
from lm.model.kernels.blocks import BLOCK, Keys, Queries, Rule
from lm.model.kernels.blockwise import Gradients
from lm.model.mask import Mask
from lm.model.positions import Relative

AXIS = "context"
SPLIT = PartitionSpec(None, AXIS)


def context_ways() -> int:
    """Into how many parts the current mesh splits the sequence."""
    mesh = jax.sharding.get_abstract_mesh()
    return 1 if mesh.empty else mesh.shape.get(AXIS, 1)


def attention(
    q_BTNH: jax.Array,
    k_BSKH: jax.Array,
    v_BSKH: jax.Array,
    mask: Mask,
    *,
    relative: Optional[Relative] = None,
    scale: Optional[float] = None,
    ring: bool = False,
    block: int = BLOCK,
) -> jax.Array:
    """attended_BTNH: lm.model.kernels.blockwise.attention under the current mesh."""
    ways = context_ways()
    rule, queries, keys = cut.described(q_BTNH, k_BSKH, v_BSKH, mask, scale)
    if ways == 1:
        return blockwise.whole(dataclasses.replace(rule, block=block), relative, queries, keys)[0]
    # A device's queries are two chunks of the row, one early and one late: no block shall hold some of both.
    block = min(block, -(-q_BTNH.shape[1] // (2 * ways)), -(-k_BSKH.shape[1] // (2 * ways)))
    return _split(dataclasses.replace(rule, block=block, ways=ways, ring=ring), relative, queries, keys)[0]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _split(rule: Rule, relative: Optional[Relative], queries: Queries, keys: Keys) -> tuple[jax.Array, jax.Array]:
    def forward(relative: Any, queries: Queries, keys: Keys) -> Any:
        blocks = cut.query_blocks(rule, queries, keys)

        def step(keys: Keys, sums: Any) -> Any:
            return blockwise.accumulate(rule, relative, blocks, keys, sums)

        sums = blockwise.nothing(blocks)
        return blockwise.finish(_round(rule, step, keys, sums) if rule.ring else step(_gathered(keys), sums), queries.x_BTNH)

    return _manual(forward, (relative, queries, keys), out_specs=(SPLIT, SPLIT))


def _forward(rule: Rule, relative: Any, queries: Queries, keys: Keys) -> tuple[Any, Any]:
    attended_BTNH, log_sum_BTN = _split(rule, relative, queries, keys)
    return (attended_BTNH, log_sum_BTN), (relative, queries, keys, attended_BTNH, log_sum_BTN)


def _backward(rule: Rule, residuals: Any, cotangents: Any) -> Any:
    relative, queries, keys, attended_BTNH, log_sum_BTN = residuals
    given = blockwise.cotangents_of(attended_BTNH, log_sum_BTN, *cotangents)

    def backward(relative: Any, queries: Queries, keys: Keys, given: Any) -> Any:
        blocks, ours = (cut.query_blocks(rule, tree, keys) for tree in (queries, given))

        def step(keys: Keys, gradients: Gradients) -> Any:
            return blockwise.accumulate_back(rule, relative, blocks, ours, keys, gradients)

        if rule.ring:
            dq, gradients = _round_back(rule, step, keys, blockwise.no_gradients(relative, queries, keys))
        else:
            whole = _gathered(keys)
            dq, gradients = step(whole, blockwise.no_gradients(relative, queries, whole))
            dk, dv = (jax.lax.psum_scatter(x, AXIS, scatter_dimension=1, tiled=True) for x in gradients[:2])
            gradients = Gradients(dk, dv, gradients.bias_BNR)
        if gradients.bias_BNR is not None:
            gradients = gradients._replace(bias_BNR=jax.lax.psum(gradients.bias_BNR, AXIS))
        return cut.joined(dq, queries.x_BTNH), gradients

    none = None if relative is None else PartitionSpec()
    arguments = (relative, queries, keys, given)
    dq_BTNH, gradients = _manual(backward, arguments, out_specs=(SPLIT, Gradients(SPLIT, SPLIT, none)))  # type: ignore[arg-type]
    return blockwise.as_cotangents(relative, queries, keys, dq_BTNH, gradients)


_split.defvjp(_forward, _backward)


def _manual(body: Callable, arguments: tuple, out_specs: Any) -> Any:
    """`body` on each device's part of the sequence; the table of relative positions is whole."""
    specs = tuple(PartitionSpec() if i == 0 else SPLIT for i in range(len(arguments)))
    return jax.shard_map(body, in_specs=specs, out_specs=out_specs, axis_names={AXIS}, check_vma=False)(*arguments)


def _gathered(keys: Keys) -> Keys:
    return jax.tree.map(lambda x: jax.lax.all_gather(x, AXIS, axis=1, tiled=True), keys)


def _sent(rule: Rule, tree: Any) -> Any:
    """Each device's tree on the next one."""
    return jax.tree.map(lambda x: jax.lax.ppermute(x, AXIS, [(i, (i + 1) % rule.ways) for i in range(rule.ways)]), tree)


def _round(rule: Rule, step: Callable, keys: Keys, sums: Any) -> Any:
    """step(keys, sums) for the keys of every device, beginning with our own, which go on while they are used."""

    def turn(_: Any, state: Any) -> Any:
        keys, sums = state
        return _sent(rule, keys), step(keys, sums)

    keys, sums = cut.loop(rule.ways - 1, turn, (keys, sums))
    return step(keys, sums)


def _round_back(rule: Rule, step: Callable, keys: Keys, zero: Gradients) -> Any:
    """(dq, gradients) where the gradients of keys follow them, one device behind, and come home at the end."""

    def add(keys: Keys, dq: Any, dk: Any, dv: Any, bias: Any) -> Any:
        more, new = step(keys, Gradients(dk, dv, bias))
        return dq + more, new.k_BKSH, new.v_BKSH, new.bias_BNR

    def turn(_: Any, state: Any) -> Any:
        keys, dq, dk, dv, bias = state
        sent = _sent(rule, keys)
        dq, *dkv, bias = add(keys, dq, dk, dv, bias)
        return sent, dq, *_sent(rule, tuple(dkv)), bias

    dq = jnp.zeros_like(jax.eval_shape(step, keys, zero)[0])
    state = cut.loop(rule.ways - 1, turn, (keys, dq, *zero))
    dq, dk, dv, bias = add(*state)
    dk, dv = _sent(rule, (dk, dv))
    return dq, Gradients(dk, dv, bias)
