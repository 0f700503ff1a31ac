"""Normalisation layers. Statistics are float32 or wider, whatever the compute dtype."""

from typing import Union

import jax
import jax.numpy as jnp
from flax import nnx

from lm.model.config import Norm
from lm.model.weights import Constant, at_least_float32, declare, read
from lm.sharding import Rules


class RMSNorm(nnx.Module):
    """RMS norm: x / sqrt(mean(x^2) + epsilon) * scale over the last axis (Zhang & Sennrich 2019, equation 4)."""

    def __init__(self, size: int, epsilon: float, *, key: jax.Array, rules: Rules):
        self.epsilon = epsilon
        self.rules = rules
        self.scale = declare(key, (size,), ("norm",), Constant(1.0))

    def __call__(self, x: jax.Array) -> jax.Array:
        wide = x.astype(at_least_float32(x.dtype))
        inverse = jax.lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + self.epsilon)
        return (wide * inverse * read(self.scale, wide.dtype, self.rules)).astype(x.dtype)


class LayerNorm(nnx.Module):
    """(x - mean) / sqrt(variance + epsilon) * scale + bias over the last axis (Ba et al. 2016)."""

    def __init__(self, size: int, epsilon: float, *, key: jax.Array, rules: Rules):
        self.epsilon = epsilon
        self.rules = rules
        self.scale = declare(key, (size,), ("norm",), Constant(1.0))
        self.bias = declare(key, (size,), ("norm",), Constant(0.0))

    def __call__(self, x: jax.Array) -> jax.Array:
        wide = x.astype(at_least_float32(x.dtype))
        centred = wide - jnp.mean(wide, axis=-1, keepdims=True)
        inverse = jax.lax.rsqrt(jnp.mean(centred * centred, axis=-1, keepdims=True) + self.epsilon)
        scale, bias = read(self.scale, wide.dtype, self.rules), read(self.bias, wide.dtype, self.rules)
        return (centred * inverse * scale + bias).astype(x.dtype)


def make_norm(kind: Norm, size: int, epsilon: float, *, key: jax.Array, rules: Rules) -> Union[RMSNorm, LayerNorm]:
    return RMSNorm(size, epsilon, key=key, rules=rules) if kind == "rmsnorm" else LayerNorm(size, epsilon, key=key, rules=rules)
