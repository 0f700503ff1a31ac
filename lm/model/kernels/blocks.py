"""Queries and keys cut into blocks, for attention that never holds all pairs of them."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Optional

import jax
import jax.numpy as jnp

from lm.model.mask import Mask

BLOCK = 512  # queries, and keys, of a block


class Queries(NamedTuple):
    """Queries with what mask and bias need of them. The sequence is each array's second axis, and rows may be shared (1 for B)."""

    x_BTNH: jax.Array
    position_BT: jax.Array
    original_index_BT: jax.Array
    segment_BT: Optional[jax.Array] = None


class Keys(NamedTuple):
    """Keys and values with what mask and bias need of them, which a ring passes on."""

    k_BSKH: jax.Array
    v_BSKH: jax.Array
    position_BS: jax.Array
    original_index_BS: jax.Array
    segment_BS: Optional[jax.Array] = None
    prefix_BS: Optional[jax.Array] = None
    real_BS: Optional[jax.Array] = None  # False where a block is filled up; None: all are


class Cotangents(NamedTuple):
    """Log-sum-exp of queries, and the gradients of the weights' sums of values and of their totals, for the backward pass."""

    log_sum_BTN: jax.Array
    values_BTNH: jax.Array
    total_BTN: jax.Array


@dataclasses.dataclass(frozen=True)
class Rule:
    """The static part of a call: the mask's kind, the scale of logits, and how the sequence is split."""

    kind: Literal["causal", "full"]
    window: Optional[int]
    scale: float
    by_original_index: bool  # whether the original index is known, and tells which blocks no query sees
    block: int = BLOCK
    ways: int = 1  # devices of the context axis
    ring: bool = False  # keys are passed round them, instead of gathered first

    def needed(self, q_original_index_BT: jax.Array, k_original_index_BS: jax.Array, prefix: bool) -> Any:
        """Returns whether some query of a block may see some key of another, by the original index alone, the same for all rows."""
        if not self.by_original_index:
            return True
        longest, shortest = (
            jnp.max(q_original_index_BT) - jnp.min(k_original_index_BS),
            jnp.min(q_original_index_BT) - jnp.max(k_original_index_BS),
        )
        needed: Any = longest >= 0 if self.kind == "causal" and not prefix else True
        if self.window is not None:
            needed &= (shortest < self.window) & (longest > -self.window)
        return needed


def block_of(chunk: int, most: int) -> int:
    """Returns the largest block, up to `most`, that divides a chunk of a zigzag row, or that of even cuts if four times larger.

    A device's part of a row is two chunks, one early and one late: a block with some of both could not be passed over.
    """
    whole = max(size for size in range(1, min(chunk, most) + 1) if chunk % size == 0)
    even = -(-chunk // -(-chunk // most))  # nearly as many blocks in each, of which some hold both
    return whole if 4 * whole >= even else even


def described(q_BTNH: jax.Array, k_BSKH: jax.Array, v_BSKH: jax.Array, mask: Mask, scale: Optional[float]) -> tuple[Rule, Queries, Keys]:
    """Returns the rule of a mask, and queries and keys with what it reads of them."""
    q_original_index_BT, k_original_index_BS = (jnp.asarray(index) for index in mask.distance_indices())
    scale = 1 / math.sqrt(q_BTNH.shape[-1]) if scale is None else scale
    rule = Rule(
        mask.kind, mask.window, scale, by_original_index=mask.q_original_index_BT is not None and mask.k_original_index_BS is not None
    )
    segmented = mask.q_segment_BT is not None and mask.k_segment_BS is not None
    q_segment_BT, k_segment_BS = (jnp.asarray(x) if segmented else None for x in (mask.q_segment_BT, mask.k_segment_BS))
    prefix_BS = None if mask.k_prefix_BS is None else jnp.asarray(mask.k_prefix_BS)
    queries = Queries(q_BTNH, jnp.asarray(mask.q_position_BT), q_original_index_BT, q_segment_BT)
    return rule, queries, Keys(k_BSKH, v_BSKH, jnp.asarray(mask.k_position_BS), k_original_index_BS, k_segment_BS, prefix_BS)


def split(x: jax.Array, block: int) -> jax.Array:
    """Cuts [B, T, ...] into [n, B, block, ...], filled up with zeros."""
    n = -(-x.shape[1] // block)
    missing = n * block - x.shape[1]
    if missing:
        x = jnp.pad(x, [(0, 0), (0, missing)] + [(0, 0)] * (x.ndim - 2))
    return jnp.moveaxis(x.reshape(x.shape[0], n, block, *x.shape[2:]), 1, 0)


def query_blocks(rule: Rule, tree: Any, keys: Keys) -> Any:
    """Cuts queries or their cotangents into blocks; arrays with heads become [n, B, K, G, block, ...]."""
    block, kv_heads = min(rule.block, tree[0].shape[1]), keys.k_BSKH.shape[2]

    def one(x: jax.Array) -> jax.Array:
        x = split(x, block)
        if x.ndim < 4:  # no heads
            return x
        return jnp.moveaxis(x.reshape(*x.shape[:3], kv_heads, x.shape[3] // kv_heads, *x.shape[4:]), 2, 4)

    return jax.tree.map(one, tree)


def key_blocks(rule: Rule, keys: Keys) -> Keys:
    """Cuts keys into blocks, with heads before the sequence."""
    length = keys.k_BSKH.shape[1]
    block = min(rule.block, length)
    if length % block:
        keys = keys._replace(real_BS=jnp.ones((1, length), bool))
    blocks = jax.tree.map(lambda x: split(x, block), keys)
    return blocks._replace(k_BSKH=jnp.swapaxes(blocks.k_BSKH, 2, 3), v_BSKH=jnp.swapaxes(blocks.v_BSKH, 2, 3))


def joined(x_nBKGTH: jax.Array, like: jax.Array) -> jax.Array:
    """Joins blocks [n, B, K, G, block, ...] to [B, T, N, ...], the inverse of query_blocks."""
    x = jnp.moveaxis(jnp.moveaxis(x_nBKGTH, 4, 2), 0, 1)  # B n block K G ...
    return x.reshape(x.shape[0], -1, like.shape[2], *x.shape[5:])[:, : like.shape[1]]


def loop(n: int, body: Callable, state: Any) -> Any:
    """Repeats state = body(i, state) for i in 0..n-1 in a while loop, of which rematerialisation policies save the results alone."""
    if n == 1:
        return body(0, state)
    return jax.lax.while_loop(lambda s: s[0] < n, lambda s: (s[0] + 1, body(s[0], s[1])), (jnp.int32(0), state))[1]


def take(tree: Any, i: Any) -> Any:
    return jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, i, keepdims=False), tree)


def put(tree: Any, part: Any, i: Any) -> Any:
    return jax.tree.map(lambda x, y: jax.lax.dynamic_update_index_in_dim(x, y, i, 0), tree, part)
