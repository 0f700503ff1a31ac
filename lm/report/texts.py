"""Numbers as a reader sees them: the report's sentences and table rows, from the analysis."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Optional, Union

from lm.analysis.analysis import Analysis
from lm.analysis.score import Score
from lm.scaling.approaches.isoflop import Isoflop
from lm.scaling.approaches.parametric import Parametric
from lm.scaling.page.style import scientific, si
from lm.scaling.results import Answer, Estimate, Refusal
from lm.study.rows import Row


def number(answer: Optional[Answer], form: str = ".3f") -> str:
    """'.512 (.480 to .544)', or why there is none."""
    if answer is None:
        return "not fitted"
    if isinstance(answer, Refusal):
        return f"refused ({answer.kind.replace('_', ' ')}): {answer.reason}"
    if answer.low is None or answer.high is None:
        why = f"; interval refused: {answer.refused.reason}" if answer.refused else ""
        return f"{answer.value:{form}}{why}"
    return f"{answer.value:{form}} ({answer.low:{form}} to {answer.high:{form}})"


def count(answer: Answer) -> str:
    """A count of parameters or tokens with its interval: '31k (28k to 35k)'."""
    if isinstance(answer, Refusal):
        return number(answer)
    if answer.low is None or answer.high is None:
        return f"{si(answer.value, 3)}; interval refused: {answer.refused.reason}" if answer.refused else si(answer.value, 3)
    return f"{si(answer.value, 3)} ({si(answer.low, 3)} to {si(answer.high, 3)})"


def percent(value: Optional[float], digits: int = 1) -> str:
    return "–" if value is None else f"{100 * value:.{digits}f}%"


def regret(value: Union[float, Refusal]) -> str:
    return value.reason if isinstance(value, Refusal) else percent(value, 2)


def headline(analysis: Analysis) -> list[str]:
    """The study's answer in a few sentences."""
    lines = []
    isoflop, score = analysis.isoflop, analysis.score
    if isinstance(isoflop, Isoflop) and isinstance(isoflop.a, Estimate):
        lines.append(
            f"Compute-optimal size grows as C^a with a = {number(isoflop.a, '.2f')}, and tokens as C^b with b = {number(isoflop.b, '.2f')} "
            f"(approach 2, {isoflop.a.level:.0%} intervals, {len(isoflop.budgets)} budgets)."
        )
    if isinstance(score, Score):
        line = f"The {len(score.cells)} losses of the largest budget, written down before its runs started, were off by "
        line += f"{percent(score.mean_absolute_error)} on average."
        if score.star_error is not None and score.power_law_star_error is not None and score.last_budget_star_error is not None:
            line += f" The lowest of them was off by {score.star_error:+.1%}; a power law of the lowest losses would have been off by "
            line += f"{score.power_law_star_error:+.1%}, the lowest loss of the budget before by {score.last_budget_star_error:+.1%}."
        lines.append(line)
    if analysis.checks:
        passed = sum(check.passed for check in analysis.checks)
        line = f"{passed} of {len(analysis.checks)} budgets have a minimum with two sizes on each side that rise above it "
        lines.append(line + "by more than twice the seed noise.")
    return lines


def exponent_rows(analysis: Analysis) -> list[dict[str, str]]:
    """One row per approach: exponents with intervals, or the refusal."""
    rows = []
    approaches = (
        ("1, envelope", analysis.envelope),
        ("2, IsoFLOP", analysis.isoflop),
        ("3, parametric, for C = k N D", analysis.parametric),
    )
    for name, made in approaches:
        if isinstance(made, Refusal):
            rows.append({"name": name, "a": number(made), "b": "", "method": ""})
        else:
            method = made.a.method if isinstance(made.a, Estimate) else ""
            rows.append({"name": name, "a": number(made.a), "b": "" if isinstance(made.a, Refusal) else number(made.b), "method": method})
    isoflop, parametric, adjusted = analysis.isoflop, analysis.parametric, analysis.isoflop_without_gaps
    if isinstance(parametric, Parametric) and isinstance(parametric.a_counted, Estimate):
        a, b = parametric.a_counted, parametric.b_counted
        rows.append({"name": "3, parametric, at C as counted", "a": number(a), "b": number(b), "method": a.method})
    if isinstance(isoflop, Isoflop) and isinstance(isoflop.a_residual, Estimate):
        a, b = isoflop.a_residual, isoflop.b_residual
        rows.append({"name": "2, other interval", "a": number(a), "b": number(b), "method": a.method})
    if isinstance(parametric, Parametric) and isinstance(parametric.a_residual, Estimate):
        rows.append({"name": "3, other interval", "a": number(parametric.a_residual), "b": "", "method": parametric.a_residual.method})
    name, method = "2, learning-rate gaps subtracted", "parametric bootstrap; losses at the best learning rate by the brackets"
    if isinstance(adjusted, Refusal):
        rows.append({"name": name, "a": number(adjusted), "b": "", "method": ""})
    else:
        rows.append({"name": name, "a": number(adjusted.a), "b": number(adjusted.b), "method": method})
    return rows


def budget_rows(analysis: Analysis) -> list[dict[str, str]]:
    """One row per budget of approach 2: minimum, noise, and whether the minimum is established."""
    if isinstance(analysis.isoflop, Refusal):
        return []
    checks = {check.budget: check for check in analysis.checks}
    rows = []
    for budget in analysis.isoflop.budgets:
        check = checks.get(budget.budget)
        noise = analysis.sigma.get(f"{budget.budget:.6g}")
        rows.append(
            {
                "budget": scientific(budget.budget),
                "n": count(budget.n_star),
                "d": count(budget.d_star),
                "loss": number(budget.loss_star),
                "sigma": percent(noise.value, 2) if isinstance(noise, Estimate) else "not measured",
                "lost_residual": percent(budget.lost_residual),
                "lost": percent(budget.lost),
                "sides": f"{check.rising_left} below, {check.rising_right} above" if check else "–",
                "tied": ", ".join(si(n) for n in check.tied) if check else "–",
                "passed": ("yes" if check.passed else "no: " + "; ".join(check.reasons)) if check else "–",
            }
        )
    return rows


def convention_rows(analysis: Analysis) -> list[dict[str, str]]:
    return [
        {
            "n": row.n,
            "c": row.c,
            "grouping": row.grouping,
            "isoflop": number(row.isoflop_a),
            "parametric": number(row.parametric_a),
        }
        for row in analysis.conventions
    ]


def as_percent(answer: Answer) -> Answer:
    """The same answer times 100."""
    if isinstance(answer, Refusal):
        return answer
    low, high = (None if bound is None else 100 * bound for bound in (answer.low, answer.high))
    return dataclasses.replace(answer, value=100 * answer.value, low=low, high=high)


def cell_rows(rows: Sequence[Row], analysis: Analysis) -> list[dict[str, str]]:
    """Every cell, used or not."""
    reasons = {excluded.id: excluded.reason for excluded in analysis.excluded}
    made = []
    for row in rows:
        factor = "" if row.learning_rate_factor == 1 else f" (rule × {row.learning_rate_factor:g})"
        made.append(
            {
                "id": row.id,
                "role": row.role,
                "budget": scientific(row.budget),
                "width": str(row.shape.get("d_model", "")),
                "n": si(row.n(), 3),
                "d": si(row.tokens, 3),
                "steps": f"{row.steps:,}",
                "batch": str(row.batch_size),
                "rate": f"{row.learning_rate:.2g}{factor}",
                "seed": str(row.seed),
                "loss": f"{row.loss:.4f}" if math.isfinite(row.loss) else "–",
                "bits": f"{row.bits_per_byte:.4f}" if math.isfinite(row.loss) else "–",
                "use": reasons.get(row.id, "learning rate" if row.role == "bracket" else "fits"),
            }
        )
    return made


def comparison_rows(ours: Analysis, theirs: Analysis) -> list[dict[str, str]]:
    """Lowest loss of each common budget in bits per byte, ours over theirs."""
    if isinstance(ours.isoflop, Refusal) or isinstance(theirs.isoflop, Refusal):
        return []
    other = {budget.budget: budget for budget in theirs.isoflop.budgets}
    rows = []
    for budget in ours.isoflop.budgets:
        if budget.budget in other:
            mine, their = (min(b.loss) / math.log(2) for b in (budget, other[budget.budget]))
            row = {
                "budget": scientific(budget.budget),
                "mine": f"{mine:.4f}",
                "theirs": f"{their:.4f}",
                "change": f"{100 * (mine / their - 1):+.1f}%",
            }
            rows.append(row)
    return rows
