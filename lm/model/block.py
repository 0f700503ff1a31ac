"""Block: attention and feed-forward on the residual stream. Stack: blocks in sequence, by one scan."""

import functools
from collections.abc import Callable
from typing import Any, Optional

import jax
import jax.numpy as jnp
from flax import nnx

from lm.model.attention import Attention, Context, KeyValue
from lm.model.config import ModelConfig
from lm.model.execution import Execution
from lm.model.mlp import MLP
from lm.model.norm import make_norm
from lm.model.weights import key_for
from lm.sharding import constrain

Aux = dict[str, jax.Array]


class Block(nnx.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)): pre-norm (Xiong et al. 2020)."""

    def __init__(self, config: ModelConfig, execution: Execution, *, key: jax.Array):
        norm = functools.partial(make_norm, config.norm, config.d_model, config.norm_epsilon, key=key, rules=execution.rules)
        self.execution = execution
        self.attention_norm = norm()
        self.attention = Attention(config, execution, key=key_for(key, "attention"))
        self.mlp_norm = norm()
        self.mlp = MLP(config, key=key_for(key, "mlp"), rules=execution.rules)

    def __call__(
        self, x_BTD: jax.Array, context: Context, stored: Optional[KeyValue] = None, layer: Any = None
    ) -> tuple[jax.Array, Optional[KeyValue], Aux]:
        """(x, stored keys and values with this call's, statistics). What nobody reads of the statistics is not computed."""
        attended_BTD, stored = self.attention(self.attention_norm(x_BTD), context, stored, layer)
        x_BTD = x_BTD + attended_BTD
        x_BTD = x_BTD + self.mlp(self.mlp_norm(x_BTD))
        x_BTD = constrain(x_BTD, "act_batch", "act_length", "act_embed", rules=self.execution.rules)
        square = jnp.square(jax.lax.stop_gradient(x_BTD).astype(jnp.float32))
        return x_BTD, stored, {"activation_rms": jnp.sqrt(jnp.mean(square))}


class Stack(nnx.Module):
    """`layers` blocks. Their weights have a leading layer axis; one scan runs them, whether unrolled or not.

    A stack of several kinds of block would be a scan over periods with members block_00, block_01, ...; there is one kind now.
    """

    def __init__(self, config: ModelConfig, execution: Execution, *, key: jax.Array):
        self.layers = config.num_layers
        self.execution = execution
        keys = jax.random.split(key_for(key, "block_00"), self.layers)
        self.block_00 = jax.vmap(lambda key: Block(config, execution, key=key))(keys)

    def __call__(self, x_BTD: jax.Array, context: Context, stored: Optional[KeyValue] = None) -> tuple[jax.Array, Optional[KeyValue], Aux]:
        """(x, stored keys and values, statistics with a leading layer axis). The cache is carried, so it is updated in place."""

        def layer(carry, block_and_index):
            x_BTD, stored = carry
            block, index = block_and_index
            x_BTD, stored, aux = block(x_BTD, context, stored, index)
            return (x_BTD, stored), aux

        body = _remat(layer, self.execution)
        (x_BTD, stored), aux = jax.lax.scan(body, (x_BTD, stored), (self.block_00, jnp.arange(self.layers)), unroll=self.execution.unroll)
        return x_BTD, stored, aux


def _remat(layer: Callable, execution: Execution) -> Callable:
    policies = jax.checkpoint_policies
    if execution.remat == "none":
        return layer
    policy = {
        "full": policies.nothing_saveable,
        "dots": policies.dots_saveable,
        "dots_no_batch": policies.dots_with_no_batch_dims_saveable,
    }[execution.remat]
    # Inside a loop nothing can merge the two computations; in straight code only the barriers of prevent_cse keep them apart.
    return jax.checkpoint(layer, policy=policy, prevent_cse=execution.unroll)
