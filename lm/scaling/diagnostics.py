"""Diagnostics of a table and its fits: a Refusal where no number should stand, a Caution where one stands that needs care.

`before` examines the rows, `after` the fitted law, `profiles` the minima of approach 2, `extrapolation` a compute. Each message says what
is wrong and what would suffice.
"""

import math
from typing import TYPE_CHECKING, Optional, Union

import numpy as np

from lm.scaling.fitted_law import rising, spans
from lm.scaling.results import Caution, Estimate, Refusal
from lm.scaling.runs import Runs

if TYPE_CHECKING:
    from lm.scaling.approaches.isoflop import Isoflop
    from lm.scaling.fitted_law import FittedLaw
    from lm.scaling.intervals.profile_likelihood import ProfileInterval
    from lm.scaling.laws.law import Law

Found = Union[Refusal, Caution]
PER_PARAMETER = 4  # rows per parameter below which a caution is given
OFF_CENTRE = 2.0  # factor between N* and the middle of the sampled sizes above which a caution is given
CONVENTIONS = 1.5  # factor by which FLOPs per token may differ from their trend in N
STEPS = ((3.0, "extrapolation"), (30.0, "far_extrapolation"), (math.inf, "extreme_extrapolation"))  # factor beyond the sampled range


def before(runs: Runs, law: "Law") -> tuple[Found, ...]:
    """Diagnoses the rows themselves, whatever the fit."""
    k = len(law.names)
    checks = (_count(runs, k), _one_budget(runs, law), *spans(runs, law), mid_schedule(runs), _conventions(runs), _curves(runs))
    return tuple(found for found in checks if found is not None)


def _count(runs: Runs, k: int) -> Optional[Found]:
    n = len(runs)
    if n <= k:
        return Refusal("too_few_points", f"{n} rows for {k} parameters: {k + 1} are needed at least, {PER_PARAMETER * k} for intervals")
    if n < PER_PARAMETER * k:
        return Caution("few_points", f"{n} rows for {k} parameters leave little to judge the fit by: {PER_PARAMETER * k} would suffice")
    return None


def _one_budget(runs: Runs, law: "Law") -> Optional[Found]:
    one = runs.c.max() / runs.c.min() < 1.2 if runs.budget is None else len(set(runs.budget.tolist())) == 1
    if {"C", "N"}.isdisjoint(law.inputs) or not one:
        return None
    return Refusal("unidentified", "all rows have one compute: nothing says how the optimum moves; add two budgets, eight times apart")


def mid_schedule(runs: Runs) -> Optional[Refusal]:
    """Refuses rows in mid-schedule beside rows whose learning rate had decayed."""
    if runs.decayed is None or runs.decayed.all() or not runs.decayed.any():
        return None
    count = int((~runs.decayed).sum())
    what = f"{count} rows in mid-schedule stand beside {len(runs) - count} whose learning rate had decayed"
    return Refusal("mid_schedule", f"{what}: their losses are not those of finished runs; fit one kind alone")


def _conventions(runs: Runs) -> Optional[Found]:
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


def _curves(runs: Runs) -> Optional[Found]:
    runs_count = len(set(runs.run))
    if runs_count == len(runs):
        return None
    what = f"{len(runs)} rows are points of {runs_count} runs and depend on each other"
    return Caution("dependent", f"{what}: intervals from rows would be too narrow; use --interval=runs")


def after(made: "FittedLaw", runs: Runs, profiled: "tuple[ProfileInterval, ...]" = ()) -> tuple[Found, ...]:
    """Diagnoses the fitted law; `profiled` are the profiles that were made of it."""
    found: list[Found] = list(made.fit.cautions)
    found += [Caution("unidentified", interval.answer.reason) for interval in profiled if isinstance(interval.answer, Refusal)]
    found += [refused for refused in (rising(made), _projection(made)) if refused]
    found += _centred(made, runs)
    return tuple(found)


def _projection(made: "FittedLaw") -> Optional[Found]:
    """Warns where variable projection ends at another objective than the fit."""
    if made.projected is None or abs(made.projected.value - made.fit.value) <= 1e-6 * made.fit.value + 1e-22:
        return None
    share = made.projected.value / made.fit.value - 1
    return Caution(
        "starts_disagree", f"variable projection ends at another objective ({share:+.1e}): add rows, or fit a law of fewer parameters"
    )


def _centred(made: "FittedLaw", runs: Runs) -> list[Found]:
    """Warns of budgets whose sampled sizes lie to one side of the law's N*, or do not reach it."""
    if runs.budget is None or not {"N", "D"} <= set(made.law.inputs) <= {"N", "D", "C", "M"}:
        return []
    from lm.scaling.fits import frontier

    budgets = [np.flatnonzero(runs.budget == value) for value in sorted(set(runs.budget.tolist()))]
    budgets = [index for index in budgets if len(index) > 1]
    if not budgets:
        return []
    log_c = np.array([np.log(runs.c[index]).mean() for index in budgets])
    star = np.exp(made.allocate(frontier.cost_of(runs), log_c)[0].log_n[0])
    return _placed([(float(runs.budget[i[0]]), runs.n[i], float(s)) for i, s in zip(budgets, star, strict=True)])


def _placed(budgets: list[tuple[float, np.ndarray, float]]) -> list[Found]:
    """Returns cautions of (budget, sampled sizes, N*): one for optima at or beyond an edge, one for grids off centre."""
    edge = [f"{c:.3g}" for c, n, star in budgets if not n.min() < star < n.max()]
    off = [f"{c:.3g}" for c, n, star in budgets if n.min() < star < n.max() and _off(n, star) > OFF_CENTRE]
    found: list[Found] = []
    if edge:
        found.append(Caution("edge", f"N* lies outside the sampled sizes at budget {', '.join(edge)}: add sizes beyond that end"))
    if off:
        what = f"N* is more than {OFF_CENTRE:g} times off the middle of the sizes at budget {', '.join(off)}"
        found.append(Caution("off_centre", f"{what}, which biases a parabola's minimum: centre the sizes on N*"))
    return found


def _off(n: np.ndarray, star: float) -> float:
    return math.exp(abs(math.log(star) - 0.5 * math.log(n.min() * n.max())))


def profiles(made: "Isoflop") -> tuple[Found, ...]:
    """Diagnoses approach 2: its refused budgets (concave, edge, too few sizes), and grids off centre."""
    found: list[Found] = [
        Caution(b.n_star.kind, f"budget {b.budget:.3g}: {b.n_star.reason}") for b in made.budgets if isinstance(b.n_star, Refusal)
    ]
    kept = [(b.budget, np.array(b.n), b.n_star.value) for b in made.budgets if isinstance(b.n_star, Estimate)]
    return tuple(found + _placed(kept))


def extrapolation(flops: float, sampled: tuple[float, float]) -> Optional[Caution]:
    """Returns a caution for C beyond the sampled compute, of a kind that grows with the distance; None within."""
    low, high = sampled
    factor = max(flops / high, low / flops)
    if factor <= 1 + 1e-9:
        return None
    kind = next(name for limit, name in STEPS if factor <= limit)
    words = {"extrapolation": "a little", "far_extrapolation": "far", "extreme_extrapolation": "more than 30 times"}[kind]
    side = "above" if flops > high else "below"
    where = f"C {flops:.3g} is {factor:.3g} times {side} the sampled compute ({low:.3g} to {high:.3g}), {words} outside it"
    return Caution(kind, f"{where}: the interval holds only if the law does; add runs within a factor 3 of it")
