"""The solver: one compiled program that fits a law from many starts and to many resamples at once.

A lane is one problem: a start, observations and weights. Lanes run in blocks of `LANES` through one executable, so 4,500 starts, 1,000
resamples and a profile compile once per law, objective and (padded) number of points. More points than `LARGE` are summed a chunk at a
time, so that what is in work stays in a core's cache.

There are two phases, both damped by Levenberg and Marquardt's rule, so the objective never rises:

1. Gauss-Newton on the majoriser of iteratively reweighted least squares: robust from anywhere, linear at the end.
2. Newton with the exact Hessian (JAX: forward over reverse): quadratic at the end, also where the curvature of the law matters.

A lane stops when a step damped by less than 1 changes its objective by less than `tolerance` of it and promises no more, or when no step
lowers it. It has converged if its scaled gradient is small there (`_scaled_gradient`), however it stopped. Gradients are JAX's. Everything
is float64, switched on locally.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, Optional

import jax
import jax.numpy as jnp
import numpy as np

from lm.scaling.fits.objectives import Objective
from lm.scaling.laws.law import Law

LANES = 16  # a block ends with its slowest lane, and few problems fill few blocks: from 8 to 64, 16 takes the least time
LARGE = 2048  # points above which a table is large; also the points of a chunk
NOTHING = 1e-26  # objective of residuals of 1e-13, which are rounding alone
PADDING = 32  # points are padded to a multiple of this: the first point is repeated with weight 0
SMALL = 1e-5  # scaled gradient at which a lane has converged: a Newton step would lower its objective by 5e-11 of it
ROUGH = (40, 1e-7)  # iterations and tolerance of phase 1
EXACT = (100, 1e-13)  # of phase 2
# A fit is many thousand steps of one program: it is optimised whatever XLA_FLAGS say. Level 3 takes longer to compile and no less to run.
_OPTIONS = {"xla_backend_optimization_level": 2}


class Minima(NamedTuple):
    """The ends of M lanes: coordinates [M, k]; objective, scaled gradient, iterations, and whether it converged, [M] each."""

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
    rough: bool = True,
    exact: bool = True,
) -> Minima:
    """Minimises sum_i w_i cost(r_i) from each start.

    Args:
      x: rows of the law's design [n, p], shared by all lanes.
      log_loss: [n], or [M, n] with a row per lane.
      weights: [n] or [M, n].
      starts: [M, k].
      free: [k] booleans; False fixes a coordinate at its start (default: all free).
      rough, exact: whether to run phase 1, and phase 2.
    """
    lanes, k = starts.shape
    n = x.shape[0]
    mask = np.ones(k) if free is None else np.asarray(free, float)
    x = padded(x)
    y, w = (np.broadcast_to(v, (lanes, n)) for v in (log_loss, weights))
    y, w = np.pad(y, ((0, 0), (0, len(x) - n)), mode="edge"), np.pad(w, ((0, 0), (0, len(x) - n)))
    data = (y, w, x, mask)
    if not rough:
        return _run(_compiled(law, objective, True), starts, *data)
    ends = _run(_compiled(law, objective, False), starts, *data)
    if exact:
        found = _run(_compiled(law, objective, True), ends.theta, *data)
        ends = found._replace(iterations=ends.iterations + found.iterations)
    return ends


def _run(program: Callable[..., Any], starts: np.ndarray, y: np.ndarray, w: np.ndarray, x: np.ndarray, free: np.ndarray) -> Minima:
    """Runs all lanes through the program of one phase, a block at a time."""
    lanes = len(starts)
    width = 1 if lanes == 1 and len(x) > LARGE else LANES  # one more executable, a sixteenth of the work
    blocks = []
    with jax.enable_x64(True):
        for first in range(0, lanes, width):
            rows = np.minimum(np.arange(first, first + width), lanes - 1)
            blocks.append(program(*(jnp.asarray(v, jnp.float64) for v in (starts[rows], y[rows], w[rows], x, free))))
        return Minima(*(np.concatenate([np.asarray(part) for part in parts])[:lanes] for parts in zip(*blocks, strict=True)))


def predict(law: Law, theta: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Returns the log loss of coordinates [M, k] at rows of the design [n, p]: [M, n]."""
    with jax.enable_x64(True):
        return np.asarray(_predictor(law)(jnp.asarray(theta, jnp.float64), jnp.asarray(padded(x), jnp.float64)))[:, : len(x)]


def predict_each(law: Law, theta: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Returns the log loss of coordinates [M, k], each at a design of its own [M, n, q]: [M, n]."""
    with jax.enable_x64(True):
        return np.asarray(_predictor_each(law)(jnp.asarray(theta, jnp.float64), jnp.asarray(x, jnp.float64)))


def jacobian(law: Law, theta: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Returns d log loss / d coordinates at one point [k]: [n, k]."""
    with jax.enable_x64(True):
        return np.asarray(_slope(law)(jnp.asarray(theta, jnp.float64), jnp.asarray(padded(x), jnp.float64)))[: len(x)]


def padded(x: np.ndarray) -> np.ndarray:
    """Returns the design with its first row repeated up to a multiple of PADDING, so that tables of similar length share an executable, or
    where it is large up to a multiple of a chunk.

    A repeated row has a finite loss wherever the points have. A row of zeros may not: 0 weight times a NaN would spoil every sum.
    """
    return np.concatenate([x, np.repeat(x[:1], -len(x) % (PADDING if len(x) <= LARGE else LARGE), axis=0)])


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
    """Returns the program of one phase for one block of lanes."""
    model, limits = (_newton, EXACT) if exact else (_majorised, ROUGH)

    def lane(theta: Any, y: Any, w: Any, x: Any, free: Any) -> tuple[Any, ...]:
        on_points = functools.partial(model, law, objective)
        summed = on_points if len(x) <= LARGE else in_chunks(on_points)
        end = _descend(functools.partial(summed, y, w, x, free), theta, *limits)
        scaled = _scaled_gradient(end)
        return end.theta, end.value, scaled, end.iteration, end.done & (scaled <= SMALL)

    return jax.jit(jax.vmap(lane, in_axes=(0, 0, 0, None, None)), compiler_options=_OPTIONS)


def in_chunks(model: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a model whose sums over points (y, w, x, ...) are taken a chunk of LARGE points at a time."""

    def summed(y: Any, w: Any, x: Any, *rest: Any) -> Any:
        def add(total: Any, part: Any) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, total, model(*part, *rest)), None

        parts = (y.reshape(-1, LARGE), w.reshape(-1, LARGE), x.reshape(-1, LARGE, x.shape[1]))
        zero = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(model, *(part[0] for part in parts), *rest))
        return jax.lax.scan(add, zero, parts)[0]

    return summed


def _majorised(law: Law, objective: Objective, y: Any, w: Any, x: Any, free: Any, theta: Any) -> tuple[Any, Any, Any]:
    """Returns objective, gradient and Gauss-Newton matrix of the quadratic that touches the objective from above."""

    def residual(at: Any) -> tuple[Any, Any]:
        r = objective.residual(law.log_loss(at, x), y)
        return r, r

    slope, r = jax.jacfwd(residual, has_aux=True)(theta)
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


def _scaled_gradient(lane: _Lane) -> Any:
    """Returns sqrt(g H^-1 g / value): a Newton step would lower the objective by half of its square, as a share of the objective.

    It has no units and is the same in every scale of the coordinates. Residuals that are rounding alone have a scaled gradient of 0. It is
    NaN, and nothing has converged, where the Hessian H is not positive or the objective is not finite.
    """
    factor = jnp.linalg.cholesky(lane.hessian + jnp.diag(_floored(lane.hessian) * 1e-12))
    decrement = jnp.dot(lane.gradient, jax.scipy.linalg.cho_solve((factor, True), lane.gradient))
    flat = (lane.value <= NOTHING) | jnp.all(lane.gradient == 0)
    return jnp.sqrt(jnp.where(flat, 0.0, decrement / lane.value))


def _floored(hessian: Any) -> Any:
    """Returns the diagonal by which a matrix is damped."""
    diagonal = jnp.abs(jnp.diag(hessian))
    return jnp.maximum(diagonal, 1e-12 * jnp.sum(diagonal) + 1e-300)


def _descend(model: Callable[[Any], tuple[Any, Any, Any]], theta: Any, iterations: int, tolerance: float) -> _Lane:
    """Runs Levenberg-Marquardt: a step that lowers the objective is taken and the damping falls tenfold, else it rises tenfold.

    The first step, number 0, does not move: it evaluates the start. So the program holds the model once, and compiles in half the time.
    """

    def going(lane: _Lane) -> Any:
        return (lane.iteration <= iterations) & ~lane.done

    def step(lane: _Lane) -> _Lane:
        factor = jnp.linalg.cholesky(lane.hessian + jnp.diag(lane.damping * _floored(lane.hessian)))
        move = -jax.scipy.linalg.cho_solve((factor, True), lane.gradient)  # NaN where the matrix is not positive: refused below
        trial = lane.theta + move
        value, gradient, hessian = model(trial)
        finite = jnp.isfinite(value) & jnp.all(jnp.isfinite(gradient)) & jnp.all(jnp.isfinite(hessian))
        lower = finite & (value <= lane.value)
        size = tolerance * lane.value + NOTHING
        promised = -jnp.dot(move, lane.gradient)  # the Newton decrement; below rounding a step may rise and is not taken
        still = (promised >= 0) & (promised <= 2 * size) & (jnp.abs(lane.value - value) <= size) & (lane.damping < 1.0)
        still &= lane.iteration > 0
        damping = jnp.clip(jnp.where(lower, lane.damping * 0.1, lane.damping * 10.0), 1e-15, 1e15)
        taken = _Lane(lane.iteration + 1, trial, value, gradient, hessian, damping, still)
        stayed = lane._replace(iteration=lane.iteration + 1, damping=damping, done=still | (damping >= 1e12) | jnp.isinf(lane.value))
        return jax.tree.map(lambda new, old: jnp.where(lower, new, old), taken, stayed)

    k = theta.shape[0]
    start = _Lane(jnp.int32(0), theta, jnp.float64(jnp.inf), jnp.zeros(k), jnp.eye(k), jnp.float64(0.1), jnp.bool_(False))
    end = jax.lax.while_loop(going, step, start)
    return end._replace(iteration=end.iteration - 1)


def loss(law: Law, values: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Returns the loss at inputs [n, p] for a law's parameters [k] or [R, k], all in natural units: [n] or [R, n]."""
    origin = np.zeros(np.shape(x)[-1])
    with np.errstate(divide="ignore"):  # a coefficient of 0
        theta = law.coordinates(np.atleast_2d(np.asarray(values, float)), origin)
    predicted = np.exp(predict(law, theta, law.design(np.log(x), origin)))
    return predicted if np.ndim(values) == 2 else predicted[0]
