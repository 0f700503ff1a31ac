"""Counts how often intervals cover: studies are simulated from a known law and noise model, and each interval holds the truth or not.

A design is the inputs of a study, a law with its parameters, and a noise model. Every simulated study is fitted, resampled and read as a
table of one's own would be; only the starts differ, for the truth is known to lie nearby: fits begin at the law that made the data.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Union

import numpy as np

from lm.scaling.fits import fit, solver
from lm.scaling.fits.objectives import HuberLog, Objective
from lm.scaling.fitted_law import FittedLaw, points_of
from lm.scaling.intervals import bootstrap
from lm.scaling.intervals.resampling import Resampling, Sigma
from lm.scaling.laws.law import Law
from lm.scaling.results import Refusal, result
from lm.scaling.runs import Runs

Quantity = Callable[[np.ndarray], np.ndarray]  # parameters [m, k] -> [m]


@dataclasses.dataclass(frozen=True)
class Design:
    """A study whose truth is known: the inputs of its rows (their losses are not read), the law, its parameters [k], and the noise."""

    runs: Runs
    law: Law
    values: np.ndarray
    noise: Sigma
    objective: Objective = HuberLog()

    def exact(self) -> Runs:
        """Returns the study without noise."""
        return dataclasses.replace(self.runs, loss=solver.loss(self.law, self.values, np.exp(self.runs.log_x(self.law.inputs))))

    def simulate(self, studies: int, seed: int) -> np.ndarray:
        """Returns log losses [studies, n]."""
        log_loss = np.log(self.exact().loss)
        scale = self.noise.sigma(np.log(self.runs.c), log_loss)
        return log_loss + scale * bootstrap.generator(seed, "simulated studies").standard_normal((studies, len(log_loss)))


@result
class Covered:
    """The count of intervals that held the truth. `chance` is the probability of a count this unlikely at the nominal level."""

    quantity: str
    method: str
    level: float
    studies: int
    covered: int
    chance: float
    width: float  # median of high - low

    @property
    def share(self) -> float:
        return self.covered / self.studies


def coverage(
    design: Design,
    resampling: Resampling,
    quantities: Mapping[str, Quantity],
    studies: int = 500,
    draws: int = 300,
    levels: tuple[float, ...] = (0.8, 0.95),
    seed: int = 0,
) -> Union[tuple[Covered, ...], Refusal]:
    """Returns one row per quantity and level; a Refusal where the law cannot be fitted to the design even without noise."""
    base = fitted(design)
    if isinstance(base, Refusal):
        return base
    truth = {name: float(of(design.values[None])[0]) for name, of in quantities.items()}
    hits: dict[tuple[str, float], list[bool]] = {(name, level): [] for name in quantities for level in levels}
    widths: dict[tuple[str, float], list[float]] = {key: [] for key in hits}
    for study, made in enumerate(studies_of(base, design.simulate(studies, seed))):
        one = _fitted(made, design, resampling, draws, seed + study)
        stacked = one.stacked
        for name, of in quantities.items():
            column = of(stacked)
            for level in levels:
                answer = dataclasses.replace(one, level=level).answer_of(column)
                held = not isinstance(answer, Refusal) and answer.covers(truth[name])
                hits[name, level].append(held)
                if not isinstance(answer, Refusal) and answer.low is not None and answer.high is not None:
                    widths[name, level].append(answer.high - answer.low)
    return tuple(
        Covered(name, resampling.name, level, studies, sum(found), _chance(sum(found), studies, level), _median(widths[name, level]))
        for (name, level), found in hits.items()
    )


def _chance(hits: int, studies: int, level: float) -> float:
    from scipy import stats  # takes half a second to import

    return float(stats.binomtest(hits, studies, level).pvalue)


def _median(widths: list[float]) -> float:
    return float(np.median(widths)) if widths else float("nan")


def fitted(design: Design) -> Union[fit.Fit, Refusal]:
    """Fits the law to the study without noise, from where it lies."""
    points = points_of(design.exact(), design.law)
    start = design.law.coordinates(design.values, points.centre)[None]
    made = fit.fit(design.law, points, design.objective, start)
    return made if isinstance(made, Refusal) else dataclasses.replace(made, others=start)


def studies_of(base: fit.Fit, log_loss: np.ndarray) -> "list[fit.Fit]":
    """Returns the fits to simulated losses [S, n]."""
    ends = fit.refit(base, log_loss, extra=1)
    made = []
    for y, theta, value in zip(log_loss, ends.theta, ends.value, strict=True):
        points = dataclasses.replace(base.points, log_loss=y)
        made.append(dataclasses.replace(base, points=points, theta=theta, value=float(value), others=theta[None]))
    return made


def _fitted(made: fit.Fit, design: Design, resampling: Resampling, draws: int, seed: int) -> FittedLaw:
    """Makes what `fitted_law.fit_runs` makes, with every resample fitted from the optimum alone."""
    runs = dataclasses.replace(design.runs, loss=np.exp(made.points.log_loss))
    log_loss, weights = resampling.draw(made, runs, draws, seed)
    centre, law = made.points.centre, made.law
    drawn = law.natural(fit.refit(made, log_loss, weights, extra=0).theta, centre)
    left_out = None
    if resampling.bca:
        units = resampling.units(runs)
        kept = (units != np.arange(units.max() + 1)[:, None]) * made.points.weights
        left_out = law.natural(fit.refit(made, made.points.log_loss, kept, extra=0).theta, centre)
    return FittedLaw(made, law.natural(made.theta, centre), drawn, resampling.name, 0.8, {}, None, left_out, resampling.refusal(made, runs))
