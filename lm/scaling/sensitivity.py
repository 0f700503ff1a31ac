"""How the exponent a of N* ~ C^a moves with the choices of the analysis: one change at a time from the analysis that was chosen.

The changes are the objective, Huber's delta, the curve and the regression of approach 2, filters, and the convention of N. Published tables
show shifts of a by .05 and more from each of them (Porian et al. 2024, table 1; Czech et al. 2026), more than the intervals printed with a.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Optional

import numpy as np

from lm.scaling import diagnostics
from lm.scaling.approaches import curves, isoflop, parametric, profiles
from lm.scaling.filters import Between, Filter, WithoutHighest
from lm.scaling.fits.objectives import AbsoluteLog, HuberLog, Objective, SquaredLog, SquaredRaw
from lm.scaling.fitted_law import fit_runs, rising
from lm.scaling.intervals.noise import fit_noise
from lm.scaling.intervals.resampling import Resampling
from lm.scaling.laws.law import Law
from lm.scaling.results import Answer, Estimate, Refusal, result
from lm.scaling.runs import Runs
from lm.scaling.settings import AnalysisSettings

OBJECTIVES: dict[str, Objective] = {"huber": HuberLog(), "squared_log": SquaredLog(), "squared_raw": SquaredRaw(), "l1": AbsoluteLog()}
DELTAS = (1e-4, 1e-3, 1e-2, 1e-1)
REGRESSIONS = ("plain", "weighted")
DRAWS = 200  # at most, behind the interval of a change
HIGHEST = 0.02  # share of the rows that is left out for their high losses
CONVENTION = "N by "  # what the inputs of further conventions of N are called


@result
class Variant:
    """The exponent a under one change of approach 2 or 3: `what` is the kind of the change, `choice` what it changes to.

    `difference` is from a as chosen, and `outside` says that a lies outside the interval of that. The first variant of an approach is the
    analysis as chosen.
    """

    approach: int
    what: str
    choice: str
    rows: int
    a: Answer
    difference: Optional[float]
    outside: bool


@dataclasses.dataclass(frozen=True)
class Chosen:
    """The analysis that was chosen."""

    law: Law
    objective: Objective
    resampling: Resampling
    filters: tuple[Filter, ...]
    isoflop: AnalysisSettings

    @property
    def draws(self) -> int:
        return min(self.isoflop.draws, DRAWS)


def sensitivity(every: Runs, chosen: Chosen, by_law: Optional[Answer], by_minima: Optional[Answer]) -> tuple[Variant, ...]:
    """Repeats the analysis with one change at a time.

    Args:
      every: the table before its filters; inputs named "N by ..." are further conventions of N.
      by_law: a of approach 3 as chosen; None where it is not asked for, or the law splits no compute.
      by_minima: a of approach 2 as chosen; None where it is not asked for.
    """
    kept = _filtered(every, chosen.filters)
    found: list[Variant] = []
    if by_law is not None:
        found += _judged(_of_law(every, kept, chosen), by_law, 3, len(kept))
    if by_minima is not None:
        found += _judged(_of_minima(every, kept, chosen), by_minima, 2, len(kept))
    return tuple(found)


Change = tuple[str, str, Runs, Answer]


def _judged(changes: Iterator[Change], base: Answer, approach: int, rows: int) -> list[Variant]:
    found = [Variant(approach, "as chosen", "", rows, base, None, False)]
    for what, choice, runs, a in changes:
        difference, outside = None, False
        if isinstance(a, Estimate) and isinstance(base, Estimate):
            difference = a.value - base.value
            outside = base.low is not None and not base.covers(a.value)
        found.append(Variant(approach, what, choice, len(runs), a, difference, outside))
    return found


def _of_law(every: Runs, kept: Runs, chosen: Chosen) -> Iterator[Change]:
    for name, objective in OBJECTIVES.items():
        if type(objective) is not type(chosen.objective):
            yield "objective", name, kept, law_exponent(kept, chosen, objective)
    if isinstance(chosen.objective, HuberLog):
        for delta in DELTAS:
            if delta != chosen.objective.delta:
                yield "delta", f"{delta:g}", kept, law_exponent(kept, chosen, HuberLog(delta))
    for what, choice, runs in _rows(every, kept, chosen.filters):
        yield what, choice, runs, law_exponent(runs, chosen, chosen.objective)


def _of_minima(every: Runs, kept: Runs, chosen: Chosen) -> Iterator[Change]:
    for curve in curves.NAMES:
        if curve != chosen.isoflop.curve:
            yield "curve", curve, kept, minima_exponent(kept, dataclasses.replace(chosen.isoflop, curve=curve, draws=chosen.draws))
    for regression in REGRESSIONS:
        if regression != chosen.isoflop.regression:
            settings = dataclasses.replace(chosen.isoflop, regression=regression, draws=chosen.draws)
            yield "regression", regression, kept, minima_exponent(kept, settings)
    settings = dataclasses.replace(chosen.isoflop, draws=chosen.draws)
    for what, choice, runs in _rows(every, kept, chosen.filters):
        yield what, choice, runs, minima_exponent(runs, settings)


def _rows(every: Runs, kept: Runs, filters: Sequence[Filter]) -> Iterator[tuple[str, str, Runs]]:
    """Yields the table with one filter less, with one filter more where that leaves out a row, and under other conventions of N."""
    for i, one in enumerate(filters):
        yield "filter", f"not: {one.name}", _filtered(every, [*filters[:i], *filters[i + 1 :]])
    for choice, runs in _fewer(kept):
        if 0 < len(runs) < len(kept):
            yield "filter", choice, runs
    for name in kept.inputs:
        if name.startswith(CONVENTION):
            yield "convention of N", name.removeprefix(CONVENTION), under(kept, name)


def _fewer(kept: Runs) -> Iterator[tuple[str, Runs]]:
    count = max(1, round(HIGHEST * len(kept)))
    highest = WithoutHighest(count)
    yield highest.name, _filtered(kept, [highest])
    ratio = Between("M", 1.0, 1000.0)
    yield "D / N from 1 to 1000", _filtered(kept, [ratio])
    compute = kept.c if kept.budget is None else kept.budget
    if kept.budget is not None and len(set(compute.tolist())) > 1:
        yield "without the lowest budget", kept.take(compute > compute.min())
        yield "without the highest budget", kept.take(compute < compute.max())
    else:
        low, high = np.quantile(compute, [0.1, 0.9])
        yield "without the lowest tenth in C", kept.take(compute >= low)
        yield "without the highest tenth in C", kept.take(compute <= high)


def _filtered(runs: Runs, filters: Sequence[Filter]) -> Runs:
    for one in filters:
        runs = runs.take(one.keep(runs))
    return runs


def under(runs: Runs, name: str) -> Runs:
    """Returns the table with the input `name` in the place of N, and with what follows from N: D / N, and C where it is 6 N D."""
    n = runs.inputs[name]
    inputs = dict(runs.inputs) | {"N": n, "M": runs.d / n}
    return dataclasses.replace(runs, inputs=inputs if runs.counted else inputs | {"C": 6 * n * runs.d})


def law_exponent(runs: Runs, chosen: Chosen, objective: Objective) -> Answer:
    """Returns a of N* ~ C^a by the law fitted to these rows; a Refusal where they do not determine it."""
    if refused := _refused(diagnostics.before(runs, chosen.law)):
        return refused
    s = chosen.isoflop
    made = fit_runs(runs, chosen.law, objective, chosen.resampling, chosen.draws, s.level, s.seed)
    if isinstance(made, Refusal):
        return made
    return rising(made) or parametric.path_exponents(made, runs.cells())[0]


def minima_exponent(runs: Runs, settings: AnalysisSettings) -> Answer:
    """Returns a of N* ~ C^a by the minima of approach 2 for these rows."""
    cells = runs.cells()
    return isoflop.fit_isoflop(profiles.by_budget(cells), cells, fit_noise(runs), settings)[0].a


def _refused(found: Sequence[diagnostics.Found]) -> Optional[Refusal]:
    return next((one for one in found if isinstance(one, Refusal)), None)
