"""Writes the report of a grid: one file that holds the figures, the tables and what is needed to check them."""

import pathlib
from typing import Any

from lm.analysis import analysis as analysis_lib
from lm.errors import UserError
from lm.report import checklist, records, tables
from lm.report.pictures import draw
from lm.scaling.page import html
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
        tables=tables,
        analysis=analysis,
        written=gate.read_forecast(root),
        headline=tables.headline(analysis),
        exponents=tables.exponent_rows(analysis),
        oracle=tables.oracle_rows(analysis.oracle),
        conventions=tables.convention_rows(analysis),
        cells=tables.cell_rows(rows, analysis),
        budgets=tables.budget_rows(analysis),
        comparison=_comparisons(study, root),
        verbatim=records.verbatim_rows(study["data"]),
        data=records.data_rows(study["data"]),
        environment=records.environment_rows(study, rows, analysis),
        checklist=checklist.fill(study, rows, analysis),
    )


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
