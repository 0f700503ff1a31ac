"""Attention a block of queries and keys at a time: no array has both a query and a key axis longer than a block.

The softmax is online (Milakov & Gimelshein 2018) and the backward pass computes each block's weights again from the log-sum-exp, as
FlashAttention does (Dao et al. 2022, algorithms 1 and 4), here in plain XLA: it runs on any device and serves every mask and T5's bias.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple, Optional

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from lm.model.execution import ATTENDED
from lm.model.kernels.blocks import (
    BLOCK,
    Cotangents,
    Keys,
    Queries,
    Rule,
    described,
    joined,
    key_blocks,
    loop,
    put,
    query_blocks,
    split,
    take,
)
from lm.model.mask import HIDDEN, Mask
from lm.model.relative import Relative
from lm.model.weights import at_least_float32


class Sums(NamedTuple):
    """Running sums over the keys that queries have seen: the result is values / total, its log-sum-exp is top + log(total)."""

    top_BKGT: jax.Array
    total_BKGT: jax.Array
    values_BKGTH: jax.Array


class Gradients(NamedTuple):
    """The gradients of keys, values and the relative bias, summed over blocks of queries."""

    k_BKSH: jax.Array
    v_BKSH: jax.Array
    bias_BNR: Optional[jax.Array]  # row by row: a sum over rows would be a collective in each block


def attention(
    q_BTNH: jax.Array,
    k_BSKH: jax.Array,
    v_BSKH: jax.Array,
    mask: Mask,
    *,
    relative: Optional[Relative] = None,
    scale: Optional[float] = None,
    block: int = BLOCK,
) -> tuple[jax.Array, jax.Array]:
    """Returns (attended_BTNH, log_sum_BTN): the log-sum-exp of each query's logits, float32 or wider, merges partial results.

    A query that sees no key attends to nothing: 0, with a log-sum-exp of HIDDEN. Blocks that no query sees are passed over. Differentiable
    once, in reverse, towards queries, keys, values and the table of `relative`.
    """
    rule, queries, keys = described(q_BTNH, k_BSKH, v_BSKH, mask, scale)
    rule = dataclasses.replace(rule, block=block)
    return whole(rule, relative, queries, keys)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def whole(rule: Rule, relative: Optional[Relative], queries: Queries, keys: Keys) -> tuple[jax.Array, jax.Array]:
    """Computes `attention` where all keys are on the device."""
    blocks = query_blocks(rule, queries, keys)
    return finish(accumulate(rule, relative, blocks, keys, nothing(blocks)), queries.x_BTNH)


def kept(results: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
    """Names results so that rematerialisation keeps them: it keeps none of a loop's, and the forward pass would run twice."""
    attended_BTNH, log_sum_BTN = (checkpoint_name(x, ATTENDED) for x in results)
    return attended_BTNH, log_sum_BTN


def _whole(rule: Rule, relative: Any, queries: Queries, keys: Keys) -> tuple[Any, Any]:
    attended_BTNH, log_sum_BTN = kept(whole(rule, relative, queries, keys))
    return (attended_BTNH, log_sum_BTN), (relative, queries, keys, attended_BTNH, log_sum_BTN)


def _whole_back(rule: Rule, residuals: Any, cotangents: Any) -> Any:
    relative, queries, keys, attended_BTNH, log_sum_BTN = residuals
    given = cotangents_of(attended_BTNH, log_sum_BTN, *cotangents)
    blocks = query_blocks(rule, queries, keys)
    dq, gradients = accumulate_back(rule, relative, blocks, query_blocks(rule, given, keys), keys, no_gradients(relative, queries, keys))
    return as_cotangents(relative, queries, keys, joined(dq, queries.x_BTNH), gradients)


whole.defvjp(_whole, _whole_back)


# Forward.


def nothing(blocks: Queries) -> Sums:
    """Returns the sums of queries, in blocks, that have seen no key."""
    zero = jnp.zeros_like(blocks.x_BTNH, at_least_float32(blocks.x_BTNH.dtype))
    return Sums(jnp.full_like(zero[..., 0], HIDDEN), zero[..., 0], zero)


def accumulate(rule: Rule, relative: Optional[Relative], blocks: Queries, keys: Keys, sums: Sums) -> Sums:
    """Returns the sums of queries, in blocks, with these keys added."""
    parts = key_blocks(rule, keys)

    def row(i: Any, sums: Sums) -> Sums:
        q = take(blocks, i)

        def column(j: Any, own: Sums) -> Sums:
            k = take(parts, j)
            return _if(rule, q, k, lambda own: _seen(rule, relative, q, k, own), own)

        return put(sums, loop(parts.k_BSKH.shape[0], column, take(sums, i)), i)

    return loop(blocks.x_BTNH.shape[0], row, sums)


def finish(sums: Sums, like_BTNH: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns (attended_BTNH in the dtype of `like`, log_sum_BTN)."""
    some = sums.total_BKGT > 0
    total = jnp.where(some, sums.total_BKGT, 1.0)
    log_sum = jnp.where(some, sums.top_BKGT + jnp.log(total), HIDDEN)
    return joined(sums.values_BKGTH / total[..., None], like_BTNH).astype(like_BTNH.dtype), joined(log_sum, like_BTNH)


def _if(rule: Rule, q: Queries, k: Keys, work: Callable, state: Any) -> Any:
    needed = rule.needed(q.original_index_BT, k.original_index_BS, k.prefix_BS is not None)
    return work(state) if needed is True else jax.lax.cond(needed, work, lambda state: state, state)


def _seen(rule: Rule, relative: Optional[Relative], q: Queries, k: Keys, sums: Sums) -> Sums:
    logits_BKGTS, visible = _logits(rule, relative, q, k)
    if visible is not None:
        logits_BKGTS = jnp.where(visible, logits_BKGTS, HIDDEN)
    top = jnp.maximum(sums.top_BKGT, jnp.max(logits_BKGTS, axis=-1))
    weights_BKGTS = _hide(jnp.exp(logits_BKGTS - top[..., None]), visible)
    kept = jnp.exp(sums.top_BKGT - top)
    values = _product("BKGTS,BKSH->BKGTH", weights_BKGTS.astype(k.v_BSKH.dtype), k.v_BSKH)
    total = sums.total_BKGT * kept + jnp.sum(weights_BKGTS, axis=-1)
    return Sums(top, total, sums.values_BKGTH * kept[..., None] + values)


def _logits(rule: Rule, relative: Optional[Relative], q: Queries, k: Keys) -> tuple[jax.Array, Optional[jax.Array]]:
    """Returns a block's logits, float32 or wider, and where they are visible, [B or 1, 1, 1, T, S]; None: everywhere."""
    logits_BKGTS = _product("BKGTH,BKSH->BKGTS", q.x_BTNH, k.k_BSKH) * rule.scale
    if relative is not None:
        bias_BNTS = relative.bias_BNTS(q.original_index_BT, k.original_index_BS)
        logits_BKGTS = logits_BKGTS + bias_BNTS.reshape(bias_BNTS.shape[0], *logits_BKGTS.shape[1:])
    mask = Mask(q.position_BT, k.position_BS, q.segment_BT, k.segment_BS, k.prefix_BS, kind=rule.kind, window=rule.window)
    visible_BTS = mask.visible()
    if k.real_BS is not None:
        real_BTS = jnp.broadcast_to(k.real_BS[:, None], (1, q.position_BT.shape[1], k.real_BS.shape[1]))
        visible_BTS = real_BTS if visible_BTS is None else visible_BTS & real_BTS
    return logits_BKGTS, None if visible_BTS is None else visible_BTS[:, None, None]


def _hide(x_BKGTS: jax.Array, visible: Optional[jax.Array]) -> jax.Array:
    return x_BKGTS if visible is None else jnp.where(visible, x_BKGTS, 0.0)


def _product(terms: str, a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.einsum(terms, a, b, preferred_element_type=at_least_float32(a.dtype))


# Backward.


def cotangents_of(attended_BTNH: jax.Array, log_sum_BTN: jax.Array, d_attended: jax.Array, d_log_sum: jax.Array) -> Cotangents:
    """Returns the cotangents of the sums.

    With weights exp(logit - log_sum), whose total is 1, the result is values / total and the log-sum-exp moves by log(total).
    """
    wide = log_sum_BTN.dtype
    through_total = jnp.sum(d_attended.astype(wide) * attended_BTNH.astype(wide), axis=-1)
    return Cotangents(log_sum_BTN, d_attended, d_log_sum - through_total)


def no_gradients(relative: Optional[Relative], queries: Queries, keys: Keys) -> Gradients:
    """Returns zero gradients of some keys, in the layout [B, S, K, H], and of the bias of each row."""
    wide = at_least_float32(queries.x_BTNH.dtype)
    bias_BNR = None
    if relative is not None:
        zero_BN = jnp.zeros_like(queries.x_BTNH[:, 0, :, 0], wide)
        bias_BNR = jnp.broadcast_to(zero_BN[..., None], (*zero_BN.shape, relative.table_RN.shape[0]))
    return Gradients(jnp.zeros_like(keys.k_BSKH, wide), jnp.zeros_like(keys.v_BSKH, wide), bias_BNR)


def accumulate_back(
    rule: Rule, relative: Optional[Relative], blocks: Queries, given: Cotangents, keys: Keys, gradients: Gradients
) -> tuple[jax.Array, Gradients]:
    """Returns (the queries' gradient through these keys, in blocks, and `gradients` with what these queries add)."""
    parts, length = key_blocks(rule, keys), keys.k_BSKH.shape[1]
    dkv = tuple(jnp.swapaxes(split(x, parts.k_BSKH.shape[3]), 2, 3) for x in (gradients.k_BKSH, gradients.v_BKSH))

    def row(i: Any, state: Any) -> Any:
        q, own, (dq, *rest) = take(blocks, i), take(given, i), state

        def column(j: Any, state: Any) -> Any:
            k, (dq, dkv, bias) = take(parts, j), state
            before = (dq, take(dkv, j), bias)
            dq, dkv_j, bias = _if(rule, q, k, lambda before: _pulled(rule, relative, q, own, k, before), before)
            return dq, put(dkv, dkv_j, j), bias

        dq_i, dkv, bias = loop(parts.k_BSKH.shape[0], column, (take(dq, i), *rest))
        return put(dq, dq_i, i), dkv, bias

    zero = jnp.zeros_like(blocks.x_BTNH, given.log_sum_BTN.dtype)
    dq, (dk, dv), bias_BNR = loop(blocks.x_BTNH.shape[0], row, (zero, dkv, gradients.bias_BNR))
    dk, dv = (jnp.moveaxis(jnp.swapaxes(x, 2, 3), 0, 1) for x in (dk, dv))
    dk, dv = (x.reshape(x.shape[0], -1, *x.shape[3:])[:, :length] for x in (dk, dv))
    return dq, Gradients(dk, dv, bias_BNR)


def _pulled(rule: Rule, relative: Optional[Relative], q: Queries, given: Cotangents, k: Keys, before: Any) -> Any:
    dq, (dk, dv), bias_BNR = before
    logits_BKGTS, visible = _logits(rule, relative, q, k)
    weights_BKGTS = _hide(jnp.exp(logits_BKGTS - given.log_sum_BTN[..., None]), visible)
    d_weights_BKGTS = _product("BKGTH,BKSH->BKGTS", given.values_BTNH, k.v_BSKH) + given.total_BTN[..., None]
    d_logits_BKGTS = weights_BKGTS * d_weights_BKGTS
    narrow = d_logits_BKGTS.astype(k.k_BSKH.dtype)
    dq = dq + _product("BKGTS,BKSH->BKGTH", narrow, k.k_BSKH) * rule.scale
    dk = dk + _product("BKGTS,BKGTH->BKSH", narrow, q.x_BTNH) * rule.scale
    dv = dv + _product("BKGTS,BKGTH->BKSH", weights_BKGTS.astype(k.v_BSKH.dtype), given.values_BTNH)
    if relative is not None:
        bias_BNR = bias_BNR + _of_buckets(relative, q, k, d_logits_BKGTS)
    return dq, (dk, dv), bias_BNR


def _of_buckets(relative: Relative, q: Queries, k: Keys, d_logits_BKGTS: jax.Array) -> jax.Array:
    """Returns each row's gradient of the bias of each bucket, by a product: a scatter is slow on accelerators."""
    bucket_BTS = relative.bucket_BTS(q.original_index_BT, k.original_index_BS)
    chosen_BTSR = jax.nn.one_hot(bucket_BTS, relative.table_RN.shape[0], dtype=d_logits_BKGTS.dtype)
    d_BNTS = d_logits_BKGTS.reshape(d_logits_BKGTS.shape[0], -1, *d_logits_BKGTS.shape[3:])
    if bucket_BTS.shape[0] == 1:
        return jnp.einsum("BNTS,TSR->BNR", d_BNTS, chosen_BTSR[0])
    return jnp.einsum("BNTS,BTSR->BNR", d_BNTS, chosen_BTSR)


def as_cotangents(relative: Optional[Relative], queries: Queries, keys: Keys, dq_BTNH: jax.Array, gradients: Gradients) -> Any:
    """Returns gradients in the shapes and dtypes of the arguments; integers have none."""
    dq_BTNH = dq_BTNH.astype(queries.x_BTNH.dtype)
    dk, dv = gradients.k_BKSH.astype(keys.k_BSKH.dtype), gradients.v_BKSH.astype(keys.v_BSKH.dtype)
    d_relative = None
    if relative is not None and gradients.bias_BNR is not None:
        table_RN = jnp.sum(gradients.bias_BNR, axis=0).T.astype(relative.table_RN.dtype)
        d_relative = dataclasses.replace(relative, table_RN=table_RN)
    none: Any = None  # what custom_vjp takes for arguments without a gradient
    return d_relative, Queries(dq_BTNH, none, none), Keys(dk, dv, none, none)
