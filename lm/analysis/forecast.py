"""Forecasts the largest budget from the smaller ones, before its cells start.

Losses are predicted by approach 3 fitted to the known cells, and move by what the law is inferred to be off by at the edge of the data. The
interval is predictive and has three parts: seed noise sigma(C), widened to the size of the residuals where these are larger, the draws of
the parameters, and the law's own error. Three budgets show little of that error, so that all three are added in full: on public tables cut
to as few, this holds more than the parts of `intervals.discrepancy` alone (docs/backtest.md).

Two baselines say what the law adds: a power law of L*(C) through the minima of the known budgets, and the last budget's lowest loss, each
for every cell.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Optional, Union

import numpy as np

from lm.analysis.runs import BRACKET, missing_convention, runs_of, usable
from lm.scaling.approaches import isoflop, parametric, profiles
from lm.scaling.fits import frontier, solver
from lm.scaling.fitted_law import FittedLaw
from lm.scaling.intervals import bootstrap
from lm.scaling.intervals.discrepancy import discrepancy
from lm.scaling.intervals.noise import NoiseModel, fit_noise
from lm.scaling.results import Answer, Estimate, Refusal, result
from lm.scaling.runs import Runs
from lm.scaling.settings import AnalysisSettings
from lm.study.rows import Row

METHOD = "approach 3, predictive: seed noise, parametric bootstrap and the law's own error"


@result
class CellForecast:
    """The loss that one planned cell is expected to end at, in nats per byte. `sigma` is its relative seed standard deviation.

    `parts` are the standard deviations of log loss behind the interval: of noise, parameters and discrepancy. `shift` is how far the loss
    of the law was moved, in log loss.
    """

    id: str
    n: float
    tokens: float
    flops: float
    loss: Answer
    sigma: Optional[float]
    parts: dict[str, float] = dataclasses.field(default_factory=dict)
    shift: float = 0.0


@result
class Forecast:
    """A forecast, written before the cells of `budget` start. `made_from` are the ids of the runs that it was made from."""

    budget: float
    flops: float
    n_convention: str
    c_convention: str
    made_from: tuple[str, ...]
    cells: tuple[CellForecast, ...]
    n_star: Answer  # approach 3
    n_star_isoflop: Answer  # approach 2's line
    loss_star: Answer  # approach 3, without seed noise
    baseline_power_law: float
    baseline_last_budget: float
    known_budgets: tuple[float, ...]


def make(known: Sequence[Row], planned: Sequence[Row], settings: AnalysisSettings) -> Union[Forecast, Refusal]:
    """Forecasts the grid cells in `planned` (whatever they measured is not read) from usable runs in `known`."""
    rows, _ = usable(known)
    targets = [row for row in planned if row.role == "grid"]
    if not rows or not targets:
        return Refusal("too_few_points", "a forecast needs completed runs of the smaller budgets and planned cells of the largest")
    missing = missing_convention(rows, settings.n, settings.planned_c) or missing_convention(targets, settings.n, settings.planned_c)
    if missing is not None:
        return missing
    runs = runs_of(rows, settings.n, settings.planned_c, settings.planned_c)
    noise, cells = fit_noise(runs, settings), runs.cells()
    log_x = np.log([[row.params[settings.n], row.tokens] for row in targets])
    log_c = np.log([row.flops[settings.planned_c] for row in targets])
    law = parametric.fit_law(cells, noise, settings, settings.draws, "forecast", span=False)
    problem = law if isinstance(law, Refusal) else parametric.unidentified(law, settings)
    losses = predictive(law, cells, noise, log_x, log_c, settings)
    sigma = noise.sigma(log_c).tolist() if isinstance(noise, NoiseModel) else [None] * len(log_c)
    fitted, minima = isoflop.fit_isoflop(profiles.by_budget(cells), cells, noise, settings)
    centre = np.array([log_c.mean()])
    power, last = _baselines(fitted, float(centre[0]))
    return Forecast(
        budget=float(targets[0].budget), flops=math.exp(centre[0]), n_convention=settings.n, c_convention=settings.planned_c,
        made_from=tuple(row.id for row in rows),
        cells=tuple(
            CellForecast(
                row.id, float(row.params[settings.n]), float(row.tokens), float(row.flops[settings.planned_c]), loss, sd, parts, shift
            )
            for row, (loss, parts, shift), sd in zip(targets, losses, sigma, strict=True)
        ),
        n_star=problem or _law_star(law, cells, centre, "log_n"), n_star_isoflop=_isoflop_star(fitted, minima, centre, settings),
        loss_star=_law_star(law, cells, centre, "log_loss"), baseline_power_law=power, baseline_last_budget=last,
        known_budgets=tuple(sorted({float(row.budget) for row in rows if row.role != BRACKET})),
    )  # fmt: skip


def predictive(
    law: Union[FittedLaw, Refusal],
    cells: Runs,
    noise: Union[NoiseModel, Refusal],
    log_x: np.ndarray,
    log_c: np.ndarray,
    settings: AnalysisSettings,
) -> list[tuple[Answer, dict[str, float], float]]:
    """Returns predictive estimates of the losses of runs to come, the standard deviations of their parts, and how far each was moved.

    Args:
        log_x: log N and log D of the runs [m, 2].
        log_c: log C of the runs [m] in the convention of the plan, of which seed noise is a function.
    """
    if isinstance(law, Refusal):
        return [(law, {}, 0.0)] * len(log_c)
    drawn = np.log(solver.loss(law.law, law.draws, np.exp(log_x)))
    best = law.fit.log_loss(log_x)
    random, own = bootstrap.generator(settings.seed, "forecast seeds"), discrepancy(law.fit)
    parts = {"noise": _spread(law, cells, noise, log_c, settings) * random.standard_normal(drawn.shape), "parameters": drawn - best}
    shift = np.zeros(len(best))
    if not isinstance(own, Refusal):
        spread = own.predict(log_x)
        shift, parts["discrepancy"] = spread.shift, spread.discrepancy * random.standard_normal((len(drawn), 1))
    ends = best + shift + np.sum(list(parts.values()), axis=0)
    refused = law.refused if isinstance(noise, Refusal) else None  # noise widened to the residuals stands for a law that misses
    return [
        (
            bootstrap.estimate(float(np.exp(best[i] + shift[i])), np.exp(ends[:, i]), settings.level, METHOD, refused),
            {name: float(np.std(part[:, i])) for name, part in parts.items()},
            float(shift[i]),
        )
        for i in range(len(best))
    ]


def _spread(law: FittedLaw, cells: Runs, noise: Union[NoiseModel, Refusal], log_c: np.ndarray, settings: AnalysisSettings) -> np.ndarray:
    """Returns standard deviations [R, m] of the noise of cells to come, in log loss."""
    residual_sd = float(np.sqrt(np.sum(law.fit.residuals**2) / max(len(cells) - 5, 1)))
    if isinstance(noise, Refusal):
        return np.full((len(law.draws), len(log_c)), residual_sd)
    typical = float(np.sqrt(np.mean((noise.sigma(cells.log_planned_c) * cells.noise_weight) ** 2)))
    return noise.draws(log_c, len(law.draws), settings.seed) * max(1.0, residual_sd / typical)


def _law_star(law: Union[FittedLaw, Refusal], cells: Runs, log_c: np.ndarray, which: str) -> Answer:
    if isinstance(law, Refusal):
        return law
    return law.answer_of(np.exp(getattr(law.path(frontier.cost_of(cells), log_c), which)[:, 0]))


def _isoflop_star(fitted: isoflop.Isoflop, minima: list[isoflop.Minimum], log_c: np.ndarray, settings: AnalysisSettings) -> Answer:
    if isinstance(fitted.a, Refusal):
        return fitted.a
    best, drawn = isoflop.extrapolate([m for m in minima if isinstance(m.result.n_star, Estimate)], "n_star", log_c)
    return bootstrap.estimate(math.exp(best[0]), np.exp(drawn[:, 0]), settings.level, fitted.a.method, fitted.a.refused)


def _baselines(fitted: isoflop.Isoflop, log_c: float) -> tuple[float, float]:
    """Returns L* at C by a power law through the known budgets' minima, and the last of them; a budget without one gives its least loss."""
    lowest = [b.loss_star.value if isinstance(b.loss_star, Estimate) else min(b.loss) for b in fitted.budgets]
    x = np.log([b.flops for b in fitted.budgets])
    if len(x) < 2:
        return lowest[-1], lowest[-1]
    slope, intercept = np.polyfit(x, np.log(lowest), 1)
    return float(math.exp(intercept + slope * log_c)), float(lowest[-1])
