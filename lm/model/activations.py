"""Activation functions by name."""

import jax
import jax.numpy as jnp

from lm.model.parts.mlp import Activation


def activate(x: jax.Array, name: Activation) -> jax.Array:
    """Applies an activation function.

    `gelu` is the tanh approximation (GPT-2, T5 1.1), `gelu_exact` is not (BERT, BART); `squared_relu` is Primer's (So et al. 2021).
    """
    if name == "squared_relu":
        return jnp.square(jax.nn.relu(x))
    if name == "gelu_exact":
        return jax.nn.gelu(x, approximate=False)
    return {"gelu": jax.nn.gelu, "silu": jax.nn.silu, "relu": jax.nn.relu}[name](x)
