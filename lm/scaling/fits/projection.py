"""Variable projection (Golub and Pereyra 1973): a second way to the minimum of a fit.

The linear parameters of the law are solved for at each point of a grid of the others. Non-negative least squares gives the start, and the
solver minimises the objective itself with the exponents fixed. From the best points of the grid all parameters are set free. The result
is a minimum of the same objective as that of the fit from many starts.
"""

from typing import NamedTuple, Optional

import numpy as np

from lm.scaling.fits import large, solver
from lm.scaling.fits.objectives import Objective
from lm.scaling.laws.law import Law
from lm.scaling.laws.points import Points

_KEPT = 24  # points of the grid that are set free


class Projected(NamedTuple):
    """The best end: coordinates [k], the objective there, and the number of points of the grid."""

    theta: np.ndarray
    value: float
    grid: int


def project(law: Law, points: Points, objective: Objective) -> Optional[Projected]:
    """Minimises by variable projection over the exponents of the law's starts; None for a law without linear parameters."""
    names = list(getattr(law, "linear", ()))
    if not names:
        return None
    if len(points.log_loss) > solver.LARGE:
        return _of_part(law, points, objective)
    linear = np.array([law.names.index(name) for name in names])
    starts = law.starts(points.centre)
    outer = np.setdiff1d(np.arange(len(law.names)), linear)
    natural = law.natural(starts, points.centre)
    _, first = np.unique(natural[:, outer], axis=0, return_index=True)
    seeds = np.array([_solved(law, row, linear, points) for row in natural[np.sort(first)]])
    lanes = law.coordinates(seeds, points.centre)
    lanes = lanes[np.all(np.isfinite(lanes), axis=1)]
    free = np.isin(np.arange(len(law.names)), linear)
    x = points.design(law)
    inner = solver.minimise(law, objective, x, points.log_loss, points.weights, lanes, free=free, exact=False)
    order = np.argsort(np.where(np.isfinite(inner.value), inner.value, np.inf), kind="stable")[:_KEPT]
    ends = solver.minimise(law, objective, x, points.log_loss, points.weights, inner.theta[order])
    value = np.where(np.isfinite(ends.value), ends.value, np.inf)
    best = int(np.argmin(value))
    return Projected(ends.theta[best], float(value[best]), len(lanes))


def _of_part(law: Law, points: Points, objective: Objective) -> Optional[Projected]:
    """Projects a part of a large table, and minimises over all points from where this ends."""
    part = large.part(points)
    made = project(law, part, objective)
    if made is None:
        return None
    start = law.coordinates(law.natural(made.theta, part.centre), points.centre)[None]
    end = large.on_all(law, points, objective, start)
    value = float(end.value[0]) if np.isfinite(end.value[0]) else np.inf
    return Projected(end.theta[0], value, made.grid)


def _solved(law: Law, natural: np.ndarray, linear: np.ndarray, points: Points) -> np.ndarray:
    """Returns parameters [k] with the linear ones by non-negative least squares of relative errors, kept a little above zero."""
    from scipy.optimize import nnls  # takes a third of a second to import

    unit = np.tile(natural, (len(linear), 1))
    unit[:, linear] = np.where(np.eye(len(linear)) > 0, 1.0, 0.0)
    basis = solver.loss(law, unit, np.exp(points.log_x)).T
    loss = np.exp(points.log_loss)[:, None]
    scale = np.abs(basis / loss).max(axis=0)
    found = nnls(basis / loss / scale, np.ones(len(loss)))[0]
    made = natural.copy()
    made[linear] = np.maximum(found, 1e-3) / scale
    return made
