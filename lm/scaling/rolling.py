"""Rolling origin: a law fitted to the rows up to each compute, held against the rows beyond it.

Losses extrapolate far better than allocations do, so both are shown. An allocation has no measured truth. It is held against the law
fitted to all rows: the regret is the relative loss of training the N* that the smaller runs would have chosen, and the deadweight is the
share of compute that this wastes, 1 - C_equal / C, where C_equal reaches the same loss at the best allocation.
"""

import math
from collections.abc import Sequence
from typing import Optional, Union

import numpy as np

from lm.scaling.filters import exponent
from lm.scaling.fits import fit, frontier
from lm.scaling.fits.objectives import HuberLog, Objective
from lm.scaling.fitted_law import cell_points
from lm.scaling.laws.law import Chinchilla, Law
from lm.scaling.results import Refusal, result
from lm.scaling.runs import Runs

_MOST_CUTS = 8
_REACH = math.log(1e3)  # C_equal is looked for down to a thousandth of C


@result
class Origin:
    """The law fitted to the rows up to `cut`. Errors are means over rows: those of the next compute, and all rows beyond."""

    cut: float
    rows: int
    next_rows: int
    next_error: float  # mean of predicted / measured - 1
    next_absolute_error: float
    rest_rows: int
    rest_absolute_error: float
    values: dict[str, float]
    a: Optional[float]  # of N* ~ C^a; None for laws that allocate nothing
    target: float  # the compute at which the allocation is judged: the largest of the table
    n_star: Optional[float]
    n_star_all: Optional[float]  # by the law fitted to all rows
    regret: Optional[float]
    deadweight: Optional[float]


@result
class Skipped:
    """A compute up to which the rows hold no fit."""

    cut: float
    rows: int
    why: Refusal


RollingOrigin = tuple[Union[Origin, Skipped], ...]


def rolling_origin(
    runs: Runs, law: Law = Chinchilla(), objective: Objective = HuberLog(), cuts: Sequence[float] = ()
) -> Union[RollingOrigin, Refusal]:
    """Fits the law up to each cut and predicts the rows beyond.

    Args:
      cuts: FLOPs (default: the planned budgets but the last, or eight quantiles of C).

    Returns:
      A result for each cut, by increasing compute; a Refusal where all rows together hold no fit, or have one budget.
    """
    reference = fit.fit(law, cell_points(runs, law, objective), objective)
    if isinstance(reference, Refusal):
        return reference
    compute = runs.c if runs.budget is None else runs.budget
    at = sorted(cuts) if len(cuts) else cuts_of(runs)
    if not at:
        return Refusal("too_few_points", "one budget only: two or more are needed to predict one from the others")
    found: list[Union[Origin, Skipped]] = []
    for i, cut in enumerate(at):
        known = compute <= cut * (1 + 1e-9)
        rest = np.flatnonzero(~known)
        if not len(rest):
            continue
        end = at[i + 1] if i + 1 < len(at) else compute.max()
        following = rest[compute[rest] <= max(end, compute[rest].min()) * (1 + 1e-9)]
        found.append(_origin(cut, runs, np.flatnonzero(known), following, rest, reference, objective))
    return tuple(found)


def cuts_of(runs: Runs) -> list[float]:
    """Returns the planned budgets but the last, or eight quantiles of C."""
    if runs.budget is not None:
        return sorted(set(runs.budget.tolist()))[:-1]
    shares = np.arange(2, _MOST_CUTS + 2) / (_MOST_CUTS + 2)
    return [float(c) for c in sorted(set(np.quantile(runs.c, shares, method="lower").tolist())) if c < runs.c.max()]


def _origin(
    cut: float, runs: Runs, known: np.ndarray, following: np.ndarray, rest: np.ndarray, reference: fit.Fit, objective: Objective
) -> Union[Origin, Skipped]:
    law, used = reference.law, runs.take(known)
    made = fit.fit(law, cell_points(used, law, objective), objective)
    if isinstance(made, Refusal):
        return Skipped(cut, len(known), made)
    error = np.exp(made.log_loss(runs.log_x(law.inputs))) / runs.loss - 1
    a, n, n_all, regret, deadweight = _allocation(made, reference, used, runs)
    return Origin(
        cut=float(cut), rows=len(known), next_rows=len(following), next_error=float(error[following].mean()),
        next_absolute_error=float(np.abs(error[following]).mean()), rest_rows=len(rest),
        rest_absolute_error=float(np.abs(error[rest]).mean()),
        values=made.natural, a=a, target=float(runs.c.max()), n_star=n, n_star_all=n_all, regret=regret, deadweight=deadweight,
    )  # fmt: skip


Allocated = tuple[Optional[float], Optional[float], Optional[float], Optional[float], Optional[float]]


def _allocation(made: fit.Fit, reference: fit.Fit, used: Runs, runs: Runs) -> Allocated:
    """Returns a, then N*, N* by all rows, regret and deadweight at the largest C."""
    law = made.law
    if not frontier.allocates(law):
        return None, None, None, None, None
    cost, log_c = frontier.cost_of(runs), math.log(float(runs.c.max()))
    natural, truth = (law.natural(one.theta[None], one.points.centre) for one in (made, reference))
    chosen = float(frontier.allocate(law, natural, cost, np.array([log_c])).log_n[0, 0])
    path = frontier.allocate(law, truth, cost, log_c - np.linspace(0.0, _REACH, 400))
    log_d = log_c - float(cost.log_flops_per_token(np.array(chosen)))
    known = {"N": chosen, "D": log_d, "C": log_c, "M": log_d - chosen}
    loss = float(reference.log_loss(np.array([[known[name] for name in law.inputs]]))[0])
    spent = float(np.interp(loss, path.log_loss[0], np.linspace(0.0, _REACH, 400)))
    a = exponent(law, natural, used)
    return a, math.exp(chosen), math.exp(path.log_n[0, 0]), math.expm1(loss - path.log_loss[0, 0]), -math.expm1(-spent)
