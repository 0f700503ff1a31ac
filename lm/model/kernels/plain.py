"""Attention as two matrix products and a softmax."""

import math
from typing import Optional

import jax
import jax.numpy as jnp

from lm.model.mask import Mask
from lm.model.weights import at_least_float32


def xla_attention(
    q_BTNH: jax.Array,
    k_BSKH: jax.Array,
    v_BSKH: jax.Array,
    mask: Mask,
    *,
    bias_BNTS: Optional[jax.Array] = None,
    scale: Optional[float] = None,
) -> jax.Array:
    """Returns attended_BTNH by plain matrix products, with logits [B, N, T, S] and softmax in float32 or wider.

    Heads come first and the G query heads of a group lie behind one another along T, so that every product is a plain batched one:
    on CPU a step is 1.5 times as fast as with the same products written over BTNH (d_model 32 and 64, T 128).
    """
    batch, length, heads, size = q_BTNH.shape
    kv_heads = k_BSKH.shape[2]
    grouped = (batch, kv_heads, heads // kv_heads * length)  # X is G * T below
    q_BKXH = jnp.swapaxes(q_BTNH, 1, 2).reshape(*grouped, size)
    k_BKSH, v_BKSH = jnp.swapaxes(k_BSKH, 1, 2), jnp.swapaxes(v_BSKH, 1, 2)
    logits_BKXS = jnp.einsum("BKXH,BKSH->BKXS", q_BKXH, k_BKSH, preferred_element_type=at_least_float32(q_BTNH.dtype))
    logits_BNTS = logits_BKXS.reshape(batch, heads, length, -1)
    logits_BNTS = logits_BNTS / math.sqrt(size) if scale is None else logits_BNTS * scale
    if bias_BNTS is not None:
        logits_BNTS = logits_BNTS + bias_BNTS
    hidden_BTS = mask.bias()
    if hidden_BTS is not None:
        logits_BNTS = logits_BNTS + hidden_BTS[:, None]
    weights_BNTS = jax.nn.softmax(logits_BNTS, axis=-1).astype(v_BSKH.dtype)
    attended_BKXH = jnp.einsum("BKXS,BKSH->BKXH", weights_BNTS.reshape(*grouped, -1), v_BKSH)
    return jnp.swapaxes(attended_BKXH.reshape(batch, heads, length, size), 1, 2)
