"""Grouped-query attention."""

import math
from typing import Any, NamedTuple, Optional

import jax
import jax.numpy as jnp
from flax import nnx

from lm.errors import UserError
from lm.model.cache import write
from lm.model.config import ModelConfig
from lm.model.execution import Execution
from lm.model.mask import Mask
from lm.model.norm import RMSNorm
from lm.model.positions import Rope, rotate
from lm.model.weights import Linear, key_for
from lm.sharding import constrain

KeyValue = tuple[jax.Array, jax.Array]  # stored keys and values, both LBSKH


class Context(NamedTuple):
    """What all layers of one call share."""

    mask: Mask
    rope: Optional[Rope] = None
    slot_BT: Optional[jax.Array] = None  # where the cache keeps this call's keys and values
    attend_cache: bool = False  # whether queries see the cache's keys, or this call's only


class Attention(nnx.Module):
    """softmax(q k / sqrt(H) + mask) v, where each group of N / K query heads shares one key/value head (Ainslie et al. 2023)."""

    def __init__(self, config: ModelConfig, execution: Execution, *, key: jax.Array):
        attention, rules = config.attention, execution.rules
        size, heads = attention.head_dim, attention.num_heads
        kv_heads = attention.num_kv_heads or heads
        if heads % kv_heads:
            raise UserError(f"num_heads={heads} is no multiple of num_kv_heads={kv_heads}")
        if config.positions == "rope" and size % 2:
            raise UserError(f"head_dim={size} is odd and rotary positions turn pairs: make it even")
        self.execution = execution
        width, query = {"embed": config.d_model}, {"heads": heads, "head_dim": size}
        shared = {"kv_heads": kv_heads, "head_dim": size}
        options: dict[str, Any] = {"rules": rules, "bias": attention.bias}
        self.query = Linear(width, query, key=key_for(key, "query"), bias_init=attention.qk_bias_init, **options)
        self.key = Linear(width, shared, key=key_for(key, "key"), bias_init=attention.qk_bias_init, **options)
        self.value = Linear(width, shared, key=key_for(key, "value"), **options)
        self.out = Linear(query, width, key=key_for(key, "out"), zero=config.zero_init_outputs, **options)
        # Queries and keys normalised per head (Dehghani et al. 2023, section 2.1), with RMSNorm.
        self.query_norm = RMSNorm(size, config.norm_epsilon, key=key, rules=rules) if attention.qk_norm else None
        self.key_norm = RMSNorm(size, config.norm_epsilon, key=key, rules=rules) if attention.qk_norm else None

    def __call__(self, x_BTD: jax.Array, context: Context, stored: Optional[KeyValue], layer: Any) -> tuple[jax.Array, Optional[KeyValue]]:
        q_BTNH, k_BSKH, v_BSKH = self.query(x_BTD), self.key(x_BTD), self.value(x_BTD)
        if self.query_norm is not None and self.key_norm is not None:
            q_BTNH, k_BSKH = self.query_norm(q_BTNH), self.key_norm(k_BSKH)
        if context.rope is not None:
            q_BTNH, k_BSKH = rotate(q_BTNH, context.rope), rotate(k_BSKH, context.rope)
        rules = self.execution.rules
        q_BTNH = constrain(q_BTNH, "act_batch", "act_length", "act_heads", None, rules=rules)
        k_BSKH, v_BSKH = (constrain(y, "act_batch", None, "act_kv_heads", None, rules=rules) for y in (k_BSKH, v_BSKH))
        if stored is not None and context.slot_BT is not None:
            stored = (write(stored[0], k_BSKH, layer, context.slot_BT), write(stored[1], v_BSKH, layer, context.slot_BT))
            if context.attend_cache:
                k_BSKH, v_BSKH = (y[layer].astype(x_BTD.dtype) for y in stored)
        attended_BTNH = attend(q_BTNH, k_BSKH, v_BSKH, context.mask, self.execution.attention)
        return self.out(attended_BTNH), stored


def attend(q_BTNH: jax.Array, k_BSKH: jax.Array, v_BSKH: jax.Array, mask: Mask, backend: str) -> jax.Array:
    """attended_BTNH by the backend asked for; UserError when it cannot serve the mask, dtype or device."""
    if choose_backend(backend, mask, q_BTNH.dtype, jax.default_backend()) == "cudnn":
        window = None if mask.window is None else (mask.window - 1, 0)
        causal = mask.kind == "causal"
        return jax.nn.dot_product_attention(q_BTNH, k_BSKH, v_BSKH, is_causal=causal, local_window_size=window, implementation="cudnn")
    return xla_attention(q_BTNH, k_BSKH, v_BSKH, mask)


def choose_backend(asked: str, mask: Mask, dtype: Any, platform: str) -> str:
    """The kernel that serves a mask. No silent fallback: what was asked for by name is served or refused.

    mask                              xla    cudnn (gpu, 16-bit)
    causal, window, joined documents  yes    yes, and `auto` takes it
    isolated documents (segments)     yes    refused: needs a [T, S] mask
    """
    refusal = None
    if platform != "gpu":
        refusal = f"runs on GPUs and this is {platform}"
    elif dtype not in (jnp.bfloat16, jnp.float16):
        refusal = f"computes in 16 bits and compute_dtype is {jnp.dtype(dtype).name}"
    elif mask.q_segment_BT is not None or mask.q_position_BT.shape != mask.k_position_BS.shape:
        refusal = "knows no document boundaries or cached keys (attention.documents=joined has none)"
    if asked == "cudnn" and refusal:
        raise UserError(f"cudnn attention {refusal}: use --config.execution.attention=auto")
    return "cudnn" if asked in ("auto", "cudnn") and refusal is None else "xla"


def xla_attention(q_BTNH: jax.Array, k_BSKH: jax.Array, v_BSKH: jax.Array, mask: Mask) -> jax.Array:
    """Plain matrix products; logits and softmax in float32. Holds [B, N, T, S] logits.

    Heads come first and the G query heads of a group lie behind one another along T, so that every product is a plain batched one:
    on CPU a step is 1.5 times as fast as with the same products written over BTNH (d_model 32 and 64, T 128).
    """
    batch, length, heads, size = q_BTNH.shape
    kv_heads = k_BSKH.shape[2]
    grouped = (batch, kv_heads, heads // kv_heads * length)  # X is G * T below
    q_BKXH = jnp.swapaxes(q_BTNH, 1, 2).reshape(*grouped, size)
    k_BKSH, v_BKSH = jnp.swapaxes(k_BSKH, 1, 2), jnp.swapaxes(v_BSKH, 1, 2)
    logits_BKXS = jnp.einsum("BKXH,BKSH->BKXS", q_BKXH, k_BKSH, preferred_element_type=jnp.float32)
    logits_BNTS = logits_BKXS.reshape(batch, heads, length, -1) / math.sqrt(size)
    bias_BTS = mask.bias()
    if bias_BTS is not None:
        logits_BNTS = logits_BNTS + bias_BTS[:, None]
    weights_BNTS = jax.nn.softmax(logits_BNTS, axis=-1).astype(v_BSKH.dtype)
    attended_BKXH = jnp.einsum("BKXS,BKSH->BKXH", weights_BNTS.reshape(*grouped, -1), v_BKSH)
    return jnp.swapaxes(attended_BKXH.reshape(batch, heads, length, size), 1, 2)
