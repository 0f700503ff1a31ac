"""Heads beside the tied table: what reads the last states."""

import jax
from flax import nnx

from lm.model.config import ModelConfig
from lm.model.parts.heads import outputs
from lm.model.weights import Constant, Linear, declare, key_for, read
from lm.sharding import Rules


class Bias(nnx.Module):
    """A bias added to each logit, the own weights of a head whose kernel is the token table."""

    def __init__(self, size: int, *, key: jax.Array, rules: Rules):
        self.rules = rules
        self.bias = declare(key, (size,), ("vocab",), Constant(0.0))

    def __call__(self, logits_BPV: jax.Array) -> jax.Array:
        return logits_BPV + read(self.bias, logits_BPV.dtype, self.rules)


class OutputHeads(nnx.Module):
    """The linear heads of `config.outputs`, each under its own name."""

    def __init__(self, config: ModelConfig, *, key: jax.Array, rules: Rules):
        for name, head in outputs(config).items():
            setattr(self, name, Linear(head.linear, key=key_for(key, name), rules=rules))
