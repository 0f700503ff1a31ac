"""Checks of the rows themselves: their number, their compute, their schedules, how FLOPs were counted, and points of one curve."""

from typing import TYPE_CHECKING, Optional

import numpy as np

from lm.errors import counted
from lm.scaling.diagnostics.found import Found
from lm.scaling.results import Caution, Refusal
from lm.scaling.runs import Runs

if TYPE_CHECKING:
    from lm.scaling.laws.law import Law

PER_PARAMETER = 4  # rows per parameter below which a caution is given
CONVENTIONS = 1.5  # factor by which FLOPs per token may differ from their trend in N


def count(runs: Runs, k: int) -> Optional[Found]:
    n = len(runs)
    if n <= k:
        return Refusal(
            "too_few_points",
            f"{counted(n, 'row')} for {counted(k, 'parameter')}: {k + 1} are needed at least, {PER_PARAMETER * k} for intervals",
        )
    if n < PER_PARAMETER * k:
        return Caution(
            "few_points",
            f"{counted(n, 'row')} for {counted(k, 'parameter')}, little to judge the fit by: {PER_PARAMETER * k} would suffice",
        )
    return None


def one_budget(runs: Runs, law: "Law") -> Optional[Found]:
    one = runs.c.max() / runs.c.min() < 1.2 if runs.budget is None else len(set(runs.budget.tolist())) == 1
    if {"C", "N"}.isdisjoint(law.inputs) or not one:
        return None
    return Refusal("unidentified", "all rows have one compute: nothing says how the optimum moves; add two budgets, eight times apart")


def mid_schedule(runs: Runs) -> Optional[Refusal]:
    """Refuses rows in mid-schedule stand beside rows whose learning rate had decayed."""
    if runs.decayed is None or runs.decayed.all() or not runs.decayed.any():
        return None
    count = int((~runs.decayed).sum())
    what = f"{counted(count, 'row')} in mid-schedule stand beside {len(runs) - count} whose learning rate had decayed"
    return Refusal("mid_schedule", f"{what}: their losses are not those of finished runs; fit one kind alone")


def conventions(runs: Runs) -> Optional[Found]:
    """Warns where the FLOPs per token of a row differ by half or more from a smooth function of N."""
    if not runs.counted or len(runs) < 4:
        return None
    from lm.scaling.fits import frontier

    log_n = np.log(runs.n)
    apart = np.log(runs.c / runs.d) - frontier.cost_of(runs).log_flops_per_token(log_n)
    widest = float(np.exp(np.abs(apart - np.median(apart)).max()))
    if widest < CONVENTIONS:
        return None
    worst = int(np.argmax(np.abs(apart - np.median(apart))))
    where = f"FLOPs per token at {runs.run[worst]} differ by a factor {widest:.1f} from the trend of the other rows in N"
    return Caution(
        "conventions", f"{where}: count all rows in one convention (forward and backward, the head, attention), or leave --flops out"
    )


def curves(runs: Runs) -> Optional[Found]:
    runs_count = len(set(runs.run))
    if runs_count == len(runs):
        return None
    what = f"{counted(len(runs), 'row')} are points of {counted(runs_count, 'run')} and depend on each other"
    return Caution("dependent", f"{what}: intervals from rows would be too narrow; --interval=runs draws whole runs")
