"""Fits the exponents under every way of counting N and C.

Budgets are planned in one convention. Under another one the cells of a budget do not share a C, so that approach 2 reads each size's end
losses at common values of C instead of grouping by the label.
"""

import dataclasses
from collections.abc import Sequence
from typing import Union

from lm.analysis.runs import missing_convention, runs_of
from lm.scaling.approaches import isoflop, parametric, profiles
from lm.scaling.fitted_law import FittedLaw
from lm.scaling.intervals.noise import NoiseModel
from lm.scaling.results import Answer, Refusal, result
from lm.scaling.runs import Runs
from lm.scaling.settings import AnalysisSettings
from lm.study.rows import Row

N_CONVENTIONS = ("total", "non_embedding", "matmul")
C_CONVENTIONS = ("6nd", "matmul_full", "matmul_causal", "xla")


@result
class ConventionRow:
    """Exponents of N* and D* under one pair of conventions: approach 2, and approach 3's path at C as counted."""

    n: str
    c: str
    grouping: str  # "planned budgets" or "interpolated in C"
    isoflop_a: Answer
    isoflop_b: Answer
    parametric_a: Answer
    parametric_b: Answer


def profiles_of(cells: Runs, settings: AnalysisSettings) -> Union[list[profiles.Profile], Refusal]:
    """Returns the profiles under the settings' convention of C."""
    if settings.c == settings.planned_c:
        return profiles.by_budget(cells)
    assert cells.budget is not None  # the rows of a study have budgets
    return profiles.interpolated(cells, len(set(cells.budget.tolist())))


def convention_table(
    rows: Sequence[Row], noise: Union[NoiseModel, Refusal], settings: AnalysisSettings, own: Union[FittedLaw, Refusal]
) -> tuple[ConventionRow, ...]:
    """Fits every pair of conventions that the runs record; `own` is the law under the settings' convention of N."""
    table: list[ConventionRow] = []
    for n in N_CONVENTIONS:
        missing = missing_convention(rows, n, settings.planned_c)
        if missing is not None:
            table += [ConventionRow(n, c, _grouping(c, settings), missing, missing, missing, missing) for c in C_CONVENTIONS]
            continue
        law = own if n == settings.n else _law(rows, noise, dataclasses.replace(settings, n=n))
        table += [_row(rows, law, noise, dataclasses.replace(settings, n=n, c=c)) for c in C_CONVENTIONS]
    return tuple(table)


def _law(rows: Sequence[Row], noise: Union[NoiseModel, Refusal], settings: AnalysisSettings) -> Union[FittedLaw, Refusal]:
    """Fits the law under another convention of N; a Refusal where its exponents mean nothing."""
    cells = runs_of(rows, settings.n, settings.planned_c, settings.planned_c).cells()
    law = parametric.fit_law(cells, noise, settings, settings.table_draws, "main")
    return law if isinstance(law, Refusal) else parametric.unidentified(law, settings) or law


def _row(
    rows: Sequence[Row],
    law: Union[FittedLaw, Refusal],
    noise: Union[NoiseModel, Refusal],
    settings: AnalysisSettings,
) -> ConventionRow:
    grouping = _grouping(settings.c, settings)
    missing = missing_convention(rows, settings.n, settings.c)
    if missing is not None:
        return ConventionRow(settings.n, settings.c, grouping, missing, missing, missing, missing)
    cells = runs_of(rows, settings.n, settings.c, settings.planned_c).cells()
    two = isoflop_exponents(cells, noise, settings)
    return ConventionRow(settings.n, settings.c, grouping, *two, *parametric.path_exponents(law, cells))


def _grouping(c: str, settings: AnalysisSettings) -> str:
    return "planned budgets" if c == settings.planned_c else "interpolated in C"


def isoflop_exponents(cells: Runs, noise: Union[NoiseModel, Refusal], settings: AnalysisSettings) -> tuple[Answer, Answer]:
    """Returns approach 2's exponents."""
    made = profiles_of(cells, settings)
    if isinstance(made, Refusal):
        return made, made
    got, _ = isoflop.fit_isoflop(made, cells, noise, settings)
    return got.a, got.b
