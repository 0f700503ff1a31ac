"""Spikes: steps whose loss or gradient norm stands out from those of the sound steps before. They are found inside the compiled step.

A value is a spike when it is more than `factor` deviations above the median of the last `window` sound steps. A deviation is 1.4826 times
the median distance from the median, which is the standard deviation of normal values and no outlier moves it (Hampel 1974); at least
`LEAST_DEVIATION`. Values are the loss in nats and the logarithm of the gradient norm. What is skipped is no part of the window.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

FEWEST = 20  # sound steps that say what is usual
LEAST_DEVIATION = 0.01


class Window(NamedTuple):
    """The values of the last W sound steps, in a ring, and how many sound steps there have been."""

    values_2W: Float[Array, "2 W"]
    steps: Int[Array, ""]


def empty(window: int) -> Window:
    """Returns the window of a run that has made no step."""
    return Window(jnp.zeros((2, window), jnp.float32), jnp.zeros((), jnp.int32))


def seen(loss: jax.Array, grad_norm: jax.Array) -> jax.Array:
    """Returns the values of a step, [2]."""
    return jnp.stack([loss, jnp.log(jnp.maximum(grad_norm, 1e-30))]).astype(jnp.float32)


def is_spike(window: Window, values_2: jax.Array, factor: float) -> jax.Array:
    """Returns whether a step stands out. Nothing does before `FEWEST` sound steps; values that are not finite are not looked at."""
    size = window.values_2W.shape[1]
    filled = jnp.minimum(window.steps, size)
    inside_W = jnp.arange(size) < filled

    def median(values_2W: jax.Array) -> jax.Array:
        ordered_2W = jnp.sort(jnp.where(inside_W, values_2W, jnp.inf), axis=1)
        return (ordered_2W[:, jnp.maximum(filled - 1, 0) // 2] + ordered_2W[:, filled // 2 % size]) / 2

    middle_2 = median(window.values_2W)
    deviation_2 = 1.4826 * median(jnp.abs(window.values_2W - middle_2[:, None]))
    stands_out_2 = values_2 > middle_2 + factor * jnp.maximum(deviation_2, LEAST_DEVIATION)
    return jnp.any(stands_out_2) & (window.steps >= min(FEWEST, size))


def with_step(window: Window, values_2: jax.Array, is_sound: jax.Array) -> Window:
    """Returns the window after a step, which takes a place in it if it is sound."""
    at = window.steps % window.values_2W.shape[1]
    values_2W = window.values_2W.at[:, at].set(jnp.where(is_sound, values_2, window.values_2W[:, at]))
    return Window(values_2W, window.steps + is_sound.astype(jnp.int32))
