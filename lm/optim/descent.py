"""The last transform of every optimizer: decoupled weight decay on matrices, and descent at the scheduled rate."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from lm.optim.schedules import Schedule, rate_ratio
from lm.sharding import STACK_AXES
from lm.types import Hyper, Params

Group = Literal["matrix", "vector"]
VECTOR_NAMES = ("bias", "scale")  # vectors by meaning, whatever their rank: a bias may have the shape [heads, head_dim]


def groups(params: Params, axes: Params) -> Params:
    """Names each weight 'matrix' (decayed) or 'vector', from its path and axes; ValueError unless the axes cover exactly the weights."""
    named = dict(jax.tree_util.tree_leaves_with_path(axes, is_leaf=lambda x: isinstance(x, tuple)))
    leaves = jax.tree_util.tree_leaves_with_path(params)
    if set(named) != {path for path, _ in leaves}:
        odd = sorted(jax.tree_util.keystr(path) for path in set(named) ^ {path for path, _ in leaves})
        raise ValueError(f"weights and logical axes do not cover each other: {', '.join(odd)}")
    return jax.tree_util.tree_map_with_path(lambda path, leaf: _group(path, leaf, named[path]), params)


def _group(path: tuple, leaf: Any, axes: tuple) -> Group:
    name = jax.tree_util.keystr(path)
    if len(axes) != leaf.ndim:
        raise ValueError(f"weight {name} has {leaf.ndim} dimensions and {len(axes)} logical axes {axes}")
    last = str(getattr(path[-1], "key", path[-1]))
    is_vector = any(last == v or last.endswith("_" + v) for v in VECTOR_NAMES)
    return "vector" if is_vector or sum(axis not in STACK_AXES for axis in axes) < 2 else "matrix"


def learning_rate(schedule: Schedule, step: jax.Array, hyper: Hyper) -> jax.Array:
    """Returns the rate of update `step`, a float32 scalar on the device."""
    return hyper.learning_rate * rate_ratio(schedule, step, hyper.warmup_steps, hyper.total_steps, xp=jnp)


def decay_and_descend(schedule: Schedule, decayed: Params) -> optax.GradientTransformationExtraArgs:
    """Transforms u into -rate(step) (u + weight_decay w), with the decay on the weights marked True in `decayed`.

    The decay is decoupled (Loshchilov & Hutter 2019, algorithm 2) and, as in optax.adamw, multiplied by the scheduled rate. The update
    takes the extra arguments `step` (int32) and `hyper` (Hyper): optax's schedules do not take a traced horizon.
    """

    def update(updates, state, params=None, *, step, hyper: Hyper, **unused):
        del unused
        rate = learning_rate(schedule, step, hyper)
        decay = rate * hyper.weight_decay

        def leaf(u, w, is_decayed):
            return -rate * u - decay * w if is_decayed else -rate * u

        return jax.tree.map(leaf, updates, params, decayed), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)
