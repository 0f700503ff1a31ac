"""Adafactor as T5 uses it, without momentum (Shazeer & Stern 2018, algorithms 4 to 6).

The arithmetic is optax's. What is here applies it to each layer of a stacked weight, and to kernels of several axes as matrices.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, Optional

import jax
import jax.numpy as jnp
import optax

from lm.optim.config import Adafactor
from lm.sharding import STACK_AXES
from lm.types import Params

Dims = tuple[int, ...]


class Moments(NamedTuple):
    """Running means of a weight's squared gradients: of a factored matrix over its columns and over its rows, else of each number."""

    row: Optional[Any] = None  # the weight's shape without the columns' dimensions
    column: Optional[Any] = None  # the weight's shape without the rows' dimensions
    whole: Optional[Any] = None


class AdafactorState(NamedTuple):
    """The state of Adafactor: the tree of the weights with Moments as leaves."""

    moments: Params


def factored_dims(shape: tuple[int, ...], names: tuple, smallest: int) -> Optional[tuple[Dims, Dims]]:
    """Returns the dimensions of a weight that are its rows and those that are its columns.

    None stands for what is no matrix, or has a side of fewer than `smallest` numbers. `head_dim` belongs to the heads before it:
    [embed, heads, head_dim] is a matrix of embed x (heads head_dim), as T5 stores it, and a bias [heads, head_dim] a vector.
    """
    sides: list[Dims] = []
    for dim, name in enumerate(names):
        if name == "head_dim" and sides:
            sides[-1] += (dim,)
        elif name not in STACK_AXES:
            sides.append((dim,))
    sizes = [_size(shape, side) for side in sides]
    return (sides[0], sides[1]) if len(sides) == 2 and min(sizes) >= smallest else None


def scale_by_adafactor(config: Adafactor, axes: Params) -> optax.GradientTransformationExtraArgs:
    """Divides gradients by their root mean square, limits the result, and multiplies it by the weight's scale.

    Means, limit and scale are per layer of a stacked weight. The update takes the extra argument `step`, the number of updates before:
    means decay by 1 - (step + 1)^-decay_exponent.
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
        tree: Any = jax.tree.structure(updates)
        weights = zip(jax.tree.leaves(updates), *(tree.flatten_up_to(other) for other in (params, state.moments, axes)), strict=True)
        found = [_per_layer(config, step, names)(g, w, moments) for g, w, moments, names in weights]
        return tree.unflatten([u for u, _ in found]), AdafactorState(tree.unflatten([moments for _, moments in found]))

    return optax.GradientTransformationExtraArgs(init, update)


def _per_layer(config: Adafactor, step: jax.Array, names: tuple) -> Callable[[Any, Any, Moments], tuple[jax.Array, Moments]]:
    """Returns (gradient, weight, moments) -> (update, moments) for a weight with these logical axes: optax's transforms of each layer."""
    parts = [
        optax.scale_by_factored_rms(
            min_dim_size_to_factor=config.smallest_factored, decay_rate=config.decay_exponent, epsilon=config.epsilon
        )
    ]
    parts += [] if config.clipping is None else [optax.clip_by_block_rms(config.clipping)]
    parts += [optax.scale_by_param_block_rms(config.smallest_scale)] if config.scale_by_weight else []
    adafactor = optax.chain(*parts)
    own = tuple(name for name in names if name not in STACK_AXES)

    def update(g: jax.Array, w: jax.Array, old: Moments) -> tuple[jax.Array, Moments]:
        dims = factored_dims(w.shape, own, config.smallest_factored)
        shape = (w.size,) if dims is None else tuple(_size(w.shape, side) for side in dims)
        fields = _fields(shape)
        factored, *others = adafactor.init(w.reshape(shape))
        factored = factored._replace(count=step, **{field: getattr(old, name).ravel() for name, field in fields.items()})
        u, (factored, *_) = adafactor.update(g.reshape(shape), (factored, *others), w.reshape(shape))
        new = {name: getattr(factored, field).reshape(getattr(old, name).shape) for name, field in fields.items()}
        return u.reshape(w.shape), Moments(**new)

    for _ in names[: len(names) - len(own)]:
        update = jax.vmap(update)
    return update


def _fields(shape: tuple[int, ...]) -> dict[str, str]:
    """Maps fields of Moments to those of optax's state, for a vector or a matrix: optax's `v_row` is the mean over the longer side."""
    if len(shape) == 1:
        return {"whole": "v"}
    shorter, longer = ("row", "column") if shape[0] <= shape[1] else ("column", "row")
    return {shorter: "v_row", longer: "v_col"}


def state_shardings(config: Adafactor, params: Params, axes: Params, where: Params) -> AdafactorState:
    """Returns the shardings of the state: moments lie as their weights do, without the dimensions that they are means over.

    `where` are the weights' NamedShardings.
    """

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


def _size(shape: tuple[int, ...], dims: Dims) -> int:
    return math.prod(shape[dim] for dim in dims)
