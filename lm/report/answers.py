"""The tables of a grid's report that hold answers: numbers with their intervals, or refusals, whose reasons stand once a page."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Optional, Union

from lm.analysis.analysis import Analysis
from lm.analysis.brackets import Bracket
from lm.analysis.recommend import Recommendation
from lm.analysis.score import Score
from lm.errors import counted
from lm.report.tables import C_NAMES, N_NAMES
from lm.scaling.allocation import Allocation
from lm.scaling.approaches.isoflop import Isoflop, IsoflopBudget
from lm.scaling.approaches.parametric import Parametric
from lm.scaling.intervals.noise import NoiseModel
from lm.scaling.page import cells, table_page
from lm.scaling.page.cells import Cells, Reasons
from lm.scaling.page.document import Figure, Table, Text
from lm.scaling.page.table_page import OWN, STATISTICAL
from lm.scaling.results import Answer, Estimate, Refusal, value_of
from lm.scaling.words import scientific, si

Pair = tuple[str, Optional[Answer], Optional[Answer], Optional[Answer], Optional[Answer]]  # name, a, b, and both with the law's own error


def recommended(analysis: Analysis, reasons: Reasons) -> Optional[Table]:
    """Returns what to train next, at 10 and 100 times the largest budget."""
    found = analysis.recommended
    if not found:
        return None
    counts, loss, rows = Cells(reasons), Cells(reasons), []
    for one in found:
        ratio = f"{one.d.value / one.n.value:.3g}" if isinstance(one.n, Estimate) and isinstance(one.d, Estimate) else cells.NONE
        shown = (counts.both(one.n, cells.count), counts.both(one.d, cells.count), ratio, loss.both(one.loss, cells.four))
        rows.append((f"{one.factor:g}", scientific(one.flops), *shown))
    head = ("times the largest budget", "C (FLOPs)", "parameters N*", "tokens D*", "D*/N*", "loss of one run (nats per byte)")
    shaken = (
        ("Not every budget has a clear minimum (below), so that these numbers may move.",)
        if analysis.failures and any(one.by for one in found)
        else ()
    )
    return Table(head, tuple(rows), "What to train next.", (*_basis(found), *shaken, *counts.notes(), *loss.notes()))


def _basis(found: Sequence[Recommendation]) -> tuple[str, ...]:
    """Says where the recommendation comes from, and how far to trust it."""
    one = next((one for one in found if one.by is not None), None)
    if one is None:
        return ()
    level = f"{one.n.level:.0%} intervals" if isinstance(one.n, Estimate) and one.n.low is not None else "no intervals"
    method, loss = (answer.method if isinstance(answer, Estimate) else "refused" for answer in (one.n, one.loss))
    largest = scientific(one.flops / one.factor)
    return (
        f"In parentheses: {level}. N* is by approach {one.by} ({method}), and D* what C pays for at N*. The loss is of one run of "
        f"this size, by {loss}.",
        f"Nothing was trained beyond {largest} FLOPs. On public tables cut to three to five budgets such intervals held N* in 88% to "
        "100% of the cases up to a hundred times above, and the lowest loss in 70% to 100% (docs/backtest.md). A run between tests them.",
    )


def approaches(analysis: Analysis, reasons: Reasons) -> list[Union[Figure, Table, Text]]:
    """Returns what approaches 2 and 3 each say of the recommended compute, with both kinds of intervals."""
    made: list[Union[Figure, Table, Text]] = []
    for name, field in (("by the lines through the minima of approach 2", "minima"), ("by the law of approach 3", "law")):
        found = tuple(at for at in (getattr(one, field) for one in analysis.recommended) if isinstance(at, Allocation))
        if any(isinstance(answer, Estimate) for at in found for answer in (at.n, at.d)):
            said = _which(analysis.recommended) if field == "minima" else ()
            made += table_page.allocations(found, f"Compute-optimal models {name}.", reasons, said)
    return made


def _which(found: Sequence[Recommendation]) -> tuple[str, ...]:
    """Says which D* to train where the line through the minima gives another one than C pays for at N*."""
    costs = []
    for one in found:
        if one.by == 2 and isinstance(one.minima, Allocation):
            own = one.minima.with_error
            line = own.d if own is not None and isinstance(own.d, Estimate) else one.minima.d
            if isinstance(line, Estimate) and isinstance(one.d, Estimate):
                costs.append(f"{line.value / one.d.value:.2f} times C at {scientific(one.flops)}")
    if not costs:
        return ()
    return (
        "Of the two D* of one C, train the one at the top of this page, which is what C pays for at N*. The D* of these lines is a power"
        f" law of its own, beside that of N*: both together cost {' and '.join(costs)} FLOPs.",
    )


def exponents(analysis: Analysis, reasons: Reasons) -> Table:
    """Returns a row for each approach: a and b with the intervals of both kinds, or the refusal."""
    a, b, own = Cells(reasons), Cells(reasons), Cells(reasons)
    rows = [
        (name, a.both(first), own.both(first_own), b.both(second), own.both(second_own), _methods(first, first_own))
        for name, first, second, first_own, second_own in _exponents(analysis)
    ]
    head = ("approach", f"a, {STATISTICAL}", f"a, {OWN}", f"b, {STATISTICAL}", f"b, {OWN}", "intervals by")
    level = next((answer.level for _, *pair in _exponents(analysis) for answer in pair if isinstance(answer, Estimate)), None)
    caption = "Exponents of N* ~ C^a and D* ~ C^b." + ("" if level is None else f" In parentheses: {level:.0%} intervals.")
    both = any(isinstance(one, Estimate) for row in _exponents(analysis) for one in row[3:])
    said = reasons.new([table_page.OWN_SAID] if both else [])
    return Table(head, tuple(rows), caption, (*said, *a.notes(), *b.notes(), *own.notes()))


def _exponents(analysis: Analysis) -> list[Pair]:
    isoflop, parametric, adjusted = analysis.isoflop, analysis.parametric, analysis.isoflop_without_gaps
    rows = [_pair("1, envelope", analysis.envelope), _pair("2, IsoFLOP", isoflop), _pair("3, law, for C = k N D", parametric)]
    if isinstance(parametric, Parametric) and isinstance(parametric.a_counted, Estimate):
        counted = (parametric.a_counted, parametric.b_counted, parametric.a_counted_with_error, parametric.b_counted_with_error)
        rows.append(("3, law, at C as counted", *counted))
    if isinstance(isoflop, Isoflop) and isinstance(isoflop.a_residual, Estimate):
        rows.append(("2, resampled residuals", isoflop.a_residual, isoflop.b_residual, None, None))
    if isinstance(parametric, Parametric) and isinstance(parametric.a_residual, Estimate):
        rows.append(("3, for C = k N D, resampled residuals", parametric.a_residual, None, None, None))
    rows.append(_pair("2, losses at the best learning rate by the brackets", adjusted))
    return rows


def _pair(name: str, made: Any) -> Pair:
    if isinstance(made, Refusal):
        return name, made, made, None, None
    return name, made.a, made.b, getattr(made, "a_with_error", None), getattr(made, "b_with_error", None)


def _methods(*answers: Optional[Answer]) -> str:
    return (
        "; ".join(dict.fromkeys(answer.method for answer in answers if isinstance(answer, Estimate) and answer.low is not None))
        or cells.NONE
    )


def minima(analysis: Analysis, reasons: Reasons) -> Optional[Table]:
    """Returns a row for each budget of approach 2: the minimum, the seed noise, and whether the minimum is clear."""
    if isinstance(analysis.isoflop, Refusal):
        return None
    checks = {check.budget: check for check in analysis.checks}
    cell, rows = Cells(reasons), []
    for budget in analysis.isoflop.budgets:
        check, noise = checks.get(budget.budget), analysis.sigma.get(f"{budget.budget:.6g}")
        answers = (cell.both(budget.n_star, cells.count), cell.both(budget.d_star, cells.count), cell.both(budget.loss_star, cells.four))
        sd = f"{100 * noise.value:.2f}%" if isinstance(noise, Estimate) else cells.NONE
        judged = (cells.NONE,) * 3
        if check is not None:
            higher = f"{check.rising_left} smaller, {check.rising_right} larger"
            judged = (higher, ", ".join(si(n, 3) for n in check.tied), "yes" if check.passed else "no")
        rows.append((scientific(budget.budget), str(len(budget.n)), *answers, sd, *judged))
    head = (
        "budget (FLOPs)",
        "sizes",
        "N*",
        "D*",
        "lowest loss",
        "seed noise",
        "clearly higher sizes",
        "as low as the lowest",
        "clear minimum",
    )
    factor = f"{analysis.settings['noise_factor']:g}"
    note = (
        f"Clearly higher: by more than {factor} standard deviations of the seed noise. A minimum is clear where two smaller and two larger "
        "sizes are clearly higher, and its interval lies inside the sizes."
    )
    return Table(head, tuple(rows), cell.caption("Minima of the IsoFLOP profiles."), (note, *cell.notes()))


def stars(analysis: Analysis, reasons: Reasons) -> Optional[Table]:
    """Returns the optimum of the largest budget by forecasts and baselines, and by approach 2 on the measured cells."""
    made, score = analysis.forecast, analysis.score
    if made is None or not isinstance(score, Score):
        return None
    cell = Cells(reasons)
    rows = [
        ("approach 3", cell.both(made.n_star, cells.count), cell.both(made.loss_star, cells.four), _signed(score.star_error)),
        ("approach 2's line", cell.both(made.n_star_isoflop, cells.count), cells.NONE, cells.NONE),
        ("power law of the lowest loss", cells.NONE, cells.four(made.baseline_power_law), _signed(score.power_law_star_error)),
        ("lowest loss of the budget before", cells.NONE, cells.four(made.baseline_last_budget), _signed(score.last_budget_star_error)),
    ]
    measured = next((b for b in _budgets(analysis) if b.budget == made.budget), None)
    if measured is not None:
        star = (cell.both(measured.n_star, cells.count), cell.both(measured.loss_star, cells.four))
        rows.append(("as measured, by approach 2", *star, cells.NONE))
    head = ("optimum by", "N*", "lowest loss", "error of the loss")
    return Table(head, tuple(rows), cell.caption("The optimum of the largest budget, as forecast and as measured."), cell.notes())


def _signed(value: Optional[float]) -> str:
    return cells.NONE if value is None else f"{value:+.2%}"


def _budgets(analysis: Analysis) -> tuple[IsoflopBudget, ...]:
    return analysis.isoflop.budgets if isinstance(analysis.isoflop, Isoflop) else ()


def parameters(analysis: Analysis, reasons: Reasons) -> Optional[Table]:
    """Returns the parameters of approach 3 with intervals."""
    fitted = analysis.parametric
    if isinstance(fitted, Refusal):
        return None
    cell = Cells(reasons)
    rows = tuple((name, cell.both(answer, _parameter)) for name, answer in fitted.parameters.items())
    return Table(("parameter", "value"), rows, cell.caption("Parameters of the law."), cell.notes())


def _parameter(value: float) -> str:
    return cells.four(value) if 1e-4 <= abs(value) < 999.5 else cells.parameter(value)


def oracle(analysis: Analysis, reasons: Reasons) -> Optional[Table]:
    """Returns the exponents fitted to the losses, to the losses less the oracle's, and those of ideal learners."""
    made = analysis.oracle
    if made is None:
        return None
    cell = Cells(reasons)
    rows = tuple(
        (name, cell.both(getattr(made, name)), cell.both(made.reducible[name]), f"{made.ideal[name]:.2f}") for name in ("alpha", "beta")
    )
    head = ("exponent", "fitted to the loss", "fitted to the loss less the oracle's", "of an ideal learner")
    return Table(head, rows, cell.caption("Exponents of the loss."), cell.notes())


def noise(analysis: Analysis, reasons: Reasons) -> Table:
    """Returns the standard deviation over seeds at each budget, and how many runs measured it there."""
    measured = analysis.noise.cells if isinstance(analysis.noise, NoiseModel) else ()
    cell, rows = Cells(reasons), []
    for budget, sigma in sorted(analysis.sigma.items(), key=lambda item: float(item[0])):
        here = [one for one in measured if f"{one.budget:.6g}" == budget]
        value = cell.both(_percent(sigma), _hundredths)
        rows.append((scientific(float(budget)), value, str(len(here)), str(sum(one.dof for one in here))))
    head = ("budget (FLOPs)", "standard deviation (%)", "sizes with several seeds", "degrees of freedom")
    return Table(head, tuple(rows), cell.caption("Standard deviation of the loss over seeds."), cell.notes())


def _percent(answer: Answer) -> Answer:
    """Returns the same answer times 100."""
    if isinstance(answer, Refusal):
        return answer
    low, high = (None if bound is None else 100 * bound for bound in (answer.low, answer.high))
    return dataclasses.replace(answer, value=100 * answer.value, low=low, high=high)


def _hundredths(value: float) -> str:
    return f"{value:.2f}"


def brackets(analysis: Analysis, reasons: Reasons) -> Optional[Table]:
    """Returns the loss at each learning rate over the rule's, the best rate, and the rule's gap."""
    if not analysis.brackets:
        return None
    factors = sorted({f"{f:.3g}" for bracket in analysis.brackets for f in bracket.factors}, key=float)
    cell = Cells(reasons)
    rows = tuple(_bracket(bracket, factors, cell) for bracket in analysis.brackets)
    head = ("N", "budget (FLOPs)", *(f"loss at {f} × the rule's rate" for f in factors), "best rate over the rule's", "gap of the rule (%)")
    note = "Behind a loss: over the loss at the rule's rate. Gap: what the rule costs against the vertex of the parabola through them."
    return Table(head, rows, cell.caption("Losses in nats per byte at other learning rates."), (note, *cell.notes()))


def _bracket(bracket: Bracket, factors: Sequence[str], cell: Cells) -> tuple[str, ...]:
    measured = {f"{f:.3g}": loss for f, loss in zip(bracket.factors, bracket.loss, strict=True)}
    losses = [cells.NONE if f not in measured else f"{measured[f]:.4f}" for f in factors]
    for i, f in enumerate(factors):
        if f in measured and f != "1":
            losses[i] += f" ({measured[f] / measured['1'] - 1:+.2%})"
    best, gap = cell.both(bracket.best_factor, _hundredths), cell.both(_percent(bracket.gap), _hundredths)
    return (si(bracket.n, 3), scientific(bracket.budget), *losses, best, gap)


def conventions(analysis: Analysis, reasons: Reasons) -> Table:
    """Returns a by approaches 2 and 3 under every way of counting N and C."""
    cell = Cells(reasons)
    rows = tuple(
        (N_NAMES.get(row.n, row.n), C_NAMES.get(row.c, row.c), row.grouping, cell.both(row.isoflop_a), cell.both(row.parametric_a))
        for row in analysis.conventions
    )
    head = ("parameters", "FLOPs", "budgets", "a, approach 2", "a, approach 3")
    return Table(head, rows, cell.caption("The exponent a under every way of counting."), cell.notes())


def headline(analysis: Analysis) -> list[str]:
    """Returns the study's answer in a few sentences."""
    lines = []
    isoflop, score = analysis.isoflop, analysis.score
    if isinstance(isoflop, Isoflop) and isinstance(isoflop.a, Estimate) and isinstance(isoflop.b, Estimate):
        a, b = (Cells(Reasons()).both(answer) for answer in (isoflop.a, isoflop.b))
        own = [Cells(Reasons()).both(one) for one in (isoflop.a_with_error, isoflop.b_with_error) if value_of(one) is not None]
        further = f"; with the power law's own error {own[0]} and {own[1]}" if len(own) == 2 else ""
        level = f"approach 2, {isoflop.a.level:.0%} intervals, {counted(len(isoflop.budgets), 'budget')}"
        lines.append(f"Compute-optimal size grows as C^a with a = {a}, and tokens as C^b with b = {b}{further} ({level}).")
    if isinstance(score, Score):
        line = f"The {len(score.cells)} losses of the largest budget, written down before its runs started, were off by "
        line += f"{score.mean_absolute_error:.1%} on average."
        if score.star_error is not None and score.power_law_star_error is not None and score.last_budget_star_error is not None:
            line += f" The lowest of them was off by {score.star_error:+.1%}; a power law of the lowest losses would have been off by "
            line += f"{score.power_law_star_error:+.1%}, the lowest loss of the budget before by {score.last_budget_star_error:+.1%}."
        lines.append(line)
    if analysis.checks:
        passed = sum(check.passed for check in analysis.checks)
        line = "Budgets with a clear minimum, above which two sizes on each side rise by more than twice the seed noise: "
        lines.append(f"{line}{passed} of {len(analysis.checks)}.")
    return lines
