"""Analyses a study: rows in, `Analysis` out, which holds all that `fit --json` prints and the report draws.

`analyse` calls the three approaches: lm.analysis.envelope, lm.scaling.approaches.isoflop and lm.scaling.approaches.parametric. Each gives
its exponents as an `Estimate`, a number with its interval.
"""

import dataclasses
import math
import pathlib
from collections.abc import Sequence
from typing import Any, Optional, Union

import jax
import numpy as np

from lm.analysis.brackets import Bracket, fit_brackets, without_gaps
from lm.analysis.budget_checks import BudgetCheck, ShapeClass, check_budgets, shape_classes, without_runs
from lm.analysis.conventions import ConventionRow, convention_table, profiles_of
from lm.analysis.envelope import Envelope, fit_envelope
from lm.analysis.forecast import Forecast
from lm.analysis.oracle import LeastLoss
from lm.analysis.oracle_fit import OracleComparison, compare
from lm.analysis.recommend import Recommendation, recommend
from lm.analysis.runs import Exclusion, missing_convention, runs_of, usable
from lm.analysis.score import Score, score
from lm.errors import UserError, counted
from lm.scaling import diagnostics, results
from lm.scaling.approaches import profiles
from lm.scaling.approaches.isoflop import Isoflop, fit_isoflop
from lm.scaling.approaches.parametric import Parametric, described, fit_law
from lm.scaling.backtest.backtest import TableBacktest, backtest_table
from lm.scaling.fits.objectives import HuberLog
from lm.scaling.intervals.noise import NoiseModel, fit_noise
from lm.scaling.results import Caution, Refusal, result
from lm.scaling.runs import Runs
from lm.scaling.settings import AnalysisSettings
from lm.scaling.words import si
from lm.study.rows import Row, one_likelihood

SCHEMA = 3


@result
class Analysis:
    """A study's results. Numbers that the runs do not support are Refusals."""

    schema: int
    settings: dict[str, Any]
    used: tuple[str, ...]  # ids of the runs behind the numbers
    excluded: tuple[Exclusion, ...]
    noise: Union[NoiseModel, Refusal]
    sigma: dict[str, Union[results.Estimate, Refusal]]  # planned budget -> relative seed sd
    envelope: Union[Envelope, Refusal]  # approach 1
    isoflop: Union[Isoflop, Refusal]  # approach 2
    parametric: Union[Parametric, Refusal]  # approach 3
    checks: tuple[BudgetCheck, ...]
    shape_classes: Union[tuple[ShapeClass, ...], Refusal]
    brackets: tuple[Bracket, ...]
    isoflop_without_gaps: Union[Isoflop, Refusal]  # approach 2 with the learning-rate rule's gaps subtracted
    conventions: tuple[ConventionRow, ...]
    forecast: Optional[Forecast]
    score: Union[Score, Refusal, None]
    cautions: tuple[Caution, ...]
    versions: dict[str, str]
    oracle: Optional[OracleComparison] = None  # for text whose least loss is known
    backtest: Optional[TableBacktest] = None  # of forecasts from fewer budgets
    recommended: tuple[Recommendation, ...] = ()  # beyond the largest budget

    @property
    def failures(self) -> tuple[str, ...]:
        """One line per budget whose minimum is not established; empty when the study stands."""
        if isinstance(self.isoflop, Refusal):
            return (self.isoflop.reason,)
        failed = [(f"{check.budget:.3g} FLOPs", "; ".join(check.reasons)) for check in self.checks if not check.passed]
        return tuple(why if f"at {budget}" in why else f"{budget}: {why}" for budget, why in failed)

    def summary(self) -> dict[str, Any]:
        """Returns what `fit --json` prints: the three approaches' exponents with intervals or refusals, sigma(C), the forecast's error."""
        approaches: dict[str, Any] = {}
        for name in ("envelope", "isoflop", "parametric"):
            made = getattr(self, name)
            approaches[name] = _exponents(made)
            kinds = {Isoflop: ("",), Parametric: ("", "_counted")}.get(type(made), ())
            for kind in kinds:
                fields = (f"{exponent}{kind}{ending}" for exponent in "ab" for ending in ("", "_with_error"))
                approaches[name] |= {field: getattr(made, field) for field in fields}
        return results.encode(
            {
                "exponents": approaches, "exponents_without_learning_rate_gaps": _exponents(self.isoflop_without_gaps),
                "sigma": self.sigma, "checks": self.checks, "failures": self.failures, "forecast": _forecast_summary(self.score),
                "recommended": self.recommended, "conventions": self.conventions, "excluded": self.excluded, "cautions": self.cautions,
            }
            | ({} if self.oracle is None else {"oracle": self.oracle})
        )  # fmt: skip


def to_json(analysis: Analysis) -> str:
    return results.to_json(analysis)


def read(path: pathlib.Path) -> Analysis:
    """Reads the analysis in a fit.json; UserError for one that another version wrote, or that is broken."""
    try:
        made = results.from_json(path.read_text(encoding="utf-8"))
    except (ValueError, KeyError, TypeError):  # not JSON; a result that this version does not know; other fields
        made = None
    if not isinstance(made, Analysis) or made.schema != SCHEMA:
        raise UserError(f"{path} was not written by this version of the program: run the `fit` verb of its study again")
    return made


def analyse(
    rows: Sequence[Row],
    settings: AnalysisSettings = AnalysisSettings(),
    forecast: Optional[Forecast] = None,
    least: Optional[LeastLoss] = None,
) -> Analysis:
    """Fits everything to the rows of a study; the same rows and settings give the same digits on the same machine."""
    used, excluded = usable(rows)
    if not used:
        raise UserError("no run of the study has completed: `status` says what is missing, `run` trains it")
    one_likelihood(used)
    for convention in (settings.planned_c, settings.c):
        if missing := missing_convention(used, settings.n, convention):
            raise UserError(f"{missing.reason}; choose another convention of the analysis")
    runs = runs_of(used, settings.n, settings.c, settings.planned_c)
    noise, cells = fit_noise(runs, settings), runs.cells()
    made = profiles_of(cells, settings)
    isoflop, minima = (made, made) if isinstance(made, Refusal) else fit_isoflop(made, cells, noise, settings)
    law = fit_law(cells, noise, settings, settings.draws, "main")
    parametric = (
        law if isinstance(law, Refusal) else described(law, cells, noise, settings, lambda fitted, a: diagnostics.support(fitted, cells, a))
    )
    usable_law = parametric.a if isinstance(parametric, Parametric) and isinstance(parametric.a, Refusal) else law
    brackets = fit_brackets(used, noise, settings)
    classes = shape_classes(profiles.by_budget(cells), cells, noise, settings)
    checked = () if isinstance(isoflop, Refusal) else check_budgets(isoflop, settings) + without_runs(rows, used)
    return Analysis(
        schema=SCHEMA, settings=dataclasses.asdict(settings), used=tuple(row.id for row in used), excluded=tuple(excluded), noise=noise,
        sigma={f"{b:.6g}": noise if isinstance(noise, Refusal) else noise.at(c) for b, c in _budgets(cells)},
        envelope=fit_envelope(used, noise, settings), isoflop=isoflop, parametric=parametric, checks=checked, shape_classes=classes,
        brackets=brackets, isoflop_without_gaps=_adjusted(cells, brackets, isoflop, noise, settings),
        conventions=convention_table(used, noise, settings, usable_law), forecast=forecast, score=_score(forecast, used, isoflop, settings),
        cautions=_cautions(classes, parametric, checked) + _disagreement(isoflop, made, parametric, cells, settings),
        versions={"jax": jax.__version__, "numpy": np.__version__},
        oracle=None if least is None else compare(least, cells, parametric, noise, settings),
        backtest=backtest_table(runs, objective=HuberLog(settings.delta), seed=settings.seed),
        recommended=recommend(minima, usable_law, cells, noise, settings),
    )  # fmt: skip


def _adjusted(
    cells: Runs,
    brackets: Sequence[Bracket],
    isoflop: Union[Isoflop, Refusal],
    noise: Union[NoiseModel, Refusal],
    settings: AnalysisSettings,
) -> Union[Isoflop, Refusal]:
    """Fits approach 2 again, without the gaps of the learning-rate rule."""
    moved = isoflop if isinstance(isoflop, Refusal) else without_gaps(cells, brackets, isoflop)
    if isinstance(moved, Refusal):
        return moved
    made = profiles_of(moved, settings)
    return made if isinstance(made, Refusal) else fit_isoflop(made, moved, noise, settings)[0]


def _budgets(cells: Runs) -> list[tuple[float, float]]:
    """Returns every planned budget with the FLOPs that its cells have, in the convention of the plan."""
    assert cells.budget is not None  # the rows of a study have budgets
    return [(b, math.exp(cells.log_planned_c[cells.budget == b].mean())) for b in sorted(set(cells.budget.tolist()))]


def _score(
    forecast: Optional[Forecast], used: Sequence[Row], isoflop: Union[Isoflop, Refusal], settings: AnalysisSettings
) -> Union[Score, Refusal, None]:
    if forecast is None:
        return None
    budgets = () if isinstance(isoflop, Refusal) or settings.c != settings.planned_c else isoflop.budgets
    return score(forecast, used, next((b for b in budgets if b.budget == forecast.budget), None), settings)


def _cautions(
    classes: Union[tuple[ShapeClass, ...], Refusal],
    parametric: Union[Parametric, Refusal],
    checked: Sequence[BudgetCheck],
) -> tuple[Caution, ...]:
    found = [] if isinstance(parametric, Refusal) else list(parametric.cautions)
    for shape in () if isinstance(classes, Refusal) else classes:
        if shape.warned:
            text = f"cells with {shape.field} = {shape.value} lie {shape.z:+.1f} sigma ({shape.mean_error:+.2%}) off the parabolas"
            found.append(Caution("shape_class", text))
    for check in checked:
        if len(check.tied) > 1:
            sizes = ", ".join(si(n, 3) for n in check.tied)
            text = f"at {check.budget:.3g} FLOPs the lowest loss is a tie of {counted(len(check.tied), 'size')}: N = {sizes}"
            found.append(Caution("tied", text))
    return tuple(found)


def _disagreement(
    isoflop: Union[Isoflop, Refusal],
    profiled: Union[list[profiles.Profile], Refusal],
    parametric: Union[Parametric, Refusal],
    cells: Runs,
    settings: AnalysisSettings,
) -> tuple[Caution, ...]:
    """Warns of approaches and of curves whose exponents disagree."""
    if isinstance(isoflop, Refusal) or isinstance(profiled, Refusal):
        return ()
    third = None if isinstance(parametric, Refusal) else parametric.a_counted
    return diagnostics.exponents(isoflop, profiled, third, cells, settings.curve, settings.seed)


def _exponents(made: Union[Envelope, Isoflop, Parametric, Refusal]) -> Any:
    return made if isinstance(made, Refusal) else {"a": made.a, "b": made.b}


def _forecast_summary(made: Union[Score, Refusal, None]) -> Any:
    if not isinstance(made, Score):
        return made
    kept = ("mean_error", "mean_absolute_error", "aim", "met", "covered", "level", "coverage_p", "regret", "regret_isoflop",
            "power_law_error", "last_budget_error", "star_error", "power_law_star_error", "last_budget_star_error")  # fmt: skip
    return {name: getattr(made, name) for name in kept} | {"cells": len(made.cells)}
