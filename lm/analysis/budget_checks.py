"""Checks each budget before its minimum is believed, finds sizes that are tied and shape classes that stand apart (numpy only)."""

import math
from collections.abc import Sequence
from typing import Any, Union

import numpy as np

from lm.analysis.runs import BRACKET
from lm.analysis.runs import size as size_of
from lm.scaling.approaches import curves
from lm.scaling.approaches.isoflop import Isoflop, IsoflopBudget
from lm.scaling.approaches.profiles import Profile
from lm.scaling.intervals.noise import NoiseModel
from lm.scaling.results import Refusal, result
from lm.scaling.runs import Runs
from lm.scaling.settings import AnalysisSettings
from lm.study.rows import Row

_SIDES = 2  # sizes that must rise on each side of the minimum


@result
class BudgetCheck:
    """The check of one budget: two sizes on each side of the minimum that lie above it by more than twice the noise, and an interval of
    the vertex inside the grid. `reasons` is empty where it passed.

    The noise is that of the size's own loss: sigma(C) / sqrt(seeds). The minimum that it is held against is the parabola's, whose sd is
    about half of that and which each size pulls along, so that in a budget of seven sizes the difference has .8 to 1.3 times that noise.
    """

    budget: float
    rising_left: int
    rising_right: int
    interval_inside: bool
    tied: tuple[float, ...]  # N of the sizes closer to the lowest than 2 sigma of the difference; the lowest is among them
    passed: bool
    reasons: tuple[str, ...]


@result
class ShapeClass:
    """Cells that share a value of a shape field: their mean residual from the parabolas, in its own standard deviations."""

    field: str
    value: int
    cells: int
    mean_error: float  # relative
    z: float
    warned: bool


def check_budgets(fitted: Isoflop, settings: AnalysisSettings) -> tuple[BudgetCheck, ...]:
    return tuple(_check(budget, settings) for budget in fitted.budgets)


def _check(budget: IsoflopBudget, settings: AnalysisSettings) -> BudgetCheck:
    if not budget.sd:
        why = budget.n_star.reason if isinstance(budget.n_star, Refusal) else "no seed noise was measured, so that nothing rises above it"
        return BudgetCheck(budget.budget, 0, 0, False, (), False, (why,))
    loss, n, sd = np.array(budget.loss), np.array(budget.n), np.array(budget.sd)
    best = int(np.argmin(loss))
    difference = np.sqrt(sd**2 + sd[best] ** 2)
    tied = tuple(n[(loss - loss[best] <= settings.noise_factor * difference)].tolist())
    if isinstance(budget.n_star, Refusal) or isinstance(budget.loss_star, Refusal):
        why = budget.n_star.reason if isinstance(budget.n_star, Refusal) else ""
        return BudgetCheck(budget.budget, 0, 0, False, tied, False, (why,))
    high = loss - budget.loss_star.value > settings.noise_factor * sd
    left, right = int(np.sum(high & (n < budget.n_star.value))), int(np.sum(high & (n > budget.n_star.value)))
    low, up = budget.n_star.low, budget.n_star.high
    inside = low is not None and up is not None and bool(n.min() < low and up < n.max())
    reasons = []
    for side, count in (("below", left), ("above", right)):
        if count < _SIDES:
            rise = f"with a loss above it by more than {settings.noise_factor:g} sigma"
            reasons.append(f"sizes {side} the minimum {rise}: {count}, and {_SIDES} are needed")
    if not inside:
        refused = budget.n_star.refused
        reasons.append(refused.reason if refused else "the interval of the minimum reaches the edge of the grid")
    return BudgetCheck(budget.budget, left, right, inside, tied, not reasons, tuple(reasons))


def without_runs(planned: Sequence[Row], used: Sequence[Row]) -> tuple[BudgetCheck, ...]:
    """Returns a failed check for every planned budget of which no run can be used."""
    known = {row.budget for row in used if row.role != BRACKET}
    failed = []
    for budget in sorted({row.budget for row in planned} - known):
        sizes = len({size_of(row) for row in planned if row.budget == budget})
        why = f"none of its {sizes} planned sizes has a run that fits may use"
        failed.append(BudgetCheck(budget, 0, 0, False, (), False, (why,)))
    return tuple(failed)


def shape_classes(
    profiles: Sequence[Profile], cells: Runs, noise: Union[NoiseModel, Refusal], settings: AnalysisSettings
) -> Union[tuple[ShapeClass, ...], Refusal]:
    """Averages residuals by shape field and value, over the budgets whose parabola has residual degrees of freedom.

    A class's mean residual sum v'r has variance v' (I - H) S (I - H)' v, with S the seed noise of the profile's points and H the parabola's
    hat matrix, so that a class of one cell at the end of the grid is judged by what a parabola leaves of it. Fields that take one value
    are left out, and so are those that order the sizes exactly as another listed field does.
    """
    if isinstance(noise, Refusal):
        return noise
    sigma = noise.sigma(cells.log_planned_c) * cells.noise_weight
    parts = [_residual_parts(profile, cells, sigma) for profile in profiles if len(profile.log_n) >= settings.min_points]
    found: list[ShapeClass] = []
    seen: set[tuple[tuple[int, ...], ...]] = set()
    fields = {name for profile in profiles for size in profile.sizes for name, _ in size}
    for field in sorted(fields, key=lambda name: (name != "d_model", name)):
        columns = [np.array([dict(size).get(field, -1) for size in sizes]) for sizes, _, _ in parts]
        values = sorted({int(v) for column in columns for v in column})
        grouping = tuple(tuple(values.index(int(v)) for v in column) for column in columns)
        if len(values) > 1 and grouping not in seen:
            seen.add(grouping)
            found += [_class(field, value, parts, columns, settings) for value in values]
    return tuple(found)


def _residual_parts(profile: Profile, cells: Runs, sigma: np.ndarray) -> tuple[Any, np.ndarray, np.ndarray]:
    """Returns sizes, relative residuals [k], and their covariance under seed noise [k, k]."""
    fit = curves.through(profile, cells.noise_weight)
    design = np.stack([np.ones_like(fit.u), fit.u, fit.u**2], axis=1)
    remaining = np.eye(len(fit.u)) - design @ fit.solver
    covariance = (profile.mix * sigma) @ (profile.mix * sigma).T
    return profile.sizes, np.exp(profile.log_loss) / fit.fitted - 1, remaining @ covariance @ remaining.T


def _class(field: str, value: int, parts: list, columns: list[np.ndarray], settings: AnalysisSettings) -> ShapeClass:
    total, variance, count = 0.0, 0.0, 0
    for (_, residual, covariance), column in zip(parts, columns, strict=True):
        v = (column == value).astype(float)
        total, variance, count = total + float(v @ residual), variance + float(v @ covariance @ v), count + int(v.sum())
    z = total / math.sqrt(variance) if variance > 1e-30 else 0.0
    return ShapeClass(field, value, count, total / max(count, 1), z, abs(z) > settings.class_factor)
