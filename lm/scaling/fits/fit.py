"""The fit of a law to points from every start of its grid: the optimum with evidence that it is one, or a typed refusal.

All starts run through the rough phase of the solver, the best `KEPT` of them through the exact one. The optimum is accepted if the exact
phase converged, if starts that moved agree on it, and if the Jacobian there has full rank. A fit that never left its start is refused: 9 of
15 fits of a published analysis were of this kind (Besiroglu et al. 2024).
"""

import dataclasses
from typing import Optional, Union

import numpy as np

from lm.errors import counted
from lm.scaling.fits import large, solver
from lm.scaling.fits.objectives import Objective
from lm.scaling.fits.picks import Weights
from lm.scaling.laws.law import Law
from lm.scaling.laws.points import Points
from lm.scaling.results import Caution, Refusal

KEPT = 128  # starts that go through the exact phase
AGREE = 1e-9  # relative difference of objectives at which two starts count as agreeing
MOVED = 1e-3  # distance in coordinates that counts as having left the start
RANK = 1e-7  # smallest singular value of the column-scaled Jacobian, relative to the largest
_VARIANTS = (0.7, 1.3)  # the optimum's coordinates times these are further starts of a resample


@dataclasses.dataclass(frozen=True)
class Fit:
    """The optimum of a fit, with evidence that it is one."""

    law: Law
    objective: Objective
    points: Points
    theta: np.ndarray  # [k] coordinates
    value: float  # objective
    gradient: float  # scaled: see solver.SMALL
    condition: float  # of the column-scaled Jacobian
    starts: int
    agreeing: int  # how many of the KEPT best starts reach the objective to AGREE
    others: np.ndarray  # [m, k] further starts for resamples: distinct ends, best first, then the optimum scaled
    cautions: tuple[Caution, ...]

    @property
    def natural(self) -> dict[str, float]:
        """The parameters of the law by name."""
        values = self.law.natural(self.theta, self.points.centre)
        return dict(zip(self.law.names, values.tolist(), strict=True))

    def log_loss(self, log_x: np.ndarray, theta: Optional[np.ndarray] = None) -> np.ndarray:
        """Returns log loss at log inputs [n, p]: [n], or [M, n] for coordinates [M, k]."""
        theta_rows = self.theta[None] if theta is None else theta
        predicted = solver.predict(self.law, theta_rows, self.law.design(log_x, self.points.centre))
        return predicted[0] if theta is None else predicted

    @property
    def residuals(self) -> np.ndarray:
        """Log measured less log fitted loss [n]."""
        return self.points.log_loss - self.log_loss(self.points.log_x)


def fit(law: Law, points: Points, objective: Objective, more: Optional[np.ndarray] = None) -> Union[Fit, Refusal]:
    """Minimises sum_i w_i cost(r_i) from all starts of the law, and from `more` [m, k]."""
    n, k = len(points.log_loss), len(law.names)
    if n <= k:
        return Refusal("too_few_points", f"{counted(n, 'point')} for {counted(k, 'parameter')}: {k + 1} are needed at least")
    grid = law.starts(points.centre) if more is None else np.concatenate([law.starts(points.centre), more])
    end, order = _descend(law, points, objective, grid)
    value = np.where(np.isfinite(end.value), end.value, np.inf)
    agree = value <= value.min() * (1 + AGREE) + 100 * solver.NOTHING
    reached = agree & end.converged & np.isfinite(value)
    if not np.any(reached):
        ended = float(end.gradient[int(np.argmin(value))])
        where = f"none of {len(grid)} starts reaches a minimum: the best ends at a scaled gradient of {ended:.1g}, not {solver.SMALL:g}"
        return Refusal("not_converged", f"{where}; add rows, or fit another law")
    best = int(np.argmin(np.where(reached, value, np.inf)))
    left = np.linalg.norm(end.theta - grid[order], axis=1) > MOVED
    if not np.any(agree & left):
        return Refusal(
            "start_not_left", "the best fit never left its start, and no start that moved agrees with it: add rows, or fit another law"
        )
    condition = _condition(law, points, end.theta[best])
    if isinstance(condition, Refusal):
        return condition
    others = np.concatenate([_distinct(end.theta, value, best), np.outer(_VARIANTS, end.theta[best])])
    cautions = _disagreement(int(agree.sum()), value, best)
    return Fit(
        law, objective, points, end.theta[best], float(value[best]), float(end.gradient[best]), condition, len(grid), int(agree.sum()),
        others, cautions,
    )  # fmt: skip


def _descend(law: Law, points: Points, objective: Objective, grid: np.ndarray) -> tuple[solver.Minima, np.ndarray]:
    """Returns the ends of the best starts, and which starts these are. A large table is seen by all starts in part, and whole by a few."""
    big = len(points.log_loss) > solver.LARGE
    seen = large.sample(points) if big else np.arange(len(points.log_loss))
    part = (points.design(law)[seen], points.log_loss[seen], points.weights[seen])
    rough = solver.minimise(law, objective, *part, grid, exact=False)
    order = np.argsort(np.where(np.isfinite(rough.value), rough.value, np.inf), kind="stable")[:KEPT]
    ends = solver.minimise(law, objective, *part, rough.theta[order])
    if not big:
        return ends, order
    ends, lanes = large.polish(law, points, objective, ends)
    return ends, order[lanes]


def refit(made: Fit, log_loss: np.ndarray, weights: Optional[Weights] = None, extra: int = 2) -> solver.Minima:
    """Fits the same law to resampled losses [R, n], or with weights [R, n].

    Each resample starts from the optimum and from `extra` other places; the best end counts. With a large table it starts from the optimum
    alone.
    """
    points = made.points
    if len(points.log_loss) > solver.LARGE:
        given = points.weights if weights is None else weights
        return large.refit(made.law, points, made.objective, made.theta, log_loss, given)
    weights = None if weights is None else np.asarray(weights)
    count = max(len(np.atleast_2d(log_loss)), 1 if weights is None else len(np.atleast_2d(weights)))
    y = np.broadcast_to(log_loss, (count, len(points.log_loss)))
    w = np.broadcast_to(points.weights if weights is None else weights, y.shape)
    starts = np.concatenate([made.theta[None], made.others[:extra]])
    s = len(starts)
    lanes = np.tile(starts, (count, 1))
    ends = solver.minimise(made.law, made.objective, points.design(made.law), np.repeat(y, s, axis=0), np.repeat(w, s, axis=0), lanes)
    value = np.where(np.isfinite(ends.value), ends.value, np.inf).reshape(count, s)
    pick = np.arange(count) * s + np.argmin(value, axis=1)
    return solver.Minima(*(column[pick] for column in ends))


def _condition(law: Law, points: Points, theta: np.ndarray) -> Union[float, Refusal]:
    """Returns the condition number of the column-scaled Jacobian; a Refusal where it is rank-deficient."""
    slope = solver.jacobian(law, theta, points.design(law)) * np.sqrt(points.weights)[:, None]
    norms = np.linalg.norm(slope, axis=0)
    idle = [name for name, norm in zip(law.names, norms, strict=True) if norm < 1e-12 * max(norms.max(), 1e-300)]
    if idle:
        what = f"the fit is rank-deficient: no row depends on {' and '.join(idle)}"
        return Refusal("unidentified", f"{what}; add rows with other inputs, or fit another law")
    singular = np.linalg.svd(slope / norms, compute_uv=False)
    condition = float(singular[0] / max(singular[-1], 1e-300))
    if condition > 1 / RANK:
        size = f"condition {condition:.1e}" if singular[-1] > 0 else "rank-deficient"
        return Refusal("unidentified", f"the Jacobian at the best fit has rank below {len(theta)} ({size}): widen N or D")
    return condition


def _distinct(theta: np.ndarray, value: np.ndarray, best: int, most: int = 2) -> np.ndarray:
    """Returns the ends that differ from the optimum and from each other by more than .05 in some coordinate, best first."""
    found = [theta[best]]
    for i in np.argsort(value, kind="stable"):
        if np.isfinite(value[i]) and all(np.max(np.abs(theta[i] - other)) > 0.05 for other in found):
            found.append(theta[i])
        if len(found) > most:
            break
    return np.array(found[1:]).reshape(-1, theta.shape[1])


def _disagreement(agreeing: int, value: np.ndarray, best: int) -> tuple[Caution, ...]:
    rank = min(10, len(value))
    end = np.sort(value)[rank - 1]
    if end <= value[best] * (1 + 1e-6) + 100 * solver.NOTHING:
        return ()
    above = end / max(value[best], solver.NOTHING) - 1
    spread = f"{agreeing} of the best {len(value)} starts reach the best objective; number {rank} of them ends {above:.1e} above it"
    return (Caution("starts_disagree", spread),)
