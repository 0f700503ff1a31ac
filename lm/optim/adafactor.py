"""Adafactor as T5 uses it (Shazeer & Stern 2018, algorithms 4 to 6; no momentum): per layer of a stacked weight, on kernels as matrices."""

import math
from typing import Any, NamedTuple, Optional

import jax
import jax.numpy as jnp
import optax

from lm.optim.adamw import clip_by_global_norm, decay_and_descend, groups
from lm.optim.config import Adafactor, OptimConfig
from lm.sharding import STACK_AXES
from lm.types import Params

Dims = tuple[int, ...]


class Moments(NamedTuple):
    """Running means of a weight's squared gradients: of a factored matrix over its columns and over its rows, else of each number."""

    row: Optional[Any] = None  # the weight's shape without the columns' dimensions
    column: Optional[Any] = None  # the weight's shape without the rows' dimensions
    whole: Optional[Any] = None


class AdafactorState(NamedTuple):
    """`moments` is the tree of the weights with Moments as leaves."""

    moments: Params


def adafactor(config: OptimConfig, params: Params, axes: Params) -> optax.GradientTransformationExtraArgs:
    """Clip, Adafactor's moments and scales, decoupled decay on matrices, minus the scheduled rate.

    As in lm.optim.adamw, `params` may be abstract, and rate, decay, warm-up and horizon are read from `hyper`.
    """
    assert isinstance(config.optimizer, Adafactor)
    decayed = jax.tree.map(lambda group: group == "matrix", groups(params, axes))
    parts = [] if config.clip_norm is None else [clip_by_global_norm(config.clip_norm)]
    return optax.chain(*parts, scale_by_adafactor(config.optimizer, axes), decay_and_descend(config.schedule, decayed))


def factored_dims(shape: tuple[int, ...], names: tuple, smallest: int) -> Optional[tuple[Dims, Dims]]:
    """The dimensions of a weight that are its rows and those that are its columns; None for what is no matrix, or has too small a side.

    `head_dim` belongs to the heads before it: [embed, heads, head_dim] is a matrix of embed x (heads head_dim), as T5 stores it, and a
    bias [heads, head_dim] a vector.
    """
    sides: list[Dims] = []
    for dim, name in enumerate(names):
        if name == "head_dim" and sides:
            sides[-1] += (dim,)
        elif name not in STACK_AXES:
            sides.append((dim,))
    sizes = [math.prod(shape[dim] for dim in side) for side in sides]
    return (sides[0], sides[1]) if len(sides) == 2 and min(sizes) >= smallest else None


def scale_by_adafactor(config: Adafactor, axes: Params) -> optax.GradientTransformationExtraArgs:
    """g -> the update before the learning rate: g over its root mean square, limited, times the weight's scale.

    Means decay by 1 - t^-decay_exponent at update t = 1, 2, ..., and the extra argument `step` is t - 1. Limit and scale are, like the
    means, per layer of a stacked weight.
    """

    def first(w: Any, names: tuple) -> Moments:
        dims = factored_dims(w.shape, names, config.smallest_factored)
        if dims is None:
            return Moments(whole=jnp.zeros(w.shape, w.dtype))
        rows, columns = dims
        return Moments(row=jnp.zeros(_without(w.shape, columns), w.dtype), column=jnp.zeros(_without(w.shape, rows), w.dtype))

    def init(params: Params) -> AdafactorState:
        return AdafactorState(jax.tree.map(first, params, axes))

    def update(updates, state, params=None, *, step, **unused):
        del unused
        decay = 1.0 - (step + 1.0) ** -config.decay_exponent
        tree: Any = jax.tree.structure(updates)
        each = zip(jax.tree.leaves(updates), *(tree.flatten_up_to(other) for other in (params, state.moments, axes)), strict=True)
        found = [_update(config, decay, *of_one) for of_one in each]
        return tree.unflatten([u for u, _ in found]), AdafactorState(tree.unflatten([moments for _, moments in found]))

    return optax.GradientTransformationExtraArgs(init, update)


def _update(config: Adafactor, decay: Any, g: jax.Array, w: jax.Array, old: Any, names: tuple) -> tuple[jax.Array, Moments]:
    squared = jnp.square(g) + config.epsilon
    dims = factored_dims(w.shape, names, config.smallest_factored)
    if dims is None:
        whole = decay * old.whole + (1.0 - decay) * squared
        new, u = Moments(whole=whole), g * jax.lax.rsqrt(whole)
    else:
        rows, columns = dims
        row = decay * old.row + (1.0 - decay) * jnp.mean(squared, axis=columns)
        column = decay * old.column + (1.0 - decay) * jnp.mean(squared, axis=rows)
        new = Moments(row=row, column=column)
        of_row = jnp.expand_dims(row, columns)
        u = g * jax.lax.rsqrt(of_row / jnp.mean(of_row, axis=rows, keepdims=True)) * jax.lax.rsqrt(jnp.expand_dims(column, rows))
    own = tuple(dim for dim, name in enumerate(names) if name not in STACK_AXES)
    if config.clipping is not None:
        u = u / jnp.maximum(1.0, _rms(u, own) / config.clipping)
    if config.scale_by_weight:
        u = u * jnp.maximum(_rms(w, own), config.smallest_scale)
    return u, new


def state_shardings(config: Adafactor, params: Params, axes: Params, where: Params) -> AdafactorState:
    """Moments lie as their weights do, without the dimensions that they are means over; `where` are the weights' NamedShardings."""

    def place(w: Any, names: tuple, sharding: Any) -> Moments:
        dims = factored_dims(w.shape, names, config.smallest_factored)
        if dims is None:
            return Moments(whole=sharding)
        spec = tuple(sharding.spec) + (None,) * (len(names) - len(sharding.spec))
        row, column = (sharding.update(spec=jax.P(*_without(spec, gone))) for gone in reversed(dims))
        return Moments(row=row, column=column)

    return AdafactorState(jax.tree.map(place, params, axes, where))


def _without(values: tuple, gone: Dims) -> tuple:
    return tuple(value for dim, value in enumerate(values) if dim not in gone)


def _rms(x: jax.Array, own: Dims) -> jax.Array:
    return jnp.sqrt(jnp.mean(jnp.square(x), axis=own, keepdims=True))
