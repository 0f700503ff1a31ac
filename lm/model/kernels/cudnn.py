"""cuDNN's fused attention."""

from typing import Optional

import jax

from lm.model.mask import Mask


def attention(q_BTNH: jax.Array, k_BSKH: jax.Array, v_BSKH: jax.Array, mask: Mask, *, scale: Optional[float] = None) -> jax.Array:
    """Returns attended_BTNH under a mask that `choose` lets through: causal, full or a causal window, in the order of positions."""
    window = None if mask.window is None else (mask.window - 1, 0)
    return jax.nn.dot_product_attention(
        q_BTNH, k_BSKH, v_BSKH, is_causal=mask.kind == "causal", local_window_size=window, scale=scale, implementation="cudnn"
    )
