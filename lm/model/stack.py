"""Stack: the blocks of one stream in sequence, by one scan, with what tells them positions and the norm that ends them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from lm.model.attention import Context, with_bias
from lm.model.block import Aux, Block, Stored
from lm.model.config import ModelConfig
from lm.model.execution import Execution
from lm.model.mask import Mask
from lm.model.norm import make_norm
from lm.model.positions import Relative, rope, sinusoidal, turned
from lm.model.weights import Embedding, at_least_float32, key_for, read
from lm.sharding import constrain


class Stack(nnx.Module):
    """`layers` blocks. Their weights have a leading layer axis; one scan runs them, whether unrolled or not.

    A stack of several kinds of block would be a scan over periods with members block_00, block_01, ...; there is one kind now.
    """

    def __init__(self, config: ModelConfig, execution: Execution, layers: int, std: float, *, key: jax.Array, cross: bool = False):
        rules, width = execution.rules, config.d_model
        self.config, self.execution, self.layers = config, execution, layers
        if config.positions == "rope":
            turned(config)  # refuses what does not make pairs
        learned, relative = config.positions == "learned", config.positions == "relative"
        rows, heads = {"positions": config.max_length}, config.attention.num_heads
        self.position = Embedding(rows, width, std, key=key_for(key, "position"), rules=rules) if learned else None
        buckets = {"buckets": config.relative_buckets}
        self.relative = Embedding(buckets, heads, 0.1, key=key_for(key, "relative"), rules=rules, axis="heads") if relative else None
        self.embedding_norm = make_norm(config.norm, width, config.norm_epsilon, key=key, rules=rules) if config.embedding_norm else None
        keys = jax.random.split(key_for(key, "block_00"), layers)
        self.block_00 = jax.vmap(lambda key: Block(config, execution, key=key, cross=cross))(keys)
        self.norm = make_norm(config.norm, width, config.norm_epsilon, key=key, rules=rules) if config.final_norm else None

    def __call__(
        self, x_BTD: jax.Array, positions_BT: jax.Array, context: Context, stored: Stored = Stored()
    ) -> tuple[jax.Array, Stored, Aux]:
        """(states after the final norm, stored keys and values, statistics with a leading layer axis), from token embeddings.

        The cache is carried, so it is updated in place.
        """
        x_BTD = self._place(x_BTD, positions_BT)
        if self.config.positions == "rope":
            context = context._replace(rope=rope(positions_BT, self.config, x_BTD.dtype))
        if self.relative is not None:
            relative = self._relative(self.relative, context.mask, x_BTD.dtype)
            context = with_bias(context, relative, x_BTD.dtype, self.execution, self.config.attention.head_dim)
        x_BTD = constrain(x_BTD, "act_batch", "act_stream", "act_embed", rules=self.execution.rules)

        def layer(carry, block_and_index):
            x_BTD, stored = carry
            block, index = block_and_index
            x_BTD, stored, aux = block(x_BTD, context, stored, index)
            return (x_BTD, stored), aux

        body = _remat(layer, self.execution)
        (x_BTD, stored), aux = jax.lax.scan(body, (x_BTD, stored), (self.block_00, jnp.arange(self.layers)), unroll=self.execution.unroll)
        return (x_BTD if self.norm is None else self.norm(x_BTD)), stored, aux

    def _place(self, x_BTD: jax.Array, positions_BT: jax.Array) -> jax.Array:
        """Token embeddings with absolute positions, normalised if the model does so."""
        if self.position is not None:
            x_BTD = x_BTD + self.position(positions_BT, x_BTD.dtype)
        if self.config.positions == "sinusoidal":
            x_BTD = x_BTD + sinusoidal(positions_BT, self.config.d_model, x_BTD.dtype)
        return x_BTD if self.embedding_norm is None else self.embedding_norm(x_BTD)

    def _relative(self, table: Embedding, mask: Mask, dtype: Any) -> Relative:
        """T5's bias. Distances are those of places where these are known: the same for all rows, and in a segment those of positions."""
        config, table_RN = self.config, read(table.embedding, at_least_float32(dtype), self.execution.rules)
        return Relative(table_RN, config.relative_buckets, config.relative_max_distance, both_ways=mask.kind == "full")


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
