"""The rows below a cut in compute, the law fitted to them, and its draws. Fits start where variable projection ends."""

import dataclasses
import functools
import math
from typing import Union

import numpy as np

from lm.errors import counted
from lm.scaling.fits import fit, frontier, solver
from lm.scaling.fits.objectives import Objective
from lm.scaling.fits.projection import project
from lm.scaling.fitted_law import FittedLaw, cell_points, unit_of
from lm.scaling.intervals.discrepancy import Discrepancy, discrepancy
from lm.scaling.intervals.noise import NoiseModel, fit_noise
from lm.scaling.intervals.resampling import Measured
from lm.scaling.laws.law import Law
from lm.scaling.results import Refusal
from lm.scaling.runs import Runs

SPARE = 7  # rows beyond the law's parameters that a cut has to leave below it
SPAN = 4.0  # factor that each input of the law has to span below it
BUDGETS = 3  # planned budgets that have to lie below it
DRAWS = 99


def compute_of(runs: Runs) -> np.ndarray:
    """Returns the compute [n] by which a table is cut: its planned budgets, else C."""
    return runs.c if runs.budget is None else runs.budget


@dataclasses.dataclass(frozen=True)
class Below:
    """The rows of a table up to `cut`, and the law fitted to them."""

    cut: float
    runs: Runs
    fit: fit.Fit
    seed: int

    @property
    def law(self) -> Law:
        return self.fit.law

    @functools.cached_property
    def noise(self) -> Union[NoiseModel, Refusal]:
        return fit_noise(self.runs)

    @functools.cached_property
    def unit(self) -> float:
        return unit_of(self.runs.cells(), self.noise, self.fit.objective)

    @functools.cached_property
    def cost(self) -> frontier.Cost:
        return frontier.cost_of(self.runs)

    @functools.cached_property
    def discrepancy(self) -> Union[Discrepancy, Refusal]:
        return discrepancy(self.fit)

    @functools.cached_property
    def drawn(self) -> FittedLaw:
        """The law with draws as `fitted_law.fit_runs` makes them by default, each fitted from the optimum alone."""
        cells, resampling = self.runs.cells(), Measured().resolve(self.runs, self.noise)
        log_loss, weights = resampling.draw(self.fit, cells, DRAWS, self.seed)
        ends = fit.refit(self.fit, log_loss, weights, extra=0)
        natural = [self.law.natural(theta, self.fit.points.centre) for theta in (self.fit.theta, ends.theta)]
        sampled = {name: (float(cells.inputs[name].min()), float(cells.inputs[name].max())) for name in self.law.inputs}
        return FittedLaw(self.fit, natural[0], natural[1], resampling.name, 0.8, sampled)


def below(runs: Runs, cut: float, law: Law, objective: Objective, seed: int) -> Union[Below, Refusal]:
    """Fits the law to the rows up to a compute; a Refusal where they are too few or too alike."""
    known = runs.take(compute_of(runs) <= cut * (1 + 1e-9))
    if refused := _too_little(known, law):
        return refused
    points = cell_points(known, law, objective)
    projected = project(law, points, objective)
    if projected is None:
        made = fit.fit(law, points, objective)
    else:
        none = np.zeros((0, len(projected.theta)))
        made = fit.Fit(law, objective, points, projected.theta, projected.value, math.nan, math.nan, projected.grid, 1, none, ())
    if isinstance(made, Refusal):
        return made
    falling = [name for name in ("alpha", "beta") if made.natural.get(name, 1.0) <= 0]
    if falling:
        return Refusal("unidentified", f"the best fit has {falling[0]} = {made.natural[falling[0]]:.3g}: loss does not fall")
    return Below(cut, known, made, seed)


def _too_little(known: Runs, law: Law) -> Union[Refusal, None]:
    count, needed = len(known.replicas()), len(law.names) + SPARE
    if count < needed:
        return Refusal("too_few_points", f"{counted(count, 'row')} for {counted(len(law.names), 'parameter')}: {needed} are needed")
    if known.budget is not None and len(set(known.budget.tolist())) < BUDGETS:
        return Refusal("too_few_points", f"{counted(len(set(known.budget.tolist())), 'budget')}: {BUDGETS} are needed")
    for name in law.inputs:
        factor = float(known.inputs[name].max() / known.inputs[name].min())
        if factor < SPAN:
            return Refusal("unidentified", f"{name} spans a factor {factor:.1f}: {SPAN:g} is needed")
    return None


def lowest(runs: Runs) -> np.ndarray:
    """Returns which rows [n] have the lowest loss of their budget, or without budgets of their factor 2 in compute."""
    log_c = np.log(compute_of(runs))
    group = np.round(log_c, 6) if runs.budget is not None else np.floor((log_c - log_c.min()) / math.log(2) + 1e-9)
    best = np.zeros(len(runs), bool)
    for value in np.unique(group):
        index = np.flatnonzero(group == value)
        best[index[np.argmin(runs.log_loss[index])]] = True
    return best


def predict(made: fit.Fit, log_x: np.ndarray, theta: np.ndarray) -> np.ndarray:
    """Returns log loss [R, m] of coordinates [R, k]."""
    return solver.predict(made.law, theta, made.law.design(log_x, made.points.centre))
