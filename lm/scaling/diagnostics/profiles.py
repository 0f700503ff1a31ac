"""Checks of IsoFLOP profiles: rows off their budget, refused budgets, minima at an edge of the sampled sizes, and grids off centre."""

import math
from typing import TYPE_CHECKING

import numpy as np

from lm.scaling.diagnostics import plausibility
from lm.scaling.diagnostics.found import Found
from lm.scaling.results import Caution, Estimate, Refusal
from lm.scaling.runs import Runs

if TYPE_CHECKING:
    from lm.scaling.approaches.isoflop import Isoflop
    from lm.scaling.fitted_law import FittedLaw

OFF_BUDGET = 0.1  # share by which C of a row may differ from its planned budget
SHOWN = 5  # rows or budgets that a caution names
OFF_CENTRE = 2.0  # factor between N* and the middle of the sampled sizes above which a caution is given


def centred(made: "FittedLaw", runs: Runs) -> list[Found]:
    """Warns of budgets whose sampled sizes lie to one side of the law's N*, or do not reach it."""
    from lm.scaling.fits import frontier

    if runs.budget is None or not frontier.allocates(made.law):
        return []
    budgets = [np.flatnonzero(runs.budget == value) for value in sorted(set(runs.budget.tolist()))]
    budgets = [index for index in budgets if len(index) > 1]
    if not budgets:
        return []
    log_c = np.array([np.log(runs.c[index]).mean() for index in budgets])
    star = np.exp(made.allocate(frontier.cost_of(runs), log_c)[0].log_n[0])
    return _placed([(float(runs.budget[i[0]]), runs.n[i], float(s)) for i, s in zip(budgets, star, strict=True)])


def off_budget(runs: Runs) -> list[Found]:
    """Names the rows whose 6 N D, or counted C, is not what their budget says."""
    if runs.budget is None or plausibility.counted(runs, runs.budget, "--budget") is not None:
        return []
    ratio = runs.c / runs.budget
    off = np.flatnonzero(np.abs(ratio - 1) > OFF_BUDGET)
    if not len(off):
        return []
    named = ", ".join(f"{runs.run[i]} ({ratio[i]:.3g})" for i in off[:SHOWN]) + (", ..." if len(off) > SHOWN else "")
    what, used = "6 N D", "the budget, not 6 N D: name FLOPs as counted with --flops, or mend the budgets"
    if runs.counted:
        what, used = "the counted C", "what was counted, not the budget: count in the convention of the plan, or mend the budgets"
    where = f"{what} differs from the budget by more than {OFF_BUDGET:.0%} in {len(off)} of {len(runs)} rows, by a factor of {named}"
    return [Caution("off_budget", f"{where}; the C of a profile is {used}")]


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


def minima(made: "Isoflop") -> tuple[Found, ...]:
    """Diagnoses approach 2: its refused budgets (concave, edge, too few sizes), and grids off centre."""
    refused: dict[str, list[tuple[float, str]]] = {}
    for b in made.budgets:
        if isinstance(b.n_star, Refusal):
            refused.setdefault(b.n_star.kind, []).append((b.budget, b.n_star.reason))
    found: list[Found] = [Caution(kind, _listed(each)) for kind, each in refused.items()]
    kept = [(b.budget, np.array(b.n), b.n_star.value) for b in made.budgets if isinstance(b.n_star, Estimate)]
    return tuple(found + _placed(kept))


def _listed(refused: list[tuple[float, str]]) -> str:
    """Says why budgets have no minimum: the reason of the first, and which others share its kind."""
    budgets, reason = [f"{budget:.3g}" for budget, _ in refused], refused[0][1]
    more = budgets[1 : SHOWN + 1] + (["..."] if len(budgets) > SHOWN + 1 else [])
    return f"budget {budgets[0]}: {reason}" + (f" (and so at {', '.join(more)})" if more else "")
