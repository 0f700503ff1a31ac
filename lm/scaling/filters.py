"""Filters of a table by name, and the fit before and after each of them, so that no row is left out in silence."""

import dataclasses
from collections.abc import Sequence
from typing import Optional, Protocol, Union

import numpy as np

from lm.errors import UserError, counted
from lm.scaling.approaches import curves, profiles
from lm.scaling.approaches.isoflop import MIN_BUDGETS
from lm.scaling.fits import fit, frontier
from lm.scaling.fits.objectives import HuberLog, Objective
from lm.scaling.fitted_law import cell_points
from lm.scaling.laws.law import Chinchilla, Law
from lm.scaling.results import Refusal, result
from lm.scaling.runs import Runs
from lm.scaling.settings import AnalysisSettings


class Filter(Protocol):
    """A rule that keeps some rows of a table."""

    @property
    def name(self) -> str: ...

    def keep(self, runs: Runs) -> np.ndarray:
        """Returns [n] booleans: True for the rows to keep."""


@dataclasses.dataclass(frozen=True)
class WithoutHighest:
    """Leaves out the `count` highest losses (Besiroglu et al. 2024 leave out five)."""

    count: int

    @property
    def name(self) -> str:
        return f"without the {self.count} highest losses"

    def keep(self, runs: Runs) -> np.ndarray:
        kept = np.ones(len(runs), bool)
        kept[np.argsort(-runs.loss, kind="stable")[: self.count]] = False
        return kept


@dataclasses.dataclass(frozen=True)
class Between:
    """Keeps the rows whose input (N, D, C, M = D / N or a further one) lies from `low` to `high`."""

    input: str
    low: float = 0.0
    high: float = float("inf")

    @property
    def name(self) -> str:
        return f"{self.input} from {self.low:.3g} to {self.high:.3g}"

    def keep(self, runs: Runs) -> np.ndarray:
        if self.input not in runs.inputs:
            raise UserError(f"no input {self.input!r} to filter by: there are {', '.join(runs.inputs)}")
        column = runs.inputs[self.input]
        return (column >= self.low) & (column <= self.high)


@dataclasses.dataclass(frozen=True)
class Decayed:
    """Keeps the rows whose learning rate had decayed, or with `decayed` False those in mid-schedule."""

    decayed: bool = True

    @property
    def name(self) -> str:
        return "decayed rows" if self.decayed else "rows in mid-schedule"

    def keep(self, runs: Runs) -> np.ndarray:
        if runs.decayed is None:
            raise UserError("nothing says which rows had decayed: name a column of true and false with --decayed=COLUMN")
        return runs.decayed == self.decayed


@dataclasses.dataclass(frozen=True)
class LastOfRun:
    """Keeps the point of each run with the most tokens."""

    name: str = "last point of each run"

    def keep(self, runs: Runs) -> np.ndarray:
        groups = runs.groups
        last = [max(np.flatnonzero(groups == g), key=lambda i: runs.d[i]) for g in range(groups.max() + 1)]
        return np.isin(np.arange(len(runs)), last)


@result
class FilterStep:
    """The fits after a filter and those before it: rows left out and kept, the law's parameters, and a of N* ~ C^a.

    `a` is by the law, `a_minima` by the minima of approach 2; None where there is none or none was asked for. `values` is None where no law
    was asked for. `why` says of each thing that a rule left out why it did.
    """

    name: str
    dropped: int
    kept: int
    values: Union[dict[str, float], Refusal, None]
    a: Optional[float]
    a_minima: Optional[float] = None
    why: tuple[str, ...] = ()


def before_after(
    runs: Runs, filters: Sequence[Filter], law: Optional[Law] = Chinchilla(), objective: Objective = HuberLog(),
    curve: Optional[str] = None,
) -> tuple[FilterStep, ...]:  # fmt: skip
    """Fits all rows, then those left after each filter in turn: by the law, and by the minima of approach 2 where `curve` is given."""
    steps = [_step("all rows", 0, runs, law, objective, curve)]
    for each in filters:
        kept = runs.take(each.keep(runs))
        why = getattr(each, "reasons", lambda _: ())(runs)
        step = _step(each.name, len(runs) - len(kept), kept, law, objective, curve)
        steps.append(dataclasses.replace(step, why=why))
        runs = kept
    return tuple(steps)


def apply(runs: Runs, filters: Sequence[Filter]) -> Runs:
    """Returns the rows that are left after all filters."""
    for each in filters:
        runs = runs.take(each.keep(runs))
    if not len(runs):
        raise UserError(f"no rows are left after the filters ({', '.join(each.name for each in filters)}): widen them")
    return runs


def _step(name: str, dropped: int, runs: Runs, law: Optional[Law], objective: Objective, curve: Optional[str]) -> FilterStep:
    minima = None if curve is None or runs.budget is None else minima_exponent(runs, curve)
    if law is None:
        return FilterStep(name, dropped, len(runs), None, None, minima)
    made: Union[fit.Fit, Refusal] = Refusal(
        "too_few_points", f"{counted(len(runs), 'row')} left for {counted(len(law.names), 'parameter')}"
    )
    if len(runs) > len(law.names):
        made = fit.fit(law, cell_points(runs, law, objective), objective)
    if isinstance(made, Refusal):
        return FilterStep(name, dropped, len(runs), made, None, minima)
    a = exponent(law, law.natural(made.theta[None], made.points.centre), runs)
    return FilterStep(name, dropped, len(runs), made.natural, a, minima)


def minima_exponent(runs: Runs, curve: str = "parabola") -> Optional[float]:
    """Returns the slope of log N* on log C by the minima of approach 2; None where fewer than three budgets have one."""
    cells, least = runs.cells(), AnalysisSettings().min_points
    found = []
    for profile in profiles.by_budget(cells):
        if len(profile.log_n) >= least:
            fitted = curves.through(profile, cells.noise_weight, curve)
            best = curves.lowest(fitted, fitted.coefficients[None])
            found += [] if best.lost[0] else [(profile.log_c, float(best.u[0]) + fitted.centre)]
    if len(found) < MIN_BUDGETS:
        return None
    log_c, log_n = np.array(found).T
    return float(np.polyfit(log_c, log_n, 1)[0])


def exponent(law: Law, natural: np.ndarray, runs: Runs) -> Optional[float]:
    """Returns the slope of log N* on log C between the ends of the rows' compute; None for a law without an optimum, or for one compute."""
    log_c = np.log([runs.c.min(), runs.c.max()])
    if not frontier.allocates(law) or log_c[0] == log_c[1]:
        return None
    best = frontier.allocate(law, natural, frontier.cost_of(runs), log_c).log_n[0]
    return float((best[1] - best[0]) / (log_c[1] - log_c[0]))
