"""Optima that budgets show, and ways to forecast those above a cut: N* of the law and of approach 2, with and without their own error."""

import math
from collections.abc import Callable
from typing import NamedTuple, Optional

import numpy as np

from lm.scaling.approaches import near
from lm.scaling.backtest.below import Below
from lm.scaling.backtest.methods import R, student
from lm.scaling.fits.frontier import allocates
from lm.scaling.intervals import bootstrap, drift
from lm.scaling.results import Refusal
from lm.scaling.runs import Runs

BUDGETS = 3  # optima that have to lie below a cut


class Optima(NamedTuple):
    """Budgets with an optimum: log C, log N* and its standard deviation, [b] each."""

    log_c: np.ndarray
    log_n: np.ndarray
    sd: np.ndarray


Method = Callable[[Below, Optima, np.ndarray], Optional[np.ndarray]]  # what is known, its optima, log C [m] -> draws [R, m] of log N*


def shown(runs: Runs) -> Optima:
    """Returns the optima that a table's budgets show: of a parabola of log loss in log N about the lowest size, inside the sizes."""
    found = []
    for budget in sorted(set([] if runs.budget is None else runs.budget.tolist())):
        here = runs.take(runs.budget == budget)
        one = near.lowest(here.log_n, here.log_loss)
        if one is not None:
            found.append((math.log(budget), *one))
    return Optima(*np.array(found).reshape(-1, 3).T)


def law(known: Below, optima: Optima, log_c: np.ndarray) -> Optional[np.ndarray]:
    """Forecasts N* of the law, with the draws of its parameters."""
    return known.drawn.allocate(known.cost, log_c)[1].log_n if allocates(known.law) else None


def discrepancy(known: Below, optima: Optima, log_c: np.ndarray) -> Optional[np.ndarray]:
    """Forecasts N* of the law with its own error."""
    if isinstance(known.discrepancy, Refusal) or not allocates(known.law):
        return None
    return known.discrepancy.path(known.cost, log_c, R, known.seed).drawn_log_n


def line(known: Below, optima: Optima, log_c: np.ndarray) -> Optional[np.ndarray]:
    """Forecasts by the regression of the optima below the cut (approach 2), with the interval of least squares."""
    design, at = (np.stack([np.ones_like(x), x - optima.log_c.mean()], axis=1) for x in (optima.log_c, log_c))
    inverse = np.linalg.pinv(design)
    coefficients, degrees = inverse @ optima.log_n, len(optima.log_c) - 2
    variance = max(float(np.sum((optima.log_n - design @ coefficients) ** 2)) / degrees, 1e-4)
    return student(at @ coefficients, np.sqrt(variance * np.sum((at @ (inverse @ inverse.T)) * at, axis=1)), degrees)


def drifting(known: Below, optima: Optima, log_c: np.ndarray) -> Optional[np.ndarray]:
    """Forecasts by the optima below the cut, whose exponent may drift."""
    return student(*drift.extrapolate(*optima, log_c), np.inf)


def last_budget(known: Below, optima: Optima, log_c: np.ndarray) -> Optional[np.ndarray]:
    """Forecasts N* of the last budget; its standard deviation is the root mean square rise per log C, times the distance."""
    rate = np.sqrt(np.mean((np.diff(optima.log_n) / np.diff(optima.log_c)) ** 2))
    return student(np.full(len(log_c), optima.log_n[-1]), rate * (log_c - optima.log_c[-1]), np.inf)


def measured_with(draws: np.ndarray, sd: np.ndarray, seed: int) -> np.ndarray:
    """Adds the error of the measured optima [m] to draws [R, m] of them."""
    return draws + sd * bootstrap.generator(seed, "measured optima").standard_normal(draws.shape)


N_STAR: dict[str, Method] = {
    "approach 3 and its error": discrepancy,
    "approach 2 and its error": drifting,
    "approach 3": law,
    "approach 2": line,
    "last budget": last_budget,
}
