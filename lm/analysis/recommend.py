"""Recommends the models to train beyond the study: N*, D* and the loss to expect at 10 and 100 times the largest budget.

`python -m experiments.replications.few_budgets` says who answers (docs/backtest.md). N* is that of approach 2 whose exponent may drift;
where the minima give none, that of approach 3 with the law's own error. D* is what C pays for at N*. The loss is that of one run of this N*
and D*, predicted as the forecast of the largest budget is: with seed noise, the draws of the parameters and the law's own error in its
interval.
"""

import dataclasses
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


@result
class Recommendation:
    """The model to train at C = `flops`, `factor` times the largest budget, and its loss in nats per byte.

    `by` is the approach that N* comes from, 2 or 3, None where both refuse; `minima` and `law` are all that each of them says.
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
    factors: Sequence[float] = FACTORS,
) -> tuple[Recommendation, ...]:
    """Returns the models to train at `factors` times the largest budget, by the minima of approach 2 and the law of approach 3."""
    largest, planned = _largest(cells, settings)
    flops = [factor * largest for factor in factors]
    second: Sequence[Union[Allocation, Refusal]]
    second = [minima] * len(flops) if isinstance(minima, Refusal) else by_minima(minima, flops, settings)
    sampled = (float(cells.c.min()), float(cells.c.max()))
    found = []
    for factor, c, two in zip(factors, flops, second, strict=True):
        three = law if isinstance(law, Refusal) else optimum.best(law, frontier.cost_of(cells), c, sampled)
        by, n = _size({2: _own(two), 3: _own(three)})
        d = _tokens(n, frontier.cost_of(cells), c)
        loss = _loss(n, d, two, law, cells, noise, math.log(factor * planned), settings)
        found.append(Recommendation(factor, c, n, d, loss, by, two, three))
    return tuple(found)


def _largest(cells: Runs, settings: AnalysisSettings) -> tuple[float, float]:
    """Returns C of the largest budget, as counted and as planned."""
    assert cells.budget is not None  # the rows of a study have budgets
    planned = float(cells.budget.max())
    counted = planned if settings.c == settings.planned_c else math.exp(cells.log_c[cells.budget == planned].mean())
    return counted, planned


def _own(at: Union[Allocation, Refusal]) -> Answer:
    """Returns N* with the law's own error where it is inferred, and without it where it is not."""
    if isinstance(at, Refusal):
        return at
    return at.with_error.n if at.with_error is not None and isinstance(at.with_error.n, Estimate) else at.n


def _size(options: dict[int, Answer]) -> tuple[Optional[int], Answer]:
    """Returns the N* of the first approach that has an interval, else of the first that has a number, else why there is none."""
    numbers = {by: answer for by, answer in options.items() if isinstance(answer, Estimate)}
    whole = {by: answer for by, answer in numbers.items() if answer.low is not None}
    for by, answer in (*whole.items(), *numbers.items()):
        return by, answer
    reasons = {by: answer for by, answer in options.items() if isinstance(answer, Refusal)}
    if reasons[2].reason == reasons[3].reason:
        return None, reasons[2]
    return None, Refusal(reasons[2].kind, "; ".join(f"approach {by}: {one.reason}" for by, one in reasons.items()))


def _tokens(n: Answer, cost: frontier.Cost, flops: float) -> Answer:
    """Returns the tokens that C pays for at N, whose interval is that of N turned round."""
    if isinstance(n, Refusal):
        return n
    paid = [None if size is None else flops / math.exp(cost.log_flops_per_token(np.log(size))) for size in (n.value, n.high, n.low)]
    value, low, high = paid
    assert value is not None
    return dataclasses.replace(n, value=value, low=low, high=high)


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
