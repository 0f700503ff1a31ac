"""Splash attention on TPUs: JAX's Pallas kernel with a static mask and segments, which passes over blocks that the mask hides."""

import math
from typing import Any, Optional

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernels
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

from lm.model.execution import ATTENDED
from lm.model.kernels.devices import on_each_device
from lm.model.mask import Mask
from lm.sharding import Rules

BLOCKS = (512, 256, 128)  # the largest that divides a length


def attention(
    q_BTNH: jax.Array,
    k_BSKH: jax.Array,
    v_BSKH: jax.Array,
    mask: Mask,
    rules: Rules,
    *,
    scale: Optional[float] = None,
    interpret: bool = False,
) -> jax.Array:
    """Returns attended_BTNH under a mask that `choose` lets through, in the order of positions. Rows and heads stay split as they are.

    `interpret` runs the kernel's steps on any device, for tests.
    """
    scale = 1 / math.sqrt(q_BTNH.shape[-1]) if scale is None else scale
    arguments: list[jax.Array] = [(q_BTNH * scale).astype(q_BTNH.dtype), k_BSKH, v_BSKH]
    batch = q_BTNH.shape[0]
    if mask.q_segment_BT is not None and mask.k_segment_BS is not None:
        arguments += [jnp.broadcast_to(x, (batch, x.shape[1])) for x in (mask.q_segment_BT, mask.k_segment_BS)]

    def local(q_BTNH: jax.Array, k_BSKH: jax.Array, v_BSKH: jax.Array, *segments: jax.Array) -> jax.Array:
        kernel = _kernel(mask, q_BTNH.shape[1], k_BSKH.shape[1], q_BTNH.shape[2], interpret)
        heads_first = (jnp.swapaxes(x, 1, 2) for x in (q_BTNH, k_BSKH, v_BSKH))
        ids = kernels.SegmentIds(*segments) if segments else None
        return jnp.swapaxes(jax.vmap(kernel)(*heads_first, ids), 1, 2)

    return on_each_device(local, arguments, rules)


def _kernel(mask: Mask, queries: int, keys: int, heads: int, interpret: bool) -> Any:
    shape, width = (queries, keys), mask.window
    described: Any = masks.FullMask(shape)
    if width is not None:
        described = masks.LocalMask(shape, (width - 1, 0 if mask.kind == "causal" else width - 1), 0)
    elif mask.kind == "causal":
        described = masks.CausalMask(shape)
    q, kv = (next(block for block in BLOCKS if length % block == 0) for length in shape)
    sizes = kernels.BlockSizes(
        block_q=q, block_kv=kv, block_kv_compute=kv, block_q_dkv=q, block_kv_dkv=kv, block_kv_dkv_compute=kv, block_q_dq=q, block_kv_dq=kv
    )
    return kernels.make_splash_mha(
        masks.MultiHeadMask([described] * heads),
        block_sizes=sizes,
        head_shards=1,
        q_seq_shards=1,
        residual_checkpoint_name=ATTENDED,
        interpret=interpret,
    )
