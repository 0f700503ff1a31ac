"""The solver: one compiled program that fits a law from many starts and to many resamples at once.

A lane is one problem: a start, observations and weights. Lanes run in blocks of `LANES` through one executable, so 4,500 starts, 1,000
resamples and a profile compile once per law, objective and (padded) number of points.

There are two phases, both damped by Levenberg and Marquardt's rule, so the objective never rises:

1. Gauss-Newton on the majoriser of iteratively reweighted least squares: robust from anywhere, linear at the end.
2. Newton with the exact Hessian (JAX: forward over reverse): quadratic at the end, also where the curvature of the law matters.

A lane has converged when a step damped by less than 1 changes its objective by less than `tolerance` of it and promises no more. Gradients
are JAX's. Everything is float64, switched on locally.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, Optional

import jax
import jax.numpy as jnp
import numpy as np

from lm.scaling.fits.objectives import Objective
from lm.scaling.laws.law import Law

LANES = 64  # a block's Jacobian stays in a core's cache
NOTHING = 1e-26  # objective of residuals of 1e-13, which are rounding alone
PADDING = 32  # points are padded to a multiple of this with weight 0
ROUGH = (40, 1e-7)  # iterations and tolerance of phase 1
EXACT = (100, 1e-13)  # of phase 2
# A fit is many thousand steps of one program: it is optimised at the level of XLA's own default, whatever XLA_FLAGS say.
_OPTIONS = {"xla_backend_optimization_level": 3}


class Minima(NamedTuple):
    """The ends of M lanes: coordinates [M, k]; objective, largest entry of the gradient, iterations, and whether it converged, [M] each."""

    theta: np.ndarray
    value: np.ndarray
    gradient: np.ndarray
    iterations: np.ndarray
    converged: np.ndarray


class _Lane(NamedTuple):
    iteration: Any
    theta: Any
    value: Any
    gradient: Any
    hessian: Any
    damping: Any
    done: Any


def minimise(
    law: Law,
    objective: Objective,
    x: np.ndarray,
    log_loss: np.ndarray,
    weights: np.ndarray,
    starts: np.ndarray,
    *,
    free: Optional[np.ndarray] = None,
    exact: bool = True,
) -> Minima:
    """Minimises sum_i w_i cost(r_i) from each start.

    Args:
      x: rows of the law's design [n, p], shared by all lanes.
      log_loss: [n], or [M, n] with a row per lane.
      weights: [n] or [M, n].
      starts: [M, k].
      free: [k] booleans; False fixes a coordinate at its start (default: all free).
      exact: whether to run phase 2.
    """
    lanes, k = starts.shape
    n = x.shape[0]
    pad = -n % PADDING
    mask = np.ones(k) if free is None else np.asarray(free, float)
    x = np.concatenate([x, np.zeros((pad, x.shape[1]))])
    y, w = (np.concatenate([np.broadcast_to(v, (lanes, n)), np.zeros((lanes, pad))], axis=1) for v in (log_loss, weights))
    blocks = []
    with jax.enable_x64(True):
        run = _compiled(law, objective, exact)
        for first in range(0, lanes, LANES):
            rows = np.minimum(np.arange(first, first + LANES), lanes - 1)
            blocks.append(run(*(jnp.asarray(v, jnp.float64) for v in (starts[rows], y[rows], w[rows], x, mask))))
        return Minima(*(np.concatenate([np.asarray(part) for part in parts])[:lanes] for parts in zip(*blocks, strict=True)))


def predict(law: Law, theta: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Returns the log loss of coordinates [M, k] at rows of the design [n, p]: [M, n]."""
    with jax.enable_x64(True):
        return np.asarray(_predictor(law)(jnp.asarray(theta, jnp.float64), jnp.asarray(x, jnp.float64)))


def predict_each(law: Law, theta: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Returns the log loss of coordinates [M, k], each at a design of its own [M, n, q]: [M, n]."""
    with jax.enable_x64(True):
        return np.asarray(_predictor_each(law)(jnp.asarray(theta, jnp.float64), jnp.asarray(x, jnp.float64)))


def jacobian(law: Law, theta: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Returns d log loss / d coordinates at one point [k]: [n, k]."""
    padded = np.concatenate([x, np.zeros((-len(x) % PADDING, x.shape[1]))])  # tables of similar length share an executable
    with jax.enable_x64(True):
        return np.asarray(_slope(law)(jnp.asarray(theta, jnp.float64), jnp.asarray(padded, jnp.float64)))[: len(x)]


@functools.cache
def _predictor(law: Law) -> Callable[..., Any]:
    return jax.jit(jax.vmap(law.log_loss, in_axes=(0, None)))


@functools.cache
def _predictor_each(law: Law) -> Callable[..., Any]:
    return jax.jit(jax.vmap(law.log_loss))


@functools.cache
def _slope(law: Law) -> Callable[..., Any]:
    return jax.jit(jax.jacfwd(law.log_loss))


@functools.cache
def _compiled(law: Law, objective: Objective, exact: bool) -> Callable[..., Any]:
    """Returns the program of one block of lanes."""

    def lane(theta: Any, y: Any, w: Any, x: Any, free: Any) -> tuple[Any, ...]:
        end = _descend(functools.partial(_majorised, law, objective, y, w, x, free), theta, *ROUGH)
        steps = end.iteration
        if exact:
            end = _descend(functools.partial(_newton, law, objective, y, w, x, free), end.theta, *EXACT)
            steps = steps + end.iteration
        return end.theta, end.value, jnp.max(jnp.abs(end.gradient)), steps, end.done

    return jax.jit(jax.vmap(lane, in_axes=(0, 0, 0, None, None)), compiler_options=_OPTIONS)


def _majorised(law: Law, objective: Objective, y: Any, w: Any, x: Any, free: Any, theta: Any) -> tuple[Any, Any, Any]:
    """Returns objective, gradient and Gauss-Newton matrix of the quadratic that touches the objective from above."""

    def residual(at: Any) -> Any:
        return objective.residual(law.log_loss(at, x), y)

    r, slope = residual(theta), jax.jacfwd(residual)(theta)
    pull = w * objective.pull(r)
    hessian = (slope * pull[:, None]).T @ slope
    return jnp.sum(w * objective.cost(r)), free * (slope.T @ (pull * r)), _constrain(hessian, free)


def _newton(law: Law, objective: Objective, y: Any, w: Any, x: Any, free: Any, theta: Any) -> tuple[Any, Any, Any]:
    """Returns objective, gradient and exact Hessian."""

    def total(at: Any) -> Any:
        return jnp.sum(w * objective.cost(objective.residual(law.log_loss(at, x), y)))

    value, gradient = jax.value_and_grad(total)(theta)
    return value, free * gradient, _constrain(jax.hessian(total)(theta), free)


def _constrain(hessian: Any, free: Any) -> Any:
    return hessian * free[:, None] * free + jnp.diag(1.0 - free)


def _descend(model: Callable[[Any], tuple[Any, Any, Any]], theta: Any, iterations: int, tolerance: float) -> _Lane:
    """Runs Levenberg-Marquardt: a step that lowers the objective is taken and the damping falls tenfold, else it rises tenfold."""

    def going(lane: _Lane) -> Any:
        return (lane.iteration < iterations) & ~lane.done

    def step(lane: _Lane) -> _Lane:
        diagonal = jnp.abs(jnp.diag(lane.hessian))
        floor = 1e-12 * jnp.sum(diagonal) + 1e-300
        factor = jnp.linalg.cholesky(lane.hessian + jnp.diag(lane.damping * jnp.maximum(diagonal, floor)))
        move = -jax.scipy.linalg.cho_solve((factor, True), lane.gradient)  # NaN where the matrix is not positive: refused below
        trial = lane.theta + move
        value, gradient, hessian = model(trial)
        finite = jnp.isfinite(value) & jnp.all(jnp.isfinite(gradient)) & jnp.all(jnp.isfinite(hessian))
        lower = finite & (value <= lane.value)
        size = tolerance * lane.value + NOTHING
        promised = -jnp.dot(move, lane.gradient)  # the Newton decrement; below rounding a step may rise and is not taken
        still = (promised >= 0) & (promised <= 2 * size) & (jnp.abs(lane.value - value) <= size) & (lane.damping < 1.0)
        damping = jnp.clip(jnp.where(lower, lane.damping * 0.1, lane.damping * 10.0), 1e-15, 1e15)
        taken = _Lane(lane.iteration + 1, trial, value, gradient, hessian, damping, still)
        stayed = lane._replace(iteration=lane.iteration + 1, damping=damping, done=still | (damping >= 1e12))
        return jax.tree.map(lambda new, old: jnp.where(lower, new, old), taken, stayed)

    return jax.lax.while_loop(going, step, _Lane(jnp.int32(0), theta, *model(theta), jnp.float64(1e-2), jnp.bool_(False)))


def loss(law: Law, values: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Returns the loss at inputs [n, p] for a law's parameters [k] or [R, k], all in natural units: [n] or [R, n]."""
    origin = np.zeros(np.shape(x)[-1])
    with np.errstate(divide="ignore"):  # a coefficient of 0
        theta = law.coordinates(np.atleast_2d(np.asarray(values, float)), origin)
    predicted = np.exp(predict(law, theta, law.design(np.log(x), origin)))
    return predicted if np.ndim(values) == 2 else predicted[0]
