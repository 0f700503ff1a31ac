"""Answers `python -m lm.scaling score`: what a saved fit predicts for the rows of a table against what they measured."""

from typing import Union

import numpy as np

from lm.errors import counted
from lm.scaling import prediction, scores
from lm.scaling.laws.law import Law
from lm.scaling.planning.predicting import forecaster
from lm.scaling.prediction import RunForecast
from lm.scaling.results import Caution, Refusal, result
from lm.scaling.runs import Runs
from lm.scaling.saved import SavedFit
from lm.scaling.scores import LevelScore


@result
class ScoredRow:
    """One row: `error` is log measured - log predicted, `rank` the share of the forecast's draws below what was measured."""

    run: str
    forecast: RunForecast
    measured: float
    error: float
    rank: float


@result
class TableScore:
    """A saved fit against the rows of a table. `bias` is the mean of the rows' errors: above 0 the law predicts too low a loss."""

    fit: str
    fitted_to: str
    equation: str
    source: str
    count: int
    level: float
    noise: str
    error: float  # mean of |error|
    bias: float
    largest: float  # the error of the largest size
    crps: Union[float, Refusal]
    levels: Union[tuple[LevelScore, ...], Refusal]
    rows: tuple[ScoredRow, ...]
    cautions: tuple[Caution, ...]


def scored(path: str, made: SavedFit, runs: Runs, level: float, seed: int) -> TableScore:
    """Scores a saved fit by the rows of a table, each a run of its own."""
    asked = forecaster(made, {}, seed)
    predicted = asked.predict(asked.inputs_of(runs))
    found = prediction.forecasts(asked.judged, predicted, level)
    error, draws = runs.log_loss - predicted.log_loss, predicted.draws
    rank = np.mean(draws < runs.log_loss, axis=0)
    refused = asked.judged.refused or next((why for i in range(len(runs)) if (why := predicted.failed(i))), None)
    return TableScore(
        fit=path, fitted_to=made.source, equation=made.equation, source=runs.source, count=len(runs), level=level, noise=asked.noise,
        error=float(np.abs(error).mean()), bias=float(error.mean()), largest=float(error[np.argmax(np.abs(error))]),
        crps=refused or float(scores.crps(runs.log_loss, draws).mean()), levels=refused or scores.level_scores(runs.log_loss, draws),
        rows=tuple(
            ScoredRow(runs.run[i], found[i], float(runs.loss[i]), float(error[i]), float(rank[i])) for i in range(len(runs))
        ),
        cautions=_same(made, runs, asked.fitted.law) + made.cautions,
    )  # fmt: skip


def _same(made: SavedFit, runs: Runs, law: Law) -> tuple[Caution, ...]:
    """Warns of rows that the law was fitted to: those of the same inputs that have the same loss, or come from the same file."""
    known: dict[tuple[float, ...], list[float]] = {}
    for row, loss in zip(np.round(np.array(made.log_x, float), 9).tolist(), made.log_loss, strict=True):
        known.setdefault(tuple(row), []).append(loss)
    same_file = bool(made.sha256) and runs.sha256 == made.sha256
    count = 0
    for row, loss in zip(np.round(runs.log_x(law.inputs), 9).tolist(), runs.log_loss.tolist(), strict=True):
        losses = known.get(tuple(row), [])
        count += bool(losses) and (same_file or min(abs(loss - other) for other in losses) < 1e-9)
    if not count:
        return ()
    return (
        Caution(
            "in_sample", f"the law was fitted to {count} of these {counted(len(runs), 'row')}: their errors say nothing about other runs"
        ),
    )
