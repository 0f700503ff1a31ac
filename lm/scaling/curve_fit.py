"""The multi-power law fitted to loss curves under some schedules, and what it predicts of others (Luo et al. 2025).

Rows of one curve depend on each other. Intervals come from a block bootstrap: stretches of residuals are drawn whole, the law is fitted
again, and the draws say what the residuals leave open. They suppose that the law holds under every schedule.
"""

import dataclasses
from collections.abc import Sequence
from typing import Union

import numpy as np

from lm.errors import UserError
from lm.scaling.fits import fit, solver
from lm.scaling.fits.objectives import HuberLog, Objective
from lm.scaling.intervals import bootstrap
from lm.scaling.laws.schedule_laws import MultiPower, TrainingCurve, curve_loss, curve_points
from lm.scaling.results import Answer, Refusal, result
from lm.scaling.tables import columns, formats, numbers

SHOWN = 60  # points of a curve that are fitted, evenly spaced
DROPS = 24  # blocks of drops of a schedule in a fit; predictions sum over every step
BLOCKS = 10  # stretches of residuals of a curve
DRAWS = 100
_MOST = 2e7  # steps of a curve: their learning rates are held one by one


@dataclasses.dataclass(frozen=True)
class NamedCurve:
    """The loss curve of one run, by the name of its file. `measured` is False where the file holds a schedule alone."""

    name: str
    curve: TrainingCurve
    measured: bool = True


@result
class CurveScore:
    """How the law describes one curve: R^2 and the mean and largest absolute relative error, None without losses; the loss at its end."""

    name: str
    steps: int
    r2: float | None
    mean_error: float | None
    largest_error: float | None
    last_loss: float | None
    predicted_last: Answer


@result
class CurveFit:
    """The law's parameters, its description of the fitted curves, and its prediction of the others."""

    equation: str
    source: str
    values: dict[str, Answer]
    method: str
    level: float
    fitted: tuple[CurveScore, ...]
    predicted: tuple[CurveScore, ...]


def read_curve(path: str, step: str, rate: str, loss: str, warmup: int | None, needs_loss: bool = True) -> NamedCurve:
    """Reads the curve of one run: a row per logged step, with the learning rate there. Rates between rows are interpolated.

    Args:
      warmup: steps of linear warm-up before the first row (default: as many as the first row's step).
      needs_loss: whether the losses have to be there; a schedule to predict may lack them.
    """
    table = formats.read(path)
    steps, rates = (numbers.column(table, columns.named(table, name)) for name in (step, rate))
    measured = needs_loss or loss in table.columns
    losses = numbers.column(table, columns.named(table, loss)) if measured else np.ones(len(steps))
    if len(steps) < 2 or not np.all(np.isfinite(steps)) or np.any(np.diff(steps) <= 0):
        raise UserError(f"{path}: column {step!r} has to rise from row to row, over two rows at least")
    if not (np.all(np.isfinite(rates)) and np.all(rates >= 0) and np.all(np.isfinite(losses)) and np.all(losses > 0)):
        raise UserError(f"{path}: learning rates and losses have to be numbers, losses positive; leave other rows out")
    if steps[-1] - steps[0] > _MOST:
        raise UserError(f"{path}: column {step!r} spans {steps[-1] - steps[0]:.3g} steps, more than any run has: does it count tokens?")
    first = int(steps[0])
    every = np.arange(first, int(steps[-1]) + 1)
    before = 0.5 * rates[0] * (first if warmup is None else warmup)
    return NamedCurve(path, TrainingCurve(np.interp(every, steps, rates), steps.astype(int) - first, losses, before), measured)


def fit_curves(
    fitted: Sequence[NamedCurve], predicted: Sequence[NamedCurve] = (), objective: Objective = HuberLog(), level: float = 0.8,
    draws: int = DRAWS, seed: int = 0,
) -> Union[CurveFit, Refusal]:  # fmt: skip
    """Fits the multi-power law to curves and predicts others."""
    law, thin = MultiPower(), [_thinned(one.curve) for one in fitted]
    points = curve_points(thin, DROPS)
    made = fit.fit(law, points, objective)
    if isinstance(made, Refusal):
        return made
    ends = fit.refit(made, _resampled(made, [len(curve.steps) for curve in thin], draws, seed), extra=0)
    thetas = np.concatenate([made.theta[None], ends.theta])
    method = f"{draws} refits to blocks of residuals"
    natural = law.natural(thetas, points.centre)
    values: dict[str, Answer] = {name: bootstrap.estimate(natural[0, i], natural[1:, i], level, method) for i, name in enumerate(law.names)}
    scores = [[_score(one, thetas, level, method) for one in group] for group in (fitted, predicted)]
    return CurveFit(law.equation, law.source, values, method, level, tuple(scores[0]), tuple(scores[1]))


def _thinned(curve: TrainingCurve) -> TrainingCurve:
    keep = np.unique(np.linspace(0, len(curve.steps) - 1, min(SHOWN, len(curve.steps))).round().astype(int))
    return curve._replace(steps=curve.steps[keep], loss=curve.loss[keep])


def _resampled(made: fit.Fit, lengths: Sequence[int], draws: int, seed: int) -> np.ndarray:
    """Returns log losses [draws, n]: the fitted law plus stretches of residuals that are drawn whole, with either sign."""
    random, residuals = bootstrap.generator(seed, "curve blocks"), made.residuals
    found, first = np.empty((draws, len(residuals))), 0
    for length in lengths:
        size = max(1, length // BLOCKS)
        own = residuals[first : first + length]
        starts = random.integers(0, length, (draws, -(-length // size)))
        signs = random.choice([-1.0, 1.0], starts.shape)
        index = (starts[..., None] + np.arange(size)) % length
        found[:, first : first + length] = (own[index] * signs[..., None]).reshape(draws, -1)[:, :length]
        first += length
    return made.log_loss(made.points.log_x) + found


def _score(one: NamedCurve, thetas: np.ndarray, level: float, method: str) -> CurveScore:
    """Scores the prediction of a curve at up to SHOWN of its logged steps, each by the sum over every step of the schedule."""
    thin = _thinned(one.curve)
    predicted = curve_loss(MultiPower().natural(thetas[0], np.zeros(0)).tolist(), thin)
    end = thin._replace(steps=thin.steps[-1:], loss=thin.loss[-1:])
    ends = np.exp(solver.predict(MultiPower(), thetas, curve_points([end], DROPS).log_x)[:, 0])
    last = bootstrap.estimate(float(predicted[-1]), predicted[-1] * ends[1:] / ends[0], level, method)
    if not one.measured:
        return CurveScore(one.name, len(one.curve.steps), None, None, None, None, last)
    error = predicted / thin.loss - 1
    r2 = 1 - np.sum((thin.loss - predicted) ** 2) / max(np.sum((thin.loss - thin.loss.mean()) ** 2), 1e-300)
    mean, largest = float(np.mean(np.abs(error))), float(np.max(np.abs(error)))
    return CurveScore(one.name, len(one.curve.steps), float(r2), mean, largest, float(one.curve.loss[-1]), last)
