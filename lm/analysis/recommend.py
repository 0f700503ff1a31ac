"""Recommends the models to train beyond the study: N*, D* and the loss to expect at 10 and 100 times the largest budget.

The backtest over public tables says who answers (docs/backtest.md). N* and D* are those of approach 2 whose exponent may drift; where the
minima give none, those of approach 3 with the law's own error. The loss is that of one run of this N* and D*, predicted as the forecast of
the largest budget is: with seed noise, the draws of the parameters and the law's own error in its interval.
"""

import math
from collections.abc import Sequence
from typing import Optional, Union

import numpy as np

from lm.analysis import forecast
from lm.scaling.allocation import Allocation, by_minima
from lm.scaling.approaches.isoflop import Minimum
from lm.scaling.fits import frontier
from lm.scaling.fitted_law import FittedLaw
from lm.scaling.intervals.noise import NoiseModel
from lm.scaling.planning import optimum
from lm.scaling.results import Answer, Estimate, Refusal, result
from lm.scaling.runs import Runs
from lm.scaling.settings import AnalysisSettings

FACTORS = (10.0, 100.0)  # times the largest budget
Split = tuple[Answer, Answer]  # N* and D*


@result
class Recommendation:
    """The model to train at C = `flops`, `factor` times the largest budget, and its loss in nats per byte.

    `by` is the approach that N* and D* come from, 2 or 3, None where both refuse; `minima` and `law` are all that each of them says.
    """

    factor: float
    flops: float
    n: Answer
    d: Answer
    loss: Answer
    by: Optional[int]
    minima: Union[Allocation, Refusal]
    law: Union[Allocation, Refusal]


def recommend(
    minima: Union[Sequence[Minimum], Refusal],
    law: Union[FittedLaw, Refusal],
    cells: Runs,
    noise: Union[NoiseModel, Refusal],
    settings: AnalysisSettings,
) -> tuple[Recommendation, ...]:
    """Returns the models to train at FACTORS times the largest budget, by the minima of approach 2 and the law of approach 3."""
    largest, planned = _largest(cells, settings)
    flops = [factor * largest for factor in FACTORS]
    second: Sequence[Union[Allocation, Refusal]]
    second = [minima] * len(flops) if isinstance(minima, Refusal) else by_minima(minima, flops, settings)
    sampled = (float(cells.c.min()), float(cells.c.max()))
    found = []
    for factor, c, two in zip(FACTORS, flops, second, strict=True):
        three = law if isinstance(law, Refusal) else optimum.best(law, frontier.cost_of(cells), c, sampled)
        by, (n, d) = _split({2: _own(two), 3: _own(three)})
        loss = _loss(n, d, two, law, cells, noise, math.log(factor * planned), settings)
        found.append(Recommendation(factor, c, n, d, loss, by, two, three))
    return tuple(found)


def _largest(cells: Runs, settings: AnalysisSettings) -> tuple[float, float]:
    """Returns C of the largest budget, as counted and as planned."""
    assert cells.budget is not None  # the rows of a study have budgets
    planned = float(cells.budget.max())
    counted = planned if settings.c == settings.planned_c else math.exp(cells.log_c[cells.budget == planned].mean())
    return counted, planned


def _own(at: Union[Allocation, Refusal]) -> Split:
    """Returns N* and D* with the law's own error where it is inferred, and without it where it is not."""
    if isinstance(at, Refusal):
        return at, at
    own = at.with_error
    return (own.n, own.d) if own is not None and isinstance(own.n, Estimate) and isinstance(own.d, Estimate) else (at.n, at.d)


def _split(options: dict[int, Split]) -> tuple[Optional[int], Split]:
    """Returns the first approach whose N* and D* have intervals, else the first that has numbers, else why there are none."""
    numbers = {by: pair for by, pair in options.items() if all(isinstance(answer, Estimate) for answer in pair)}
    whole = {by: pair for by, pair in numbers.items() if all(isinstance(answer, Estimate) and answer.low is not None for answer in pair)}
    for by, pair in (*whole.items(), *numbers.items()):
        return by, pair
    reasons = {by: next(answer for answer in pair if isinstance(answer, Refusal)) for by, pair in options.items()}
    if reasons[2].reason == reasons[3].reason:
        return None, (reasons[2], reasons[2])
    refusal = Refusal(reasons[2].kind, "; ".join(f"approach {by}: {one.reason}" for by, one in reasons.items()))
    return None, (refusal, refusal)


def _loss(
    n: Answer,
    d: Answer,
    minima: Union[Allocation, Refusal],
    law: Union[FittedLaw, Refusal],
    cells: Runs,
    noise: Union[NoiseModel, Refusal],
    log_planned: float,
    settings: AnalysisSettings,
) -> Answer:
    """Returns the loss of one run of N and D parameters and tokens; without a law, that of the lowest losses carried on."""
    if isinstance(n, Refusal) or isinstance(d, Refusal):
        return n if isinstance(n, Refusal) else d
    if isinstance(law, Refusal):
        return minima if isinstance(minima, Refusal) else minima.loss
    log_x = np.log([[n.value, d.value]])
    return forecast.predictive(law, cells, noise, log_x, np.array([log_planned]), settings)[0][0]
