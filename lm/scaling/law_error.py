"""Exponents and optima with the law's own error in their intervals, to stand beside those that suppose the law to be true."""

from collections.abc import Sequence
from typing import Optional, Union

import numpy as np

from lm.scaling.fits import frontier
from lm.scaling.fitted_law import FittedLaw
from lm.scaling.intervals import bootstrap
from lm.scaling.intervals.discrepancy import Discrepancy, discrepancy
from lm.scaling.results import Answer, Refusal, result
from lm.scaling.runs import Runs

METHOD = "law and its error"
DRAWS = 1000
_PLACES = 5  # values of C over the table's compute at which exponents are read


@result
class WithError:
    """The compute-optimal N, D, loss and D / N at a C, with the law's own error in their intervals; no loss by approach 2's power laws."""

    n: Answer
    d: Answer
    loss: Optional[Answer]
    ratio: Answer


def inferred(made: FittedLaw) -> Union[Discrepancy, Refusal, None]:
    """Returns the law's own error; None for a law that is read at fixed inputs or that splits no compute."""
    law, points = made.law, made.fit.points
    if not frontier.allocates(law) or len(law.inputs) != points.log_x.shape[1]:
        return None
    return discrepancy(made.fit)


def exponents(own: Union[Discrepancy, Refusal, None], runs: Runs, level: float, seed: int = 0, draws: int = DRAWS) -> dict[str, Answer]:
    """Returns a and b of N* ~ C^a, D* ~ C^b over the table's compute."""
    if own is None:
        return {}
    if isinstance(own, Refusal):
        return {"a": own, "b": own}
    log_c = np.linspace(runs.log_c.min(), runs.log_c.max(), _PLACES)
    slope = np.linalg.pinv(np.stack([np.ones_like(log_c), log_c], axis=1))[1]
    path = own.path(frontier.cost_of(runs), log_c, draws, seed)
    pairs = {"a": (path.log_n, path.drawn_log_n), "b": (path.log_d, path.drawn_log_d)}
    return {name: bootstrap.estimate(float(best @ slope), drawn @ slope, level, METHOD) for name, (best, drawn) in pairs.items()}


def optima(
    own: Union[Discrepancy, Refusal, None], cost: frontier.Cost, flops: Sequence[float], level: float, seed: int = 0
) -> list[Optional[WithError]]:
    """Returns N*, D*, loss and D / N at each C."""
    if own is None:
        return [None] * len(flops)
    if isinstance(own, Refusal):
        return [WithError(own, own, own, own)] * len(flops)
    found: list[Optional[WithError]] = []
    for log_c in np.log(np.array(flops, float)):
        path = own.path(cost, log_c[None], DRAWS, seed)
        columns = (
            (path.log_n, path.drawn_log_n), (path.log_d, path.drawn_log_d), (path.log_loss, path.drawn_log_loss),
            (path.log_d - path.log_n, path.drawn_log_d - path.drawn_log_n),
        )  # fmt: skip
        found.append(WithError(*(bootstrap.estimate(float(np.exp(best[0])), np.exp(d[:, 0]), level, METHOD) for best, d in columns)))
    return found
