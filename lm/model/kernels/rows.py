"""Attention one row at a time, for CPUs: the logits of a row's block of queries stay in a core's cache.

Written over the whole batch, logits and weights [B, N, T, S] pass through memory eight times in a step. The backward pass computes each
block's weights again from the log-sum-exp (Dao et al. 2022, algorithm 4), and a block of a causal mask leaves out the keys after it.
"""

import functools
import math
from typing import Any, Optional

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from lm.model.execution import ATTENDED
from lm.model.mask import Mask
from lm.model.weights import at_least_float32

LEAST = 256  # queries, and keys, from which on it is faster than the plain kernel
BLOCKS = 4  # most blocks of queries, which are straight code
SMALLEST = 128  # queries of a block

Row = tuple[jax.Array, jax.Array, jax.Array, Optional[jax.Array]]  # queries KGTH, keys KSH, values KSH, bias TS


def serves(queries: int, keys: int) -> bool:
    """Returns whether rows are faster than the plain kernel on a CPU under the current mesh, which must not split anything."""
    mesh = jax.sharding.get_abstract_mesh()
    return min(queries, keys) >= LEAST and (mesh.empty or mesh.size == 1)


def attention(q_BTNH: jax.Array, k_BSKH: jax.Array, v_BSKH: jax.Array, mask: Mask, *, scale: Optional[float] = None) -> jax.Array:
    """Returns attended_BTNH, with logits and softmax in float32 or wider. Differentiable once, in reverse."""
    batch, length, heads, size = q_BTNH.shape
    kv_heads = k_BSKH.shape[2]
    q_BKGTH = jnp.swapaxes(q_BTNH, 1, 2).reshape(batch, kv_heads, heads // kv_heads, length, size)
    k_BKSH, v_BKSH = jnp.swapaxes(k_BSKH, 1, 2), jnp.swapaxes(v_BSKH, 1, 2)
    hidden_BTS = mask.bias()
    if hidden_BTS is not None:
        hidden_BTS = jnp.broadcast_to(hidden_BTS, (batch, *hidden_BTS.shape[1:]))
    scale = 1 / math.sqrt(size) if scale is None else scale
    attended_BKGTH = _attention(scale, _ends(mask, length, k_BKSH.shape[2]), q_BKGTH, k_BKSH, v_BKSH, hidden_BTS)
    return jnp.swapaxes(attended_BKGTH.reshape(batch, heads, length, size), 1, 2)


def _ends(mask: Mask, queries: int, keys: int) -> tuple[tuple[int, int], ...]:
    """Returns for each block of queries where it ends, and where the keys end that it may see."""
    count = max(n for n in range(1, BLOCKS + 1) if queries % n == 0 and (n == 1 or queries // n >= SMALLEST))
    ordered = mask.q_original_index_BT is not None and mask.k_original_index_BS is not None and not mask.permuted and queries == keys
    skips = mask.kind == "causal" and mask.k_prefix_BS is None and ordered
    ends = [queries // count * (i + 1) for i in range(count)]
    return tuple((end, end if skips else keys) for end in ends)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _attention(scale: float, ends: Any, q: jax.Array, k: jax.Array, v: jax.Array, bias: Optional[jax.Array]) -> jax.Array:
    return _forward(scale, ends, q, k, v, bias)[0]


def _forward(scale: float, ends: Any, q: jax.Array, k: jax.Array, v: jax.Array, bias: Optional[jax.Array]) -> Any:
    attended, log_sum = jax.lax.map(lambda row: _row(scale, ends, row), (q, k, v, bias))
    attended, log_sum = checkpoint_name(attended, ATTENDED), checkpoint_name(log_sum, ATTENDED)
    return attended, (q, k, v, bias, attended, log_sum)


def _backward(scale: float, ends: Any, residuals: Any, d_attended: jax.Array) -> Any:
    q, k, v, bias, attended, log_sum = residuals
    wide = at_least_float32(q.dtype)
    shift = jnp.sum(attended.astype(wide) * d_attended.astype(wide), axis=-1)
    return *jax.lax.map(lambda row: _row_back(scale, ends, *row), ((q, k, v, bias), log_sum, shift, d_attended)), None


_attention.defvjp(_forward, _backward)


def _row(scale: float, ends: Any, row: Row) -> tuple[jax.Array, jax.Array]:
    """Returns the attended values KGTH of a row, and the log-sum-exp of its logits KGT."""
    v_KSH = row[2]
    attended, log_sums, start = [], [], 0
    for end, seen in ends:
        logits_KGTS = _logits(scale, row, start, end, seen)
        most_KGT1 = jnp.max(logits_KGTS, axis=-1, keepdims=True)
        weights_KGTS = jnp.exp(logits_KGTS - most_KGT1)
        total_KGT1 = jnp.sum(weights_KGTS, axis=-1, keepdims=True)
        values_KGTH = _product("KXS,KSH->KXH", weights_KGTS.astype(v_KSH.dtype), v_KSH[:, :seen])
        attended.append((values_KGTH / total_KGT1).astype(v_KSH.dtype))
        log_sums.append((most_KGT1 + jnp.log(total_KGT1))[..., 0])
        start = end
    return jnp.concatenate(attended, axis=2), jnp.concatenate(log_sums, axis=2)


def _row_back(scale: float, ends: Any, row: Row, log_sum_KGT: jax.Array, shift_KGT: jax.Array, d_KGTH: jax.Array) -> Any:
    """Returns the gradients of a row's queries, keys and values."""
    q_KGTH, k_KSH, v_KSH, _ = row
    dq, dk, dv, start = [], jnp.zeros_like(k_KSH), jnp.zeros_like(v_KSH), 0
    for end, seen in ends:
        q, d = q_KGTH[:, :, start:end], d_KGTH[:, :, start:end]
        weights_KGTS = jnp.exp(_logits(scale, row, start, end, seen) - log_sum_KGT[:, :, start:end, None])
        d_weights_KGTS = _product("KXH,KSH->KXS", d, v_KSH[:, :seen])
        d_logits_KGTS = (weights_KGTS * (d_weights_KGTS - shift_KGT[:, :, start:end, None]) * scale).astype(q.dtype)
        dq.append(_product("KXS,KSH->KXH", d_logits_KGTS, k_KSH[:, :seen]).astype(q.dtype))
        dk = dk.at[:, :seen].add(_over_queries(q, d_logits_KGTS).astype(dk.dtype))
        dv = dv.at[:, :seen].add(_over_queries(d, weights_KGTS.astype(d.dtype)).astype(dv.dtype))
        start = end
    return jnp.concatenate(dq, axis=2), dk, dv


def _logits(scale: float, row: Row, start: int, end: int, seen: int) -> jax.Array:
    q_KGTH, k_KSH, _, bias_TS = row
    logits_KGTS = _product("KXH,KSH->KXS", q_KGTH[:, :, start:end], k_KSH[:, :seen]) * scale
    return logits_KGTS if bias_TS is None else logits_KGTS + bias_TS[start:end, :seen]


def _product(terms: str, x_KGTY: jax.Array, y: jax.Array) -> jax.Array:
    """Multiplies with queries of a group behind one another (X is G * T), summed in float32 or wider."""
    kv_heads, group, length, last = x_KGTY.shape
    found = jnp.einsum(terms, x_KGTY.reshape(kv_heads, group * length, last), y, preferred_element_type=at_least_float32(x_KGTY.dtype))
    return found.reshape(kv_heads, group, length, -1)


def _over_queries(x_KGTH: jax.Array, y_KGTS: jax.Array) -> jax.Array:
    """Returns the sum over queries of y x, [K, S, H]; multiplied as [K, H, S], which is faster where H is the smaller."""
    kv_heads, _, _, size = x_KGTH.shape
    x_KXH, y_KXS = x_KGTH.reshape(kv_heads, -1, size), y_KGTS.reshape(kv_heads, -1, y_KGTS.shape[-1])
    product = jnp.einsum("KXH,KXS->KHS", x_KXH, y_KXS, preferred_element_type=at_least_float32(x_KGTH.dtype))
    return jnp.swapaxes(product, 1, 2)
