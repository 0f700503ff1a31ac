"""Table rows of what the laws rest on: seed noise, learning-rate brackets, the fitted parameters, and the forecast."""

from typing import Any, Optional

from lm.analysis.analysis import Analysis
from lm.analysis.brackets import Bracket
from lm.analysis.oracle_fit import OracleComparison
from lm.analysis.score import Score
from lm.report.texts import as_percent, count, number, percent
from lm.scaling.approaches.isoflop import Isoflop
from lm.scaling.approaches.parametric import Parametric
from lm.scaling.intervals.noise import NoiseModel
from lm.scaling.page.style import scientific, si
from lm.scaling.results import Answer, Refusal


def noise_rows(analysis: Analysis) -> list[dict[str, str]]:
    """sigma(C) at each budget, with its interval, and how many runs measured it there."""
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
    """The cells behind sigma(C)."""
    cells = analysis.noise.cells if isinstance(analysis.noise, NoiseModel) else ()
    return [{"budget": scientific(cell.budget), "n": si(cell.n, 3), "runs": str(cell.dof + 1), "sd": percent(cell.sd, 2)} for cell in cells]


def bracket_table(analysis: Analysis) -> dict[str, list]:
    """Head, keys and rows: the loss at every rate over the rule's, the best rate and the rule's gap."""
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
    """A number whose refusal, where it has one, stands in the next column."""
    if isinstance(answer, Refusal):
        return f"refused ({answer.kind})"
    return f"{answer.value:.2f}; interval refused" if answer.refused else number(answer, ".2f")


def parameter_rows(analysis: Analysis) -> list[dict[str, str]]:
    """The parameters of approach 3 with intervals, or why a parameter has none."""
    fitted = analysis.parametric
    if isinstance(fitted, Refusal):
        return []
    return [{"name": name, "value": number(answer, ".4g")} for name, answer in fitted.parameters.items()]


def shape_rows(analysis: Analysis) -> list[dict[str, str]]:
    """How far the cells that share a value of a shape field lie off the parabolas."""
    classes = () if isinstance(analysis.shape_classes, Refusal) else analysis.shape_classes
    return [
        {"class": f"{c.field} = {c.value}", "cells": str(c.cells), "error": f"{c.mean_error:+.2%}", "z": f"{c.z:+.1f}"} for c in classes
    ]


def shape_refusal(analysis: Analysis) -> str:
    return analysis.shape_classes.reason if isinstance(analysis.shape_classes, Refusal) else "All cells have one shape."


def surface_refusal(analysis: Analysis) -> Optional[str]:
    return None if isinstance(analysis.parametric, Parametric) else number(analysis.parametric)


def forecast_rows(analysis: Analysis) -> list[dict[str, str]]:
    """Each cell of the largest budget: what was expected, and what was measured."""
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
    """The optimum of the largest budget: forecasts and baselines beside what approach 2 finds in the measured cells."""
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


def forecast_refusal(analysis: Analysis) -> str:
    """Why there is no score."""
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
