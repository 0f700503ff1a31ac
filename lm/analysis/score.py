"""Scores a forecast once its cells have run (numpy only)."""

import math
from collections.abc import Sequence
from typing import Optional, Union

import numpy as np

from lm.analysis.forecast import CellForecast, Forecast
from lm.analysis.runs import usable
from lm.scaling.approaches.isoflop import IsoflopBudget
from lm.scaling.results import Estimate, Refusal, result, value_of
from lm.scaling.settings import AnalysisSettings
from lm.study.rows import Row

_AIM, _AIM_SIGMAS = 0.01, 1.5


@result
class CellScore:
    """One cell: `error` is predicted / measured - 1; `z` is the log error in seed standard deviations sigma(C)."""

    id: str
    n: float
    predicted: float
    low: Optional[float]
    high: Optional[float]
    measured: float
    error: float
    z: Optional[float]
    covered: bool


@result
class Score:
    """A forecast held against what was measured.

    `aim` is max(1%, 1.5 sigma); `coverage_p` the two-sided binomial probability of a coverage this far
    from the interval's level; `regret` the loss, relative, of training at the predicted N* on the measured profile."""

    cells: tuple[CellScore, ...]
    missing: tuple[str, ...]  # planned cells without a usable run
    mean_error: float
    mean_absolute_error: float
    aim: float
    met: bool
    covered: int
    level: float
    coverage_p: float
    n_star: Optional[float]
    n_star_measured: Optional[float]
    regret: Union[float, Refusal]
    regret_isoflop: Union[float, Refusal]
    power_law_error: float  # mean absolute over the cells, of the baseline
    last_budget_error: float
    star_error: Optional[float]  # signed, of the lowest loss L*, which is what the baselines are made for
    power_law_star_error: Optional[float]
    last_budget_star_error: Optional[float]


def score(forecast: Forecast, rows: Sequence[Row], measured: Optional[IsoflopBudget], settings: AnalysisSettings) -> Union[Score, Refusal]:
    """Compares a forecast with usable `rows`; `measured` is approach 2's profile of its budget, for N* and the regret."""
    loss = {row.id: row.loss for row in usable(rows)[0]}
    cells = [_cell(cell, loss[cell.id]) for cell in forecast.cells if cell.id in loss and isinstance(cell.loss, Estimate)]
    missing = tuple(cell.id for cell in forecast.cells if cell.id not in loss)
    if not cells:
        refused = next((cell.loss for cell in forecast.cells if isinstance(cell.loss, Refusal)), None)
        return refused or Refusal("missing", "none of the cells that were forecast has completed")
    error = np.array([cell.error for cell in cells])
    truth = np.array([cell.measured for cell in cells])
    sigma = [cell.sigma for cell in forecast.cells if cell.sigma is not None]
    aim = max(_AIM, _AIM_SIGMAS * float(np.mean(sigma))) if sigma else _AIM
    covered = sum(cell.covered for cell in cells)
    absolute = float(np.mean(np.abs(error)))
    star = None if measured is None else value_of(measured.n_star)
    return Score(
        cells=tuple(cells), missing=missing, mean_error=float(np.mean(error)), mean_absolute_error=absolute,
        aim=aim, met=absolute <= aim, covered=covered, level=settings.level, coverage_p=binomial_p(covered, len(cells), settings.level),
        n_star=value_of(forecast.n_star), n_star_measured=star, regret=_regret(value_of(forecast.n_star), measured),
        regret_isoflop=_regret(value_of(forecast.n_star_isoflop), measured),
        power_law_error=float(np.mean(np.abs(forecast.baseline_power_law / truth - 1))),
        last_budget_error=float(np.mean(np.abs(forecast.baseline_last_budget / truth - 1))),
        star_error=_ratio(value_of(forecast.loss_star), measured), power_law_star_error=_ratio(forecast.baseline_power_law, measured),
        last_budget_star_error=_ratio(forecast.baseline_last_budget, measured),
    )  # fmt: skip


def _cell(cell: CellForecast, measured: float) -> CellScore:
    loss = cell.loss
    assert isinstance(loss, Estimate)
    ratio = loss.value / measured
    z = None if cell.sigma is None else math.log(ratio) / cell.sigma
    return CellScore(cell.id, cell.n, loss.value, loss.low, loss.high, measured, ratio - 1, z, loss.covers(measured))


def _ratio(predicted: Optional[float], measured: Optional[IsoflopBudget]) -> Optional[float]:
    """Returns predicted over measured L*, minus 1; None where either is missing."""
    truth = None if measured is None else value_of(measured.loss_star)
    return None if predicted is None or truth is None else predicted / truth - 1


def _regret(n: Optional[float], measured: Optional[IsoflopBudget]) -> Union[float, Refusal]:
    """Returns the loss at N on the measured parabola over its minimum, minus 1; refused outside the sampled sizes."""
    if n is None or measured is None or isinstance(measured.loss_star, Refusal):
        return Refusal("missing", "the regret needs a predicted N* and a measured profile with a minimum")
    if not min(measured.n) <= n <= max(measured.n):
        return Refusal("edge", f"the predicted N* = {n:.3g} lies outside the sampled sizes, where the profile says nothing")
    c0, c1, c2 = measured.coefficients
    u = math.log(n) - measured.centre
    return (c0 + c1 * u + c2 * u * u) / measured.loss_star.value - 1


def binomial_p(hits: int, trials: int, level: float) -> float:
    """Returns the two-sided probability, under coverage `level`, of a count no likelier than the one seen."""
    mass = [math.comb(trials, k) * level**k * (1 - level) ** (trials - k) for k in range(trials + 1)]
    return min(1.0, sum(m for m in mass if m <= mass[hits] * (1 + 1e-9)))
