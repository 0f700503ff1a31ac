"""AdamW's scaling (Kingma & Ba 2015, algorithm 1) that can leave a step out.

The formulas, their order and the state are those of optax.scale_by_adam. They are written out for one reason: the update has to be computed
from the moments after the choice whether the step counts. From optax's moments before it, XLA computes them twice and copies the old ones.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax


def scale_by_adam(b1: float, b2: float, eps: float) -> optax.GradientTransformationExtraArgs:
    """Returns the transformation. Where the extra argument `is_sound` is false its state stays, and its updates mean nothing."""
    init = optax.scale_by_adam(b1=b1, b2=b2, eps=eps).init

    def update(updates: Any, state: Any, params: Any = None, *, is_sound: Any = True, **unused: Any) -> tuple[Any, Any]:
        del params, unused
        mu = held(is_sound, optax.tree.update_moment(updates, state.mu, b1, 1), state.mu)
        nu = held(is_sound, optax.tree.update_moment_per_elem_norm(updates, state.nu, b2, 2), state.nu)
        count = held(is_sound, optax.safe_increment(state.count), state.count)
        mu_hat, nu_hat = optax.tree.bias_correction(mu, b1, count), optax.tree.bias_correction(nu, b2, count)
        updates = jax.tree.map(lambda m, v: m / (jnp.sqrt(v) + eps), mu_hat, nu_hat)
        return updates, optax.ScaleByAdamState(count=count, mu=mu, nu=nu)

    return optax.GradientTransformationExtraArgs(init, update)


def holding(inner: optax.GradientTransformationExtraArgs) -> optax.GradientTransformationExtraArgs:
    """Returns a transformation whose state stays where the extra argument `is_sound` is false."""

    def update(updates: Any, state: Any, params: Any = None, *, is_sound: Any = True, **extra: Any) -> tuple[Any, Any]:
        updates, after = inner.update(updates, state, params, **extra)
        return updates, held(is_sound, after, state)

    return optax.GradientTransformationExtraArgs(inner.init, update)


def held(is_sound: Any, after: Any, before: Any) -> Any:
    """Returns `after` where a step is sound, and `before` otherwise."""
    return after if is_sound is True else jax.tree.map(lambda new, old: jnp.where(is_sound, new, old), after, before)
