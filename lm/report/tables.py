"""Makes the sentences and the table rows of a grid's report from its analysis."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Optional, Union

from lm.analysis.analysis import Analysis
from lm.analysis.brackets import Bracket
from lm.analysis.oracle_fit import OracleComparison
from lm.analysis.score import Score
from lm.scaling.approaches.isoflop import Isoflop
from lm.scaling.approaches.parametric import Parametric
from lm.scaling.intervals.noise import NoiseModel
from lm.scaling.results import Answer, Estimate, Refusal
from lm.scaling.words import scientific, si
from lm.study.rows import Row

PARTS = ("noise", "parameters", "discrepancy")  # of a forecast's interval


def number(answer: Optional[Answer], form: str = ".3f") -> str:
    """Returns a number with its interval, '.512 (.480 to .544)', or the reason why there is none."""
    if answer is None:
        return "not fitted"
    if isinstance(answer, Refusal):
        return f"refused ({answer.kind.replace('_', ' ')}): {answer.reason}"
    if answer.low is None or answer.high is None:
        why = f"; interval refused: {answer.refused.reason}" if answer.refused else ""
        return f"{answer.value:{form}}{why}"
    return f"{answer.value:{form}} ({answer.low:{form}} to {answer.high:{form}})"


def count(answer: Answer) -> str:
    """Returns a count of parameters or tokens with its interval, '31k (28k to 35k)'."""
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
    """Returns the study's answer in a few sentences."""
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
    """Returns a row for each approach: exponents with intervals, or the refusal."""
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
    """Returns a row for each budget of approach 2: the minimum, the noise, and whether the minimum is established."""
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
    """Returns the same answer times 100."""
    if isinstance(answer, Refusal):
        return answer
    low, high = (None if bound is None else 100 * bound for bound in (answer.low, answer.high))
    return dataclasses.replace(answer, value=100 * answer.value, low=low, high=high)


def cell_rows(rows: Sequence[Row], analysis: Analysis) -> list[dict[str, str]]:
    """Returns a row for each cell, whether it is used or not."""
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
    """Returns the lowest loss of each budget that two studies share, in bits per byte, and ours over theirs."""
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


def noise_rows(analysis: Analysis) -> list[dict[str, str]]:
    """Returns sigma(C) at each budget with its interval, and how many runs measured it there."""
    cells = analysis.noise.cells if isinstance(analysis.noise, NoiseModel) else ()
    rows = []
    for budget, sigma in sorted(analysis.sigma.items(), key=lambda item: float(item[0])):
        here = [cell for cell in cells if f"{cell.budget:.6g}" == budget]
        rows.append(
            {
                "budget": scientific(float(budget)),
                "sigma": number(as_percent(sigma), ".2f"),
                "cells": str(len(here)),
                "dof": str(sum(cell.dof for cell in here)),
            }
        )
    return rows


def replica_rows(analysis: Analysis) -> list[dict[str, str]]:
    """Returns the cells that sigma(C) was measured on."""
    cells = analysis.noise.cells if isinstance(analysis.noise, NoiseModel) else ()
    return [{"budget": scientific(cell.budget), "n": si(cell.n, 3), "runs": str(cell.dof + 1), "sd": percent(cell.sd, 2)} for cell in cells]


def bracket_table(analysis: Analysis) -> dict[str, list]:
    """Returns a table's head, keys and rows: the loss at each learning rate over the rule's, the best rate, and the rule's gap."""
    factors = sorted({_factor(f) for bracket in analysis.brackets for f in bracket.factors}, key=float)
    head = ["N", "budget (FLOPs)", *(f"loss at {f} × the rule's rate" for f in factors), "best rate over the rule's", "gap of the rule (%)"]
    rows = [_bracket(bracket, factors) for bracket in analysis.brackets]
    return {"head": head, "keys": ["n", "budget", *factors, "best", "gap"], "rows": rows}


def _bracket(bracket: Bracket, factors: list[str]) -> dict[str, str]:
    measured = {_factor(f): loss for f, loss in zip(bracket.factors, bracket.loss, strict=True)}
    rule = measured["1"]
    losses = {
        f: f"{measured[f]:.4f}" + ("" if f == "1" else f" ({measured[f] / rule - 1:+.2%})") if f in measured else "–" for f in factors
    }
    return {
        "n": si(bracket.n, 3),
        "budget": scientific(bracket.budget),
        **losses,
        "best": _short(bracket.best_factor),
        "gap": number(as_percent(bracket.gap), ".2f"),
    }


def _factor(value: float) -> str:
    return f"{value:.3g}"


def _short(answer: Answer) -> str:
    """Returns a number in brief; the next column holds the reason of a refusal."""
    if isinstance(answer, Refusal):
        return f"refused ({answer.kind})"
    return f"{answer.value:.2f}; interval refused" if answer.refused else number(answer, ".2f")


def parameter_rows(analysis: Analysis) -> list[dict[str, str]]:
    """Returns the parameters of approach 3 with intervals, or the reason why a parameter has none."""
    fitted = analysis.parametric
    if isinstance(fitted, Refusal):
        return []
    return [{"name": name, "value": number(answer, ".4g")} for name, answer in fitted.parameters.items()]


def shape_rows(analysis: Analysis) -> list[dict[str, str]]:
    """Returns how far the cells that share a value of a shape field lie off the parabolas."""
    classes = () if isinstance(analysis.shape_classes, Refusal) else analysis.shape_classes
    return [
        {"class": f"{c.field} = {c.value}", "cells": str(c.cells), "error": f"{c.mean_error:+.2%}", "z": f"{c.z:+.1f}"} for c in classes
    ]


def shape_refusal(analysis: Analysis) -> str:
    return analysis.shape_classes.reason if isinstance(analysis.shape_classes, Refusal) else "All cells have one shape."


def parametric_refusal(analysis: Analysis) -> Optional[str]:
    return None if isinstance(analysis.parametric, Parametric) else number(analysis.parametric)


def forecast_rows(analysis: Analysis) -> list[dict[str, str]]:
    """Returns the predicted and the measured loss of each cell of the largest budget."""
    if not isinstance(analysis.score, Score):
        return []
    return [
        {
            "n": si(cell.n, 3),
            "predicted": f"{cell.predicted:.4f}",
            "interval": "–" if cell.low is None or cell.high is None else f"{cell.low:.4f} to {cell.high:.4f}",
            "measured": f"{cell.measured:.4f}",
            "error": f"{100 * cell.error:+.2f}%",
            "z": "–" if cell.z is None else f"{cell.z:+.1f}",
            "covered": "yes" if cell.covered else "no",
        }
        for cell in analysis.score.cells
    ]


def star_rows(analysis: Analysis) -> list[dict[str, str]]:
    """Returns the optimum of the largest budget by forecasts and baselines, and by approach 2 on the measured cells."""
    made, score = analysis.forecast, analysis.score
    if made is None or not isinstance(score, Score):
        return []
    measured = next((b for b in _budgets(analysis) if b.budget == made.budget), None)
    rows = [
        ("approach 3", count(made.n_star), number(made.loss_star, ".4f"), score.star_error),
        ("approach 2's line", count(made.n_star_isoflop), "–", None),
        ("baseline: power law of the lowest loss", "–", f"{made.baseline_power_law:.4f}", score.power_law_star_error),
        ("baseline: lowest loss of the budget before", "–", f"{made.baseline_last_budget:.4f}", score.last_budget_star_error),
    ]
    if measured is not None:
        rows.append(("measured (approach 2)", count(measured.n_star), number(measured.loss_star, ".4f"), None))
    return [{"by": by, "n": n, "loss": loss, "error": "–" if error is None else f"{error:+.2%}"} for by, n, loss, error in rows]


def _budgets(analysis: Analysis) -> tuple[Any, ...]:
    return analysis.isoflop.budgets if isinstance(analysis.isoflop, Isoflop) else ()


def part_rows(analysis: Analysis) -> list[dict[str, str]]:
    """Returns the three parts behind the interval of each forecast, and how far the law's own loss was moved."""
    cells = () if analysis.forecast is None else analysis.forecast.cells
    return [
        {"n": si(cell.n, 3), "shift": f"{cell.shift:+.2%}"} | {name: f"{cell.parts.get(name, 0.0):.2%}" for name in PARTS}
        for cell in cells
        if cell.parts
    ]


def backtest_rows(analysis: Analysis) -> list[dict[str, str]]:
    """Returns how forecasts from fewer budgets of this study fared, by quantity, distance and method."""
    return [
        {
            "quantity": group.quantity, "factor": f"{group.factor:g}", "method": group.method, "error": f"{group.tested.error:.2%}",
            "bias": f"{group.tested.bias:+.2%}", "held": f"{group.tested.held[1]:.0%}", "score": f"{100 * group.tested.score:.1f}",
        }
        for group in (analysis.backtest.groups if analysis.backtest else ())
    ]  # fmt: skip


def forecast_refusal(analysis: Analysis) -> str:
    """Returns the reason why the forecast has no score."""
    if analysis.forecast is None:
        return "No forecast has been written."
    return number(analysis.score) if isinstance(analysis.score, Refusal) else "The forecast has not been scored."


def oracle_rows(made: Optional[OracleComparison]) -> list[dict[str, str]]:
    """Returns the exponents fitted to the losses, to the losses less the oracle's, and those of ideal learners."""
    if made is None:
        return []
    table = []
    for name in ("alpha", "beta"):
        fitted, above = getattr(made, name), made.reducible[name]
        table.append({"name": name, "fitted": number(fitted), "above": number(above), "ideal": f"{made.ideal[name]:.2f}"})
    return table
