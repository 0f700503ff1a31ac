"""Rotary position embedding (Su et al. 2021, equation 34), with the halves of a head paired as in GPT-NeoX and Llama."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int


class Rope(NamedTuple):
    """Cosines and sines of the angle of each position and pair; computed once for all layers."""

    cos: Float[Array, "B T 1 half"]
    sin: Float[Array, "B T 1 half"]


def rope(positions_BT: Int[Array, "B T"], head_dim: int, theta: float) -> Rope:
    """Pair j of position t turns by t * theta^(-2j / head_dim) radians."""
    frequency = theta ** (-np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)
    angle = positions_BT[:, :, None, None].astype(jnp.float32) * jnp.asarray(frequency, jnp.float32)
    return Rope(jnp.cos(angle), jnp.sin(angle))


def rotate(x_BTNH: jax.Array, table: Rope) -> jax.Array:
    """Rotates each pair (x[j], x[j + H/2]); float32 inside, x's dtype out."""
    first, second = jnp.split(x_BTNH.astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate([first * table.cos - second * table.sin, second * table.cos + first * table.sin], axis=-1)
    return turned.astype(x_BTNH.dtype)
