"""Makes the table rows of a grid's report that hold what was measured: cells, noise, the forecast and its score."""

import math
from collections.abc import Sequence
from typing import Optional

from lm.analysis.analysis import Analysis
from lm.analysis.score import Score
from lm.scaling.intervals.noise import NoiseModel
from lm.scaling.results import Refusal
from lm.scaling.words import scientific, si
from lm.study.rows import Row

# conventions of N and C in words
N_NAMES = {"total": "all", "non_embedding": "non-embedding", "matmul": "matmul"}
C_NAMES = {"6nd": "6ND", "matmul_full": "matmul + full attention", "matmul_causal": "matmul + causal attention", "xla": "XLA's count"}
PARTS = ("noise", "parameters", "discrepancy")  # of a forecast's interval


def percent(value: Optional[float], digits: int = 1) -> str:
    return "–" if value is None else f"{100 * value:.{digits}f}%"


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


def replica_rows(analysis: Analysis) -> list[dict[str, str]]:
    """Returns the cells that sigma(C) was measured on."""
    cells = analysis.noise.cells if isinstance(analysis.noise, NoiseModel) else ()
    return [{"budget": scientific(cell.budget), "n": si(cell.n, 3), "runs": str(cell.dof + 1), "sd": percent(cell.sd, 2)} for cell in cells]


def shape_rows(analysis: Analysis) -> list[dict[str, str]]:
    """Returns how far the cells that share a value of a shape field lie off the parabolas."""
    classes = () if isinstance(analysis.shape_classes, Refusal) else analysis.shape_classes
    return [
        {"class": f"{c.field} = {c.value}", "cells": str(c.cells), "error": f"{c.mean_error:+.2%}", "z": f"{c.z:+.1f}"} for c in classes
    ]


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
