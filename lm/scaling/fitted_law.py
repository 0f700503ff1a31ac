"""A law fitted to a table of runs, with the draws behind its intervals: what planning, comparison and the report start from."""

import dataclasses
from collections.abc import Callable
from typing import Optional, Union

import numpy as np

from lm.scaling.fits import fit, frontier
from lm.scaling.fits.objectives import HuberLog, Objective
from lm.scaling.fits.projection import Projected, project
from lm.scaling.intervals import resampling
from lm.scaling.intervals.resampling import Resampling, Rows
from lm.scaling.laws.law import Chinchilla, Law
from lm.scaling.results import Answer, Refusal
from lm.scaling.runs import Runs


@dataclasses.dataclass(frozen=True)
class Surface:
    """The optimum and its draws, in the law's own parameters. `sampled` is the range of each input that was measured.

    `left_out` holds the fits without one row, or run, each, where intervals are BCa's; `refused` says why there are no intervals.
    """

    fit: fit.Fit
    values: np.ndarray  # [k]
    draws: np.ndarray  # [R, k]
    method: str
    level: float
    sampled: dict[str, tuple[float, float]]
    projected: Optional[Projected] = None  # where variable projection ended
    left_out: Optional[np.ndarray] = None  # [J, k]
    refused: Optional[Refusal] = None

    @property
    def law(self) -> Law:
        return self.fit.law

    @property
    def stacked(self) -> np.ndarray:
        """[1 + R + J, k]: the optimum, the draws, and the fits that leave out a unit: what `answer_of` reads a function of."""
        parts = (self.values[None], self.draws) if self.left_out is None else (self.values[None], self.draws, self.left_out)
        return np.concatenate(parts)

    def estimate(self, of: Callable[[np.ndarray], np.ndarray]) -> Answer:
        """The interval of a function of the parameters: `of` takes [m, k] and returns [m]."""
        return self.answer_of(of(self.stacked))

    def answer_of(self, column: np.ndarray) -> Answer:
        """The interval of a function's values at `stacked` [1 + R + J]."""
        end = 1 + len(self.draws)
        return self.answer(float(column[0]), column[1:end], None if self.left_out is None else column[end:])

    def answer(self, value: float, drawn: np.ndarray, left_out: Optional[np.ndarray] = None) -> Answer:
        """A number with the interval of its draws [R]: percentiles, or BCa's where the values with a unit left out [J] are given."""
        if left_out is None or self.refused is not None:
            return resampling.percentile(value, drawn, self.level, self.method, self.refused)
        return resampling.bca(value, drawn, left_out, self.level, self.method)

    def allocate(self, cost: frontier.Cost, log_c: np.ndarray) -> tuple[frontier.Optimum, frontier.Optimum]:
        """log N*, log D*, log L* at each C [m]: of the optimum [1, m], of the draws [R, m]."""
        best, drawn = (frontier.allocate(self.law, p, cost, log_c) for p in (self.values[None], self.draws))
        return best, drawn

    def path(self, cost: frontier.Cost, log_c: np.ndarray) -> frontier.Optimum:
        """log N*, log D*, log L* at each C [m] of `stacked`: [1 + R + J, m], columns of which `answer_of` reads."""
        return frontier.allocate(self.law, self.stacked, cost, log_c)

    def parameters(self) -> dict[str, Answer]:
        """Every parameter with its interval."""
        return {name: self.answer_of(column) for name, column in zip(self.law.names, self.stacked.T, strict=True)}


def points_of(runs: Runs, law: Law) -> fit.Points:
    """What a law is fitted to, each point with weight 1."""
    return fit.Points(runs.log_x(law.inputs), np.log(runs.loss), np.ones(len(runs)))


def fit_surface(
    runs: Runs,
    law: Law = Chinchilla(),
    objective: Objective = HuberLog(),
    resampling: Resampling = Rows(),
    draws: int = 1000,
    level: float = 0.8,
    seed: int = 0,
) -> Union[Surface, Refusal]:
    """Fits a law from all of its starts and from where variable projection ends; again to `draws` resamples from three places each."""
    points, resampling = points_of(runs, law), resampling.resolve(runs)
    if len(points.log_loss) <= len(law.names):
        return Refusal("too_few_points", f"{len(runs)} rows for {len(law.names)} parameters: {len(law.names) + 1} are the least")
    projected = project(law, points, objective)
    made = fit.fit(law, points, objective, None if projected is None else projected.theta[None])
    if isinstance(made, Refusal):
        return made
    log_loss, weights = resampling.draw(made, runs, draws, seed)
    ends = fit.refit(made, log_loss, weights)
    centre = made.points.centre
    sampled = {name: (float(runs.inputs[name].min()), float(runs.inputs[name].max())) for name in law.inputs}
    left_out = law.natural(_left_out(made, resampling.units(runs)), centre) if resampling.bca else None
    values, drawn, refused = law.natural(made.theta, centre), law.natural(ends.theta, centre), resampling.refusal(made, runs)
    return Surface(made, values, drawn, resampling.name, level, sampled, projected, left_out, refused)


def _left_out(made: fit.Fit, units: np.ndarray) -> np.ndarray:
    """[J, k]: the fits without each unit."""
    return fit.refit(made, made.points.log_loss, (units != np.arange(units.max() + 1)[:, None]) * made.points.weights).theta
