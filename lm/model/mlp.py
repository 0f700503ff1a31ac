"""Feed-forward layers of every kind."""

import jax
from flax import nnx

from lm.model.config import ModelConfig
from lm.model.execution import Execution
from lm.model.weights import Linear, key_for
from lm.sharding import constrain


class MLP(nnx.Module):
    """A feed-forward layer of any kind: the linear layers that its config declares, as attributes, computed by the config's `apply`."""

    def __init__(self, config: ModelConfig, execution: Execution, *, key: jax.Array):
        self.config, self.rules, on_cpu = config.mlp, execution.rules, execution.on_cpu
        for name, spec in config.mlp.linears(config.d_model, config.out_gain).items():
            setattr(self, name, Linear(spec, key=key_for(key, name), rules=self.rules, on_cpu=on_cpu))

    def __call__(self, x_BTD: jax.Array) -> jax.Array:
        return self.config.apply(self, x_BTD)

    def split(self, h_BTF: jax.Array) -> jax.Array:
        """Returns the hidden states, split over the mesh as tensor parallelism asks."""
        return constrain(h_BTF, "act_batch", "act_length", "act_ffn", rules=self.rules)
