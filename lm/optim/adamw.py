"""AdamW as a chain of optax transforms whose peak rate, decay, warm-up and horizon are arguments of the compiled step."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from lm.optim.config import OptimConfig
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


def clip_by_global_norm(max_norm: float) -> optax.GradientTransformation:
    """Scales all gradients by min(1, max_norm / global norm) (Pascanu et al. 2013). A non-finite norm makes every gradient non-finite."""

    def update(updates, state, params=None):
        del params
        scale = max_norm / jnp.maximum(optax.tree.norm(updates), max_norm)
        return jax.tree.map(lambda g: g * scale, updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def decay_and_descend(schedule: Schedule, decayed: Params) -> optax.GradientTransformationExtraArgs:
    """u -> -rate(step) (u + weight_decay w) with the decay on the weights marked True in `decayed` (Loshchilov & Hutter 2019, algorithm 2).

    As in optax.adamw the decay is multiplied by the scheduled rate. Extra arguments: `step` (int32) and `hyper` (Hyper).
    """

    def update(updates, state, params=None, *, step, hyper: Hyper, **unused):
        del unused
        rate = learning_rate(schedule, step, hyper)
        decay = rate * hyper.weight_decay

        def leaf(u, w, is_decayed):
            return -rate * u - decay * w if is_decayed else -rate * u

        return jax.tree.map(leaf, updates, params, decayed), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def learning_rate(schedule: Schedule, step: jax.Array, hyper: Hyper) -> jax.Array:
    """The rate of update `step`, a float32 scalar on the device."""
    return hyper.learning_rate * rate_ratio(schedule, step, hyper.warmup_steps, hyper.total_steps, xp=jnp)


def adamw(config: OptimConfig, params: Params, axes: Params) -> optax.GradientTransformationExtraArgs:
    """Clip, Adam moments (Kingma & Ba 2015), decoupled decay on matrices, minus the scheduled rate.

    `params` may be abstract. Peak rate, decay, warm-up and horizon are read from `hyper` at each update, not from `config`.
    """
    decayed = jax.tree.map(lambda group: group == "matrix", groups(params, axes))
    parts = [] if config.clip_norm is None else [clip_by_global_norm(config.clip_norm)]
    adam = optax.scale_by_adam(b1=config.beta1, b2=config.beta2, eps=config.epsilon)
    return optax.chain(*parts, adam, decay_and_descend(config.schedule, decayed))
