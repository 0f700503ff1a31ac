"""Variable projection: the parameters in which a law is linear are solved for, and the search runs over the others alone.

Golub and Pereyra 1973. The inner problem has the objective of the outer one: non-negative least squares only supplies its start, and the
solver then minimises the objective itself with the exponents held. From the best few points of the grid everything is set free, so that
the result is a minimum of the same function as the multi-start fit's, reached another way.
"""

from typing import NamedTuple, Optional

import numpy as np
from scipy.optimize import nnls

from lm.scaling.fits import solver
from lm.scaling.fits.objectives import Objective
from lm.scaling.laws.law import Law
from lm.scaling.laws.points import Points

_KEPT = 24  # points of the grid that are set free


class Projected(NamedTuple):
    """The best end: coordinates [k], the objective there, and how many points of the grid it was the best of."""

    theta: np.ndarray
    value: float
    grid: int


def project(law: Law, points: Points, objective: Objective) -> Optional[Projected]:
    """The minimum by variable projection over the exponents of the law's own starts; None for a law without linear parameters."""
    names = list(getattr(law, "linear", ()))
    if not names:
        return None
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


def _solved(law: Law, natural: np.ndarray, linear: np.ndarray, points: Points) -> np.ndarray:
    """The row with its linear parameters by non-negative least squares of relative errors; those at zero stand a little above it."""
    unit = np.tile(natural, (len(linear), 1))
    unit[:, linear] = np.where(np.eye(len(linear)) > 0, 1.0, 0.0)
    basis = solver.loss(law, unit, np.exp(points.log_x)).T
    loss = np.exp(points.log_loss)[:, None]
    scale = np.abs(basis / loss).max(axis=0)
    found = nnls(basis / loss / scale, np.ones(len(loss)))[0]
    made = natural.copy()
    made[linear] = np.maximum(found, 1e-3) / scale
    return made
