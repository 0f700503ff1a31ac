"""Rotary position embedding (Su et al. 2021, equation 34), with the halves of a head paired as in GPT-NeoX and Llama."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int


class Rope(NamedTuple):
    """Cosines and signed sines of the angle of each position and pair; computed once for all layers."""

    cos: Float[Array, "B T 1 H"]
    sin: Float[Array, "B T 1 H"]  # negative in the first half


def rope(positions_BT: Int[Array, "B T"], head_dim: int, theta: float) -> Rope:
    """Pair j of position t turns by t * theta^(-2j / head_dim) radians."""
    frequency = theta ** (-np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)
    angle = positions_BT[:, :, None, None].astype(jnp.float32) * jnp.asarray(frequency, jnp.float32)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    # Kept as arrays: otherwise XLA computes them again in every fusion that reads them.
    return Rope(*jax.lax.optimization_barrier((jnp.concatenate([cos, cos], -1), jnp.concatenate([-sin, sin], -1))))


def rotate(x_BTNH: jax.Array, table: Rope) -> jax.Array:
    """Rotates each pair (x[j], x[j + H/2]); float32 inside, x's dtype out.

    Whole heads are multiplied and halves change places, instead of halves being multiplied apart: a training step of width 32 takes a
    sixth less time on a CPU.
    """
    x32 = x_BTNH.astype(jnp.float32)
    return (x32 * table.cos + jnp.roll(x32, x32.shape[-1] // 2, axis=-1) * table.sin).astype(x_BTNH.dtype)
