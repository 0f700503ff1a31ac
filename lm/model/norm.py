"""Normalisation layers. Statistics are float32 whatever the compute dtype."""

from typing import Union

import jax
import jax.numpy as jnp
from flax import nnx

from lm.model.config import Norm
from lm.model.weights import Constant, declare, read
from lm.sharding import Rules


class RMSNorm(nnx.Module):
    """x / sqrt(mean(x^2) + epsilon) * scale over the last axis (Zhang & Sennrich 2019, equation 4)."""

    def __init__(self, size: int, epsilon: float, *, key: jax.Array, rules: Rules):
        self.epsilon = epsilon
        self.rules = rules
        self.scale = declare(key, (size,), ("norm",), Constant(1.0))

    def __call__(self, x: jax.Array) -> jax.Array:
        x32 = x.astype(jnp.float32)
        inverse = jax.lax.rsqrt(jnp.mean(x32 * x32, axis=-1, keepdims=True) + self.epsilon)
        return (x32 * inverse * read(self.scale, jnp.float32, self.rules)).astype(x.dtype)


class LayerNorm(nnx.Module):
    """(x - mean) / sqrt(variance + epsilon) * scale + bias over the last axis (Ba et al. 2016)."""

    def __init__(self, size: int, epsilon: float, *, key: jax.Array, rules: Rules):
        self.epsilon = epsilon
        self.rules = rules
        self.scale = declare(key, (size,), ("norm",), Constant(1.0))
        self.bias = declare(key, (size,), ("norm",), Constant(0.0))

    def __call__(self, x: jax.Array) -> jax.Array:
        x32 = x.astype(jnp.float32)
        centred = x32 - jnp.mean(x32, axis=-1, keepdims=True)
        inverse = jax.lax.rsqrt(jnp.mean(centred * centred, axis=-1, keepdims=True) + self.epsilon)
        scale, bias = read(self.scale, jnp.float32, self.rules), read(self.bias, jnp.float32, self.rules)
        return (centred * inverse * scale + bias).astype(x.dtype)


def make_norm(kind: Norm, size: int, epsilon: float, *, key: jax.Array, rules: Rules) -> Union[RMSNorm, LayerNorm]:
    return RMSNorm(size, epsilon, key=key, rules=rules) if kind == "rmsnorm" else LayerNorm(size, epsilon, key=key, rules=rules)
