"""Writes the report of a grid: one file that holds the figures, the tables and what is needed to check them."""

import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from lm.analysis import analysis as analysis_lib
from lm.analysis import summary
from lm.analysis.analysis import Analysis
from lm.analysis.score import Score
from lm.errors import UserError, counted
from lm.report import answers, checklist, records, tables
from lm.report.pictures import draw
from lm.scaling.page import html
from lm.scaling.page.cells import Reasons
from lm.scaling.results import Refusal
from lm.scaling.words import scientific
from lm.study import directory, gate
from lm.study.rows import TEXT, Row, one_likelihood, read_rows


def write(root: pathlib.Path) -> pathlib.Path:
    """Writes ROOT/report.html and ROOT/figures/ from study.json, the runs and fit.json, and returns the page's path."""
    study = directory.open_study(root)
    rows = _of_text(root)
    analysis = analysis_lib.read(root / "fit.json")
    return html.save(
        root / "report.html",
        pathlib.Path(__file__).with_name("page.html"),
        root / "figures",
        draw(root / "figures", rows, analysis),
        study=study,
        made=records.made(f"{counted(len(rows), 'run')}, {_budgets(rows)}"),
        tables=tables,
        analysis=analysis,
        written=gate.read_forecast(root),
        headline=answers.headline(analysis),
        cells=tables.cell_rows(rows, analysis),
        comparison=_comparisons(study, root),
        verbatim=records.verbatim_rows(study["data"]),
        data=records.data_rows(study["data"]),
        environment=records.environment_rows(study, rows, analysis),
        checklist=checklist.fill(study, rows, analysis),
        **_answers(analysis),
    )


def _budgets(rows: Sequence[Row]) -> str:
    budgets = sorted({row.budget for row in rows})
    low, high = scientific(budgets[0]), scientific(budgets[-1])
    return f"{counted(len(budgets), 'budget')} of {low if len(budgets) == 1 else f'{low} to {high}'} FLOPs"


def _answers(analysis: Analysis) -> dict[str, Any]:
    """Returns the tables and sentences that hold answers, by name. A reason for a refusal stands in the first that needs it."""
    reasons = Reasons(*analysis.failures, *(caution.message for caution in analysis.cautions))

    def refused(part: Any) -> str:
        """Returns why a part is missing, or that it was said above; nothing for a part that is there."""
        if not isinstance(part, Refusal):
            return ""
        return "".join(f"Refused: {reason}." for reason in reasons.new([part.reason])) or "Refused, for a reason that stands above."

    makers: dict[str, Callable[[], Any]] = {
        "recommended": lambda: answers.recommended(analysis, reasons),
        "minima": lambda: answers.minima(analysis, reasons) or refused(analysis.isoflop),
        "exponents": lambda: answers.exponents(analysis, reasons),
        "approaches": lambda: answers.approaches(analysis, reasons),
        "unscored": lambda: refused(analysis.score),
        "regret": lambda: _regrets(analysis.score, reasons),
        "stars": lambda: answers.stars(analysis, reasons),
        "parameters": lambda: answers.parameters(analysis, reasons) or refused(analysis.parametric),
        "oracle": lambda: answers.oracle(analysis, reasons),
        "shapes": lambda: refused(analysis.shape_classes),
        "noise": lambda: answers.noise(analysis, reasons),
        "brackets": lambda: answers.brackets(analysis, reasons),
        "conventions": lambda: answers.conventions(analysis, reasons),
    }
    return {name: make() for name, make in makers.items()}


def _regrets(made: Any, reasons: Reasons) -> str:
    """Returns the sentence on what training at the forecast N* would have cost."""
    if not isinstance(made, Score):
        return ""
    found = {3: made.regret, 2: made.regret_isoflop}
    said = summary.regrets({by: None if isinstance(value, Refusal) else value for by, value in found.items()})
    why = reasons.new([value.reason for value in found.values() if isinstance(value, Refusal)])
    return " ".join([said[0].upper() + said[1:] + ".", *(f"Refused: {reason}." for reason in why)])


def _comparisons(study: dict[str, Any], root: pathlib.Path) -> list[dict[str, Any]]:
    """Returns the lowest losses beside those of the studies to compare with, in bits per byte; studies that have not run are left out."""
    found = []
    for name in study["definition"].get("compare_with", ()):
        other = root.parent / name
        if (other / "fit.json").exists() and _of_text(other):
            ours, theirs = (analysis_lib.read(folder / "fit.json") for folder in (root, other))
            found.append({"name": name, "rows": tables.comparison_rows(ours, theirs)})
    return found


def _of_text(root: pathlib.Path) -> list[Row]:
    """Returns a study's rows. Raises UserError unless their losses are of text, which the page's axes and units are made for."""
    rows = read_rows(root)
    kind = one_likelihood([row for row in rows if row.completed])
    if kind != TEXT:
        raise UserError(f"{root}: the report is made for losses of text, and these are of {kind}; `fit --json` prints the numbers")
    return rows
