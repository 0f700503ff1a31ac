"""The layers of a stack as blocks of their own, whose weights no step of decoding has to copy out of arrays of all layers."""

from collections.abc import Sequence
from typing import Any

import jax
from flax import nnx

from lm.model.block import Block
from lm.types import Params

BLOCKS = "block_00"  # the part of a stack that holds its blocks


class Layers(nnx.Module):
    """The blocks of a stack, one member for each."""

    def __init__(self, blocks: Sequence[Block]):
        self.size = len(blocks)
        for index, block in enumerate(blocks):
            setattr(self, name(index), block)

    def __getitem__(self, index: int) -> Block:
        return getattr(self, name(index))


def name(index: int) -> str:
    """Returns the name of a layer among its stack's parameters."""
    return f"layer_{index:04d}"


def apart(blocks: Block, layers: int) -> Layers:
    """Returns the blocks of a stack whose weights have a leading layer axis, each with its own."""
    graphdef, state = nnx.split(blocks)
    return Layers([nnx.merge(graphdef, jax.tree.map(lambda x, i=i: x[i], state)) for i in range(layers)])


def listed(params: Params) -> Params:
    """Returns the parameters of a model for an execution that is `listed`: those of each stack's blocks by layer.

    The two forms lie in memory together until the caller drops the first.
    """
    return {part: _listed(value) if isinstance(value, dict) and BLOCKS in value else value for part, value in params.items()}


def _listed(stack: Params) -> Params:
    blocks = stack[BLOCKS]
    layers = jax.tree.leaves(blocks)[0].shape[0]
    of_layer: Any = jax.jit(lambda x, i: jax.lax.dynamic_index_in_dim(x, i, keepdims=False))
    return {**stack, BLOCKS: {name(i): jax.tree.map(lambda x, i=i: of_layer(x, i), blocks) for i in range(layers)}}
