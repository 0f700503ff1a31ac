"""Stack: the blocks of one stream in one scan, with their positions and the final norm."""

import dataclasses
from typing import Any, Optional, Union

import jax
import jax.numpy as jnp
from flax import nnx

from lm.model import pipeline
from lm.model.attention import Context, with_bias
from lm.model.block import Aux, Block, Stored
from lm.model.config import ModelConfig
from lm.model.execution import Execution, Remat, remat
from lm.model.layers import Layers, apart
from lm.model.mask import Mask
from lm.model.norm import make_norm
from lm.model.parts.positions import rotated_layers
from lm.model.positions import rope, rope_of_layer, sinusoidal
from lm.model.relative import Relative
from lm.model.weights import Embedding, at_least_float32, key_for, read
from lm.sharding import constrain

ByLayer = tuple[Block, Optional[jax.Array]]  # what has a leading layer axis: blocks, and whether each turns queries and keys


class Stack(nnx.Module):
    """A stack of `layers` blocks. Their weights have a leading layer axis, and one scan runs them, unrolled or not.

    A stack of several kinds of block would be a scan over periods with members block_00, block_01, ...; there is one kind now.
    """

    def __init__(self, config: ModelConfig, execution: Execution, layers: int, std: float, *, key: jax.Array, cross: bool = False):
        rules, width = execution.rules, config.d_model
        self.config, self.execution, self.layers = config, execution, layers
        learned, relative = config.positions == "learned", config.positions == "relative"
        rows, heads = {"positions": config.max_length}, config.attention.num_heads
        self.position = Embedding(rows, width, std, key=key_for(key, "position"), rules=rules) if learned else None
        buckets = {"buckets": config.relative_buckets}
        self.relative = Embedding(buckets, heads, 0.1, key=key_for(key, "relative"), rules=rules, axis="heads") if relative else None
        self.embedding_norm = make_norm(config.norm, width, config.norm_epsilon, key=key, rules=rules) if config.embedding_norm else None
        blocks = self._make_blocks(jax.random.split(key_for(key, "block_00"), layers), cross)
        self.block_00: Union[Block, Layers] = apart(blocks, layers) if execution.listed else blocks
        self.norm = make_norm(config.norm, width, config.norm_epsilon, key=key, rules=rules) if config.final_norm else None

    def __call__(
        self, x_BTD: jax.Array, positions_BT: jax.Array, context: Context, stored: Stored = Stored()
    ) -> tuple[jax.Array, Stored, Aux]:
        """Returns (states after the final norm, stored keys and values, statistics with a leading layer axis) from token embeddings.

        The cache is carried, so it is updated in place.
        """
        x_BTD = self._place(x_BTD, positions_BT)
        if self.config.positions == "rope":
            context = context._replace(rope=rope(positions_BT, self.config, x_BTD.dtype))
        if self.relative is not None:
            relative = self._relative(self.relative, context.mask, x_BTD.dtype)
            context = with_bias(context, relative, x_BTD.dtype, self.execution, self.config.attention.head_dim)
        x_BTD = constrain(x_BTD, "act_batch", "act_stream", "act_embed", rules=self.execution.rules)

        if isinstance(self.block_00, Layers):
            x_BTD, stored, aux = self._run_listed(self.block_00, x_BTD, context, stored)
        elif self.execution.pipeline is None:
            x_BTD, stored, aux = self._run(self._by_layer(), x_BTD, context, stored, self.layers, self.execution.remat)
        else:
            x_BTD, aux = pipeline.run(self._run_group, self._by_layer(), x_BTD, context, self.execution)
        return (x_BTD if self.norm is None else self.norm(x_BTD)), stored, aux

    def _make_blocks(self, keys: jax.Array, cross: bool) -> Block:
        """Returns a block for each key, stacked; in a pipeline as [repeats, stages, layers of a group], in the same order."""
        execution, stages = self.execution, self.execution.pipeline
        if stages is not None:
            keys = keys.reshape(stages.shape(self.layers))
            execution = dataclasses.replace(execution, rules=execution.rules.inside(pipeline.AXIS))

        def make(key: jax.Array) -> Block:
            return Block(self.config, execution, key=key, cross=cross)

        for _ in keys.shape:
            make = jax.vmap(make)
        return make(keys)

    def _by_layer(self) -> ByLayer:
        assert isinstance(self.block_00, Block)
        turns, stages = rotated_layers(self.config, self.layers), self.execution.pipeline
        if turns is None:
            return self.block_00, None
        return self.block_00, jnp.asarray(turns).reshape((self.layers,) if stages is None else stages.shape(self.layers))

    def _run(
        self, by_layer: ByLayer, x_BTD: jax.Array, context: Context, stored: Stored, layers: int, how: Remat
    ) -> tuple[jax.Array, Stored, Aux]:
        def layer(carry, of_layer):
            x_BTD, stored = carry
            (block, turns), index = of_layer
            at_hand = context if turns is None or context.rope is None else context._replace(rope=rope_of_layer(context.rope, turns))
            x_BTD, stored, aux = block(x_BTD, at_hand, stored, index)
            return (x_BTD, stored), aux

        body, unroll = remat(layer, how, straight=self.execution.unroll), self.execution.unroll
        (x_BTD, stored), aux = jax.lax.scan(body, (x_BTD, stored), (by_layer, jnp.arange(layers)), unroll=unroll)
        return x_BTD, stored, aux

    def _run_listed(self, blocks: Layers, x_BTD: jax.Array, context: Context, stored: Stored) -> tuple[jax.Array, Stored, Aux]:
        """Runs layers that have weights of their own, for which there is no backward pass to save memory in."""
        turns, found = rotated_layers(self.config, self.layers), []
        for index in range(self.layers):
            flat = turns is not None and not turns[index]
            x_BTD, stored, aux = blocks[index](x_BTD, context._replace(rope=None) if flat else context, stored, index)
            found.append(aux)
        return x_BTD, stored, jax.tree.map(lambda *leaves: jnp.stack(leaves), *found)

    def _run_group(self, by_layer: ByLayer, x_BTD: jax.Array, context: Context) -> tuple[jax.Array, Aux]:
        """Runs the layers of one tick, which is itself recomputed: within it only `full` keeps nothing but each layer's input."""
        assert self.execution.pipeline is not None
        layers = self.execution.pipeline.shape(self.layers)[-1]
        how: Remat = "full" if self.execution.remat == "full" and layers > 1 else "none"
        x_BTD, _, aux = self._run(by_layer, x_BTD, context, Stored(), layers, how)
        return x_BTD, aux

    def _place(self, x_BTD: jax.Array, positions_BT: jax.Array) -> jax.Array:
        """Adds absolute positions to token embeddings, and normalises them if the model does so."""
        if self.position is not None:
            x_BTD = x_BTD + self.position(positions_BT, x_BTD.dtype)
        if self.config.positions == "sinusoidal":
            x_BTD = x_BTD + sinusoidal(positions_BT, self.config.d_model, x_BTD.dtype)
        return x_BTD if self.embedding_norm is None else self.embedding_norm(x_BTD)

    def _relative(self, table: Embedding, mask: Mask, dtype: Any) -> Relative:
        """Returns T5's bias with the weights of this stack."""
        config, table_RN = self.config, read(table.embedding, at_least_float32(dtype), self.execution.rules)
        return Relative(table_RN, config.relative_buckets, config.relative_max_distance, both_ways=mask.kind == "full")
