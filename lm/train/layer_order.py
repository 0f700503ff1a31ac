"""Moves the state between its form in training and its form in checkpoints: [layers, ...] in order, whatever pipeline trains them.

A pipeline's weights and moments are [repeats, stages, layers of a group, ...] with the stages on different devices
(lm.model.pipeline). So a run may stop on one mesh and go on on another, and what reads checkpoints knows no pipelines.
"""

import dataclasses
import math
from typing import Any

import jax
from jax.sharding import NamedSharding

from lm.sharding import STACK_AXES
from lm.types import Params, TrainState


@dataclasses.dataclass(frozen=True, eq=False)
class LayerOrder:
    """The two forms of a state, abstract with shardings. Without a pipeline they are the same, and nothing is moved."""

    state: TrainState
    stored: TrainState

    def write(self, state: TrainState) -> TrainState:
        """Returns the state in the order of its layers, which needs room for a second one."""
        return _moved(state, self.stored, donate=False)

    def read(self, stored: Any, like: Any = None) -> Any:
        """Returns the state, or the part of it that is `like` an abstract part, from the order of layers. The argument is donated."""
        return _moved(stored, self.state if like is None else like, donate=True)


def layer_order(state: TrainState, axes: Params) -> LayerOrder:
    """Returns the two forms of an abstract state with shardings, whose weights have these logical axes."""
    names = {
        jax.tree_util.keystr(path, simple=True, separator="/"): names for path, names in jax.tree.leaves_with_path(axes, is_leaf=_is_names)
    }
    staged = [f"/{name}/" for name, of in names.items() if of[: len(STACK_AXES)] == STACK_AXES]

    def stored(path: Any, leaf: Any) -> Any:
        name = f"/{jax.tree_util.keystr(path, simple=True, separator='/')}/"
        return _in_order(leaf) if any(weight in name for weight in staged) else leaf  # a weight's moments have its path in theirs

    return LayerOrder(state, jax.tree.map_with_path(stored, state))


def _in_order(leaf: Any) -> Any:
    """Turns an abstract [R, S, k, ...] into [R S k, ...]. Each device holds the layers of its stage, though not always the same ones."""
    several = len(STACK_AXES)
    shape = (math.prod(leaf.shape[:several]), *leaf.shape[several:])
    spec = (*leaf.sharding.spec, *(None,) * leaf.ndim)[: leaf.ndim]
    sharding = NamedSharding(leaf.sharding.mesh, jax.P(spec[1], *spec[several:]))
    return jax.ShapeDtypeStruct(shape, leaf.dtype, sharding=sharding)


def _moved(tree: Any, to: Any, *, donate: bool) -> Any:
    """Returns the arrays in the shapes and shardings of `to`; those that have them already are passed on."""
    leaves, wanted = jax.tree.leaves(tree), jax.tree.leaves(to)
    moving = [i for i, (x, like) in enumerate(zip(leaves, wanted, strict=True)) if x.shape != like.shape]
    if not moving:
        return tree
    shapes = [wanted[i].shape for i in moving]

    def reshaped(arrays: list) -> list:
        return [x.reshape(shape) for x, shape in zip(arrays, shapes, strict=True)]

    # In the devices' own memory, where they can be reshaped, whichever memory they come from or go to.
    own = [NamedSharding(wanted[i].sharding.mesh, wanted[i].sharding.spec) for i in moving]
    arrays = [jax.device_put(x, NamedSharding(x.sharding.mesh, x.sharding.spec)) for x in (leaves[i] for i in moving)]
    moved = jax.jit(reshaped, out_shardings=own, donate_argnums=0 if donate else ())(arrays)
    for i, x in zip(moving, moved, strict=True):
        leaves[i] = jax.device_put(x, wanted[i].sharding)
    return jax.tree.unflatten(jax.tree.structure(tree), leaves)


def _is_names(leaf: Any) -> bool:
    return isinstance(leaf, tuple)
