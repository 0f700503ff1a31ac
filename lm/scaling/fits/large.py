"""Fits to large tables, of more than `solver.LARGE` points: fewer starts see all points, and resamples are fitted by gradients alone.

Starts are screened on points spread evenly over the table. The places where they end are the starts of the fit to all points.

A resample starts at the optimum of the table. Its steps are Newton's with the Hessian that its weights give there, which each step
improves by the update of Broyden, Fletcher, Goldfarb and Shanno: a step needs one gradient, a fifth of the work of a Hessian. The Hessian
reads the slope of a cost over a width of residuals, so that it has one where the cost has a kink.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lm.scaling.fits import solver
from lm.scaling.fits.objectives import Objective
from lm.scaling.fits.picks import Picks, Weights
from lm.scaling.laws.law import Law
from lm.scaling.laws.points import Points

SCREEN = 512  # points on which starts are screened
POLISHED = 8  # places where they end that see all points
APART = 1e-3  # distance in coordinates at which two ends are different places
CLOSE = 1e-2  # a resample has converged when its next step is this share of the way from the optimum
_STEPS = 60
_WIDTH = 0.3  # residuals, in median absolute ones, over which the slope of a cost is read


def sample(points: Points) -> np.ndarray:
    """Returns the indices of SCREEN points, or all, spread evenly over the points in the order of their first input, then their second."""
    order = np.lexsort(points.log_x.T[::-1])
    return np.sort(order[np.unique(np.linspace(0, len(order) - 1, SCREEN).round().astype(int))])


def part(points: Points) -> Points:
    """Returns the points of `sample` alone."""
    seen = sample(points)
    return Points(points.log_x[seen], points.log_loss[seen], points.weights[seen])


def polish(law: Law, points: Points, objective: Objective, ends: solver.Minima) -> tuple[solver.Minima, np.ndarray]:
    """Minimises over all points from the places where lanes ended on some: the best `POLISHED` places.

    Returns the minima of those lanes that ended in one of them, and the indices of these lanes.
    """
    places: list[int] = []
    place_of = np.full(len(ends.value), -1)
    for i in np.argsort(np.where(np.isfinite(ends.value), ends.value, np.inf), kind="stable"):
        near = [j for j, other in enumerate(places) if np.linalg.norm(ends.theta[i] - ends.theta[other]) <= APART]
        if near:
            place_of[i] = near[0]
        elif len(places) < POLISHED and np.isfinite(ends.value[i]):
            place_of[i] = len(places)
            places.append(int(i))
    made = on_all(law, points, objective, ends.theta[np.array(places, int)])
    lanes = np.flatnonzero(place_of >= 0)
    return solver.Minima(*(column[place_of[lanes]] for column in made)), lanes


def on_all(law: Law, points: Points, objective: Objective, starts: np.ndarray) -> solver.Minima:
    """Minimises over all points from places near a minimum."""
    return solver.minimise(law, objective, points.design(law), points.log_loss, points.weights, starts, rough=False)


def refit(law: Law, points: Points, objective: Objective, theta: np.ndarray, log_loss: np.ndarray, weights: Weights) -> solver.Minima:
    """Fits the law to resampled losses [R, n] or [n] with weights [R, n] or [n], from the optimum theta [k]."""
    losses, design = np.atleast_2d(log_loss), points.design(law)
    x = solver.padded(design)
    curvature = _curvature(law, objective, theta, design, points.log_loss)
    count = max(len(losses), len(weights.counts if isinstance(weights, Picks) else np.atleast_2d(weights)))
    width = solver.LANES
    ends = []
    with jax.enable_x64(True):
        for block in _progress(count, width):
            y = np.broadcast_to(losses if len(losses) == 1 else losses[block], (block.stop - block.start, len(design)))
            w = weights.rows(block) if isinstance(weights, Picks) else np.broadcast_to(np.atleast_2d(weights), (count, len(design)))[block]
            data = (x, _filled(y, width, len(x), "edge"), _filled(w, width, len(x), "constant"))
            ends.append(_block(_gradient(law, objective), theta, *data, curvature))
    return solver.Minima(*(np.concatenate(parts)[:count] for parts in zip(*ends, strict=True)))


def _progress(count: int, width: int) -> Iterator[slice]:
    """Yields blocks of resamples, with a bar on stderr where tqdm is installed."""
    blocks = [slice(first, min(first + width, count)) for first in range(0, count, width)]
    try:
        from tqdm import tqdm
    except ImportError:
        yield from blocks
        return
    with tqdm(total=count, desc="resamples", unit="fit", leave=False) as bar:
        for block in blocks:
            yield block
            bar.update(block.stop - block.start)


def _filled(rows: np.ndarray, lanes: int, points: int, mode: Any) -> np.ndarray:
    """Returns rows [lanes, points]: the last lane repeated, and points filled with their last value ("edge") or with 0 ("constant")."""
    wide = np.pad(rows, ((0, 0), (0, points - rows.shape[1])), mode=mode)
    return np.pad(wide, ((0, lanes - len(rows)), (0, 0)), mode="edge")


def _block(
    gradient: Callable[..., Any], theta: np.ndarray, x: np.ndarray, y: np.ndarray, w: np.ndarray, curvature: np.ndarray
) -> solver.Minima:
    """Minimises lanes [L] by quasi-Newton steps with halving."""
    lanes, k = len(w), len(theta)
    data = tuple(jnp.asarray(v, jnp.float64) for v in (y, w, x))

    def at(places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        value, slope = gradient(jnp.asarray(places, jnp.float64), *data)
        return np.asarray(value), np.asarray(slope)

    inverse = _inverse((w[:, : len(curvature)] @ curvature).reshape(lanes, k, k))
    here = np.tile(theta, (lanes, 1))
    value, slope = at(here)
    first = decrement = _product(slope, inverse)
    length, iterations = np.ones(lanes), np.zeros(lanes, int)

    def converged() -> np.ndarray:
        return decrement <= np.maximum(CLOSE**2 * first, solver.SMALL**2 * value + solver.NOTHING)

    for _ in range(_STEPS):
        going = ~converged() & (length > 1e-6)
        if not np.any(going):
            break
        move = np.where(going, length, 0.0)[:, None] * -np.einsum("lij,lj->li", inverse, slope)
        trial_value, trial_slope = at(here + move)
        lower = going & np.isfinite(trial_value) & np.all(np.isfinite(trial_slope), axis=1)
        lower &= trial_value <= value + 1e-4 * np.sum(move * slope, axis=1) + 1e-14 * value
        inverse = np.where(lower[:, None, None], _updated(inverse, move, trial_slope - slope), inverse)
        here, slope = np.where(lower[:, None], here + move, here), np.where(lower[:, None], trial_slope, slope)
        value = np.where(lower, trial_value, value)
        length = np.where(lower, 1.0, 0.25 * length)
        iterations, decrement = iterations + going, _product(slope, inverse)
    scaled = np.sqrt(np.maximum(decrement, 0.0) / np.maximum(value, solver.NOTHING))
    return solver.Minima(here, value, scaled, iterations, converged())


def _product(slope: np.ndarray, inverse: np.ndarray) -> np.ndarray:
    return np.einsum("li,lij,lj->l", slope, inverse, slope)


def _inverse(hessian: np.ndarray) -> np.ndarray:
    """Returns the inverses of Hessians [L, k, k], with curvatures of the scaled matrix made positive."""
    scale = 1 / np.sqrt(np.maximum(np.abs(np.einsum("lii->li", hessian)), 1e-300))
    values, vectors = np.linalg.eigh(hessian * scale[:, :, None] * scale[:, None, :])
    turned = vectors / np.maximum(np.abs(values), 1e-12)[:, None, :]
    return np.einsum("lij,lkj->lik", turned, vectors) * scale[:, :, None] * scale[:, None, :]


def _updated(inverse: np.ndarray, move: np.ndarray, change: np.ndarray) -> np.ndarray:
    """Returns the inverse Hessians after a move [L, k] that changed the gradient; unchanged where the slope did not rise along it."""
    along = np.sum(move * change, axis=1)
    rising = along > 1e-10 * np.linalg.norm(move, axis=1) * np.linalg.norm(change, axis=1)
    rho = np.where(rising, 1 / np.where(rising, along, 1.0), 0.0)
    left = np.eye(move.shape[1]) - rho[:, None, None] * move[:, :, None] * change[:, None, :]
    made = left @ inverse @ left.transpose(0, 2, 1) + rho[:, None, None] * move[:, :, None] * move[:, None, :]
    return np.where(rising[:, None, None], made, inverse)


@functools.cache
def _gradient(law: Law, objective: Objective) -> Callable[..., Any]:
    """Returns the program of objective and gradient of a block of lanes."""

    def chunk(y: Any, w: Any, x: Any, theta: Any) -> tuple[Any, Any]:
        return jax.value_and_grad(lambda at: jnp.sum(w * objective.cost(objective.residual(law.log_loss(at, x), y))))(theta)

    def lane(theta: Any, y: Any, w: Any, x: Any) -> tuple[Any, Any]:
        return solver.in_chunks(chunk)(y, w, x, theta)

    return jax.jit(jax.vmap(lane, in_axes=(0, 0, 0, None)))


def _curvature(law: Law, objective: Objective, theta: np.ndarray, x: np.ndarray, log_loss: np.ndarray) -> np.ndarray:
    """Returns the second derivatives [n, k k] of the cost of each point at theta."""
    width = _WIDTH * float(np.median(np.abs(solver.predict(law, theta[None], x)[0] - log_loss))) + 1e-12
    program = _second(law, objective)
    padded = solver.padded(x)
    y = np.pad(log_loss, (0, len(padded) - len(x)), mode="edge")
    found = []
    with jax.enable_x64(True):
        for first in range(0, len(padded), solver.LARGE):
            rows = slice(first, first + solver.LARGE)
            found.append(np.asarray(program(*(jnp.asarray(v, jnp.float64) for v in (theta, padded[rows], y[rows], width)))))
    return np.concatenate(found)[: len(x)]


@functools.cache
def _second(law: Law, objective: Objective) -> Callable[..., Any]:
    def points(theta: Any, x: Any, y: Any, width: Any) -> Any:
        def slope(predicted: Any) -> Any:
            return jax.grad(lambda p: jnp.sum(objective.cost(objective.residual(p, y))))(predicted)

        predicted = law.log_loss(theta, x)
        first = jax.jacfwd(law.log_loss)(theta, x)
        second = jax.jacfwd(jax.jacfwd(law.log_loss))(theta, x)
        rise = (slope(predicted + width) - slope(predicted - width)) / (2 * width)
        made = rise[:, None, None] * first[:, :, None] * first[:, None, :] + slope(predicted)[:, None, None] * second
        return made.reshape(len(y), -1)

    return jax.jit(points)
