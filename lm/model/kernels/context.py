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
from lm.model.relative import Relative

AXIS = "context"
SPLIT, ANY = PartitionSpec(None, AXIS), PartitionSpec.UNCONSTRAINED


def context_ways() -> int:
    """Returns the number of parts into which the current mesh splits the sequence."""
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
    """Returns attended_BTNH, as lm.model.kernels.blockwise.attention does, under the current mesh."""
    ways = context_ways()
    rule, queries, keys = cut.described(q_BTNH, k_BSKH, v_BSKH, mask, scale)
    if ways == 1:
        return blockwise.whole(dataclasses.replace(rule, block=block), relative, queries, keys)[0]
    block = min(cut.block_of(x.shape[1] // (2 * ways), block) for x in (q_BTNH, k_BSKH))
    return _split(dataclasses.replace(rule, block=block, ways=ways, ring=ring), relative, queries, keys)[0]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _split(rule: Rule, relative: Optional[Relative], queries: Queries, keys: Keys) -> tuple[jax.Array, jax.Array]:
    def forward(relative: Any, queries: Queries, keys: Keys) -> Any:
        blocks = cut.query_blocks(rule, queries, keys)

        def step(keys: Keys, sums: Any) -> Any:
            return blockwise.accumulate(rule, relative, blocks, keys, sums)

        sums = blockwise.nothing(blocks)
        return blockwise.finish(_round(rule, step, keys, sums) if rule.ring else step(keys, sums), queries.x_BTNH)

    return _manual(rule, forward, (relative, queries, keys), out_specs=(SPLIT, SPLIT))


def _forward(rule: Rule, relative: Any, queries: Queries, keys: Keys) -> tuple[Any, Any]:
    attended_BTNH, log_sum_BTN = blockwise.kept(_split(rule, relative, queries, keys))
    return (attended_BTNH, log_sum_BTN), (relative, queries, keys, attended_BTNH, log_sum_BTN)


def _backward(rule: Rule, residuals: Any, cotangents: Any) -> Any:
    relative, queries, keys, attended_BTNH, log_sum_BTN = residuals
    given = blockwise.cotangents_of(attended_BTNH, log_sum_BTN, *cotangents)

    def backward(relative: Any, queries: Queries, keys: Keys, given: Any) -> Any:
        blocks, ours = (cut.query_blocks(rule, tree, keys) for tree in (queries, given))

        def step(keys: Keys, gradients: Gradients) -> Any:
            return blockwise.accumulate_back(rule, relative, blocks, ours, keys, gradients)

        zero = blockwise.no_gradients(relative, queries, keys)
        dq, gradients = _round_back(rule, step, keys, zero) if rule.ring else step(keys, zero)
        dk, dv, bias = gradients
        if not rule.ring:  # a device's part of the gradient of all keys: summed outside, where rows and heads stay split
            dk, dv = dk[None], dv[None]
        bias = None if bias is None else jax.lax.psum(bias, AXIS)
        return cut.joined(dq, queries.x_BTNH), Gradients(dk, dv, bias)

    of_keys = SPLIT if rule.ring else PartitionSpec(AXIS)
    specs: Any = (of_keys, of_keys, None if relative is None else PartitionSpec())  # in the form of the arrays that they describe
    out_specs = (SPLIT, Gradients(*specs))
    dq_BTNH, gradients = _manual(rule, backward, (relative, queries, keys, given), out_specs)
    if not rule.ring:
        dk, dv = (jax.lax.with_sharding_constraint(jnp.sum(x, axis=0), PartitionSpec(ANY, AXIS, ANY, ANY)) for x in gradients[:2])
        gradients = Gradients(dk, dv, gradients.bias_BNR)
    return blockwise.as_cotangents(relative, queries, keys, dq_BTNH, gradients)


_split.defvjp(_forward, _backward)


def _manual(rule: Rule, body: Callable, arguments: tuple, out_specs: Any) -> Any:
    """Runs `body` on each device's queries, with its keys or with all of them.

    All keys are gathered before: a gathering inside would gather rows and heads too. The table of relative positions is whole.
    """
    relative, queries, keys, *given = arguments
    if not rule.ring:
        whole = {x: jax.lax.with_sharding_constraint(getattr(keys, x), PartitionSpec(ANY, None, ANY, ANY)) for x in ("k_BSKH", "v_BSKH")}
        keys = keys._replace(**whole)
    specs = (PartitionSpec(), SPLIT, SPLIT if rule.ring else PartitionSpec(), *(SPLIT for _ in given))
    mapped = jax.shard_map(body, in_specs=specs, out_specs=out_specs, axis_names={AXIS}, check_vma=False)
    return mapped(relative, queries, keys, *given)


def _sent(rule: Rule, tree: Any) -> Any:
    """Sends each device's tree to the next one."""
    return jax.tree.map(lambda x: jax.lax.ppermute(x, AXIS, [(i, (i + 1) % rule.ways) for i in range(rule.ways)]), tree)


def _round(rule: Rule, step: Callable, keys: Keys, sums: Any) -> Any:
    """Runs step(keys, sums) on the keys of every device, the own ones first. Keys are passed on while they are used."""

    def turn(_: Any, state: Any) -> Any:
        keys, sums = state
        return _sent(rule, keys), step(keys, sums)

    keys, sums = cut.loop(rule.ways - 1, turn, (keys, sums))
    return step(keys, sums)


def _round_back(rule: Rule, step: Callable, keys: Keys, zero: Gradients) -> Any:
    """Returns (dq, gradients) of step(keys, zero) on the keys of every device. Gradients follow their keys, one device behind."""

    def turn(_: Any, state: Any) -> Any:
        keys, dq, dk, dv, bias = state
        on, (dk, dv) = _sent(rule, keys), _sent(rule, (dk, dv))  # neither waits for what is computed meanwhile
        more, new = step(keys, zero._replace(bias_BNR=bias))
        return on, dq + more, dk + new.k_BKSH, dv + new.v_BKSH, new.bias_BNR

    dq, gradients = step(keys, zero)
    _, dq, dk, dv, bias = cut.loop(rule.ways - 1, turn, (_sent(rule, keys), dq, *gradients))
    dk, dv = _sent(rule, (dk, dv))
    return dq, Gradients(dk, dv, bias)
