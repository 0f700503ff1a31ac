"""Scores of forecasts against what was measured: errors, coverage of intervals, interval score, CRPS (numpy only).

All are of log loss, so that an error of .01 is one of 1%. A forecast is the draws of its distribution.
"""

import numpy as np

from lm.scaling.intervals import bootstrap
from lm.scaling.results import result

LEVELS = (0.5, 0.8, 0.95)


@result
class LevelScore:
    """The intervals of one level: how many rows they held, their mean width, and their mean interval score, in log loss."""

    level: float
    held: int
    rows: int
    width: float
    score: float


def interval_score(measured: np.ndarray, low: np.ndarray, high: np.ndarray, level: float) -> np.ndarray:
    """Returns the score [n] of intervals: width plus 2 / (1 - level) times the miss (Gneiting and Raftery 2007, eq. 43)."""
    miss = np.maximum(low - measured, 0.0) + np.maximum(measured - high, 0.0)
    return high - low + 2 / (1 - level) * miss


def crps(measured: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Returns the continuous ranked probability score [n] of draws [R, n]: E|X - y| - E|X - X'| / 2, without bias in R."""
    count = len(draws)
    apart = np.abs(draws - measured).mean(axis=0)
    rank = 2 * np.arange(1, count + 1) - count - 1
    return apart - (rank[:, None] * np.sort(draws, axis=0)).sum(axis=0) / (count * (count - 1))


def level_scores(measured: np.ndarray, draws: np.ndarray, levels: tuple[float, ...] = LEVELS) -> tuple[LevelScore, ...]:
    """Returns the scores of the equal-tailed intervals of draws [R, n] against measured log losses [n], level by level."""
    found = []
    for level in levels:
        low, high = bootstrap.quantiles(draws, level)
        held = int(np.sum((low <= measured) & (measured <= high)))
        score = float(np.mean(interval_score(measured, low, high, level)))
        found.append(LevelScore(level, held, len(measured), float(np.mean(high - low)), score))
    return tuple(found)
