"""Functions of positions: rotary angles, sinusoids, and T5's buckets of distance."""

import math
from typing import Any, NamedTuple, Optional

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from lm.model.config import ModelConfig, RopeScaling
from lm.model.parts.positions import rotated_size
from lm.model.weights import at_least_float32
from lm.types import AnyArray


class Rope(NamedTuple):
    """Cosines and signed sines of each position's angles, computed once for all layers. R dimensions of a head are rotated."""

    cos: Float[Array, "B T 1 R"]
    sin: Float[Array, "B T 1 R"]  # negative in the first half


def rope(positions_BT: Int[AnyArray, "B T"], config: ModelConfig, dtype: Any = jnp.float32) -> Rope:
    """Returns the table by which pair j at position t rotates t * theta^(-2j / R) radians (Su et al. 2021, equation 34).

    `dtype` is that in which the layers compute.
    """
    size, dtype = rotated_size(config), at_least_float32(dtype)
    frequency = config.rope_theta ** (-np.arange(0, size, 2, dtype=np.float64) / size)
    if config.rope_scaling is not None:
        frequency = scaled(frequency, config.rope_scaling)
    angle = positions_BT[:, :, None, None].astype(dtype) * jnp.asarray(frequency, dtype)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    # Kept as arrays: otherwise XLA computes them again in every fusion that reads them.
    return Rope(*jax.lax.optimization_barrier((jnp.concatenate([cos, cos], -1), jnp.concatenate([-sin, sin], -1))))


def rope_of_layer(table: Rope, turns: jax.Array) -> Rope:
    """Returns the table of one layer: the same, or one that leaves x as it is, 1 x + 0 x, where the layer turns nothing."""
    return Rope(jnp.where(turns, table.cos, 1), jnp.where(turns, table.sin, 0))


def scaled(frequency: np.ndarray, scaling: RopeScaling) -> np.ndarray:
    """Returns Llama 3's stretched frequencies in radians per position (Grattafiori et al. 2024; interpolated as in the released code)."""
    turns = scaling.original_length * frequency / (2 * math.pi)  # over the length that the model first knew
    low, high = scaling.low_frequency_factor, scaling.high_frequency_factor
    kept = np.clip((turns - low) / (high - low), 0.0, 1.0)
    return frequency * (kept + (1.0 - kept) / scaling.factor)


def rotate(x_BTNH: jax.Array, table: Rope) -> jax.Array:
    """Rotates each pair (x[j], x[j + R/2]) of a head's first R dimensions; float32 or wider inside, x's dtype out.

    The halves are paired as in GPT-NeoX and Llama. Whole heads are multiplied and halves change places, instead of halves being
    multiplied apart: a training step of width 32 takes a sixth less time on a CPU.
    """
    size = table.cos.shape[-1]
    wide = x_BTNH[..., :size].astype(at_least_float32(x_BTNH.dtype))
    turned_BTNR = (wide * table.cos + jnp.roll(wide, size // 2, axis=-1) * table.sin).astype(x_BTNH.dtype)
    return turned_BTNR if size == x_BTNH.shape[-1] else jnp.concatenate([turned_BTNR, x_BTNH[..., size:]], -1)


def sinusoidal(positions_BT: Int[AnyArray, "B T"], width: int, dtype: Any) -> Float[Array, "B T D"]:
    """Returns sin(t / 10000^(2i / D)) at 2i and the cosine at 2i + 1 (Vaswani et al. 2017, section 3.5)."""
    wide = at_least_float32(dtype)
    frequency = 10_000.0 ** (-np.arange(0, width, 2, dtype=np.float64) / width)
    angle_BTF = positions_BT[:, :, None].astype(wide) * jnp.asarray(frequency, wide)
    both_BTF2 = jnp.stack([jnp.sin(angle_BTF), jnp.cos(angle_BTF)], axis=-1)
    return both_BTF2.reshape(*positions_BT.shape, -1)[..., :width].astype(dtype)


def bucket(distance: Int[AnyArray, "*S"], buckets: int, furthest: int, *, both_ways: bool) -> Int[Array, "*S"]:
    """Returns T5's bucket of a distance, query position minus key position (Raffel et al. 2019, section 2.1).

    Half of the buckets (of those for one direction) hold one distance each, the others grow geometrically up to `furthest` and hold all
    beyond. With `both_ways` the upper half of the buckets is for keys after the query; else those share the bucket of distance 0.
    """
    later = jnp.zeros_like(distance)
    if both_ways:
        buckets //= 2
        later = jnp.where(distance < 0, buckets, 0)
        distance = jnp.abs(distance)
    distance = jnp.maximum(distance, 0)
    exact = buckets // 2
    # Float32, as in the released models, so that edges between buckets fall where theirs do.
    ratio = jnp.log(jnp.maximum(distance, 1).astype(jnp.float32) / exact) / math.log(furthest / exact)
    coarse = jnp.minimum(exact + (ratio * (buckets - exact)).astype(jnp.int32), buckets - 1)
    return later + jnp.where(distance < exact, distance, coarse)


def order(length: int) -> Int[Array, "1 T"]:
    """Returns the indices of a row, [1, T]: inside a segment they are as far apart as positions, and one table serves all rows."""
    return jnp.arange(length, dtype=jnp.int32)[None]


def original_index_of(original_index: Optional[Any], length: int) -> Any:
    """Returns each token's index in its row before the loader permuted the sequence axis, [1, T]: all rows are permuted alike."""
    return order(length) if original_index is None else original_index[:1]
