"""Rows that the answer hangs on: outliers, and runs whose removal moves the exponent a by more than its noise.

The law is fitted again without each run, or without the 63 runs of the largest Cook's distance, and without all outliers together: five of
them hide each other, for each alone the others hold the fit. The refits start at the optimum: 64 of them cost what 21 draws of the
bootstrap do, which start three times each.
"""

import dataclasses
from typing import TYPE_CHECKING, NamedTuple, Optional

import jax.numpy as jnp
import numpy as np

from lm.scaling.diagnostics.residuals import spread
from lm.scaling.fits import fit as fits
from lm.scaling.fits import solver
from lm.scaling.results import Caution, Estimate
from lm.scaling.runs import Runs

if TYPE_CHECKING:
    from lm.scaling.fitted_law import FittedLaw

SINGLES = 63  # runs that are left out one by one, those of the largest Cook's distance
OUTLIER = 6.0  # standard deviations of the residuals beyond which a row is an outlier
GROSS = 10.0  # the same, for rows that are named although the answer does not hang on them
MOVED = 1.645  # standard deviations of a by which a run has to move it; below 1% of small studies have such a run by chance
_MOST = 0.1  # share of outliers above which the rows are of two kinds, or the law does not fit
_LEAST = 1e-3  # what a has to move by at least: under some laws it is a constant, whose sd is rounding
_SHOWN = 5


class Without(NamedTuple):
    """The exponent a without some rows."""

    rows: tuple[int, ...]
    a: float


def checks(made: "FittedLaw", runs: Runs, a: Estimate) -> list[Caution]:
    """Names outliers, and rows that move `a`, the exponent of N* ~ C^a as reported, by more than its noise."""
    out = outliers(made)
    singles = units(made, runs)
    groups = [*singles, *([tuple(out)] if out else [])]
    values = exponents(made, runs, groups)
    found = [Without(rows, float(value)) for rows, value in zip(singles, values, strict=False)]
    most = np.inf if a.sd is None else max(MOVED * a.sd, _LEAST)
    together = Without(tuple(out), float(values[-1])) if out else None
    moving = [one for one in found if abs(one.a - a.value) > most and not set(one.rows) & set(out)]
    return [one for one in (_outlying(made, runs, together, a, most), _moving(runs, moving, a)) if one is not None]


def units(made: "FittedLaw", runs: Runs) -> list[tuple[int, ...]]:
    """Returns the rows of the runs to leave out one by one: all points of a run together, as they depend on each other."""
    order = np.argsort(runs.groups, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(runs.groups[order])) + 1)
    distance = cook(made)
    farthest = sorted(parts, key=lambda rows: -float(distance[rows].sum()))
    return [tuple(rows.tolist()) for rows in farthest[:SINGLES]]


def outliers(made: "FittedLaw") -> list[int]:
    """Returns the rows beyond OUTLIER standard deviations, the farthest first; none where they are many."""
    z = np.abs(made.fit.residuals) / spread(made)
    rows = [int(i) for i in np.argsort(-z) if z[i] > OUTLIER]
    return rows if len(rows) <= max(2, _MOST * len(z)) else []


def cook(made: "FittedLaw") -> np.ndarray:
    """Returns Cook's distance [n] up to a factor: the first-order change of the fit without each row, in the metric of the objective."""
    points = made.fit.points
    slope = solver.jacobian(made.law, made.fit.theta, points.design(made.law))
    r = made.fit.residuals
    pull = points.weights * np.asarray(made.fit.objective.pull(jnp.asarray(-r)))
    metric = (slope * pull[:, None]).T @ slope
    return (pull * r) ** 2 * np.einsum("ij,jk,ik->i", slope, np.linalg.pinv(metric), slope)


def exponents(made: "FittedLaw", runs: Runs, groups: list[tuple[int, ...]]) -> np.ndarray:
    """Returns the exponent a of fits without each group of rows."""
    from lm.scaling.approaches.parametric import path_slopes

    weights = np.tile(made.fit.points.weights, (len(groups), 1))
    for lane, rows in zip(weights, groups, strict=True):
        lane[list(rows)] = 0.0
    ends = fits.refit(made.fit, made.fit.points.log_loss, weights, extra=0)
    natural = made.law.natural(ends.theta, made.fit.points.centre)
    without = dataclasses.replace(made, draws=natural, left_out=None)
    return path_slopes(without, runs)[0][1:]


def _outlying(made: "FittedLaw", runs: Runs, together: Optional[Without], a: Estimate, most: float) -> Optional[Caution]:
    if together is None:
        return None
    out, r, z = together.rows, made.fit.residuals, made.fit.residuals / spread(made)
    far = abs(together.a - a.value) > most
    if not far and np.abs(z).max() < GROSS:
        return None
    names = ", ".join(f"{runs.run[i]} ({r[i]:+.0%}, {abs(z[i]):.0f} sd)" for i in out[:_SHOWN]) + (", ..." if len(out) > _SHOWN else "")
    several = len(out) > 1
    moves = f"without {'them' if several else 'it'} a is {together.a:.3f} instead of {a.value:.3f}" + (", beyond its noise" if far else "")
    return Caution("outliers", f"{len(out)} of {len(runs)} rows {'lie' if several else 'lies'} far off the law: {names}; {moves}")


def _moving(runs: Runs, moving: list[Without], a: Estimate) -> Optional[Caution]:
    if not moving:
        return None
    moving = sorted(moving, key=lambda one: -abs(one.a - a.value))
    names = ", ".join(f"{runs.run[one.rows[0]]} ({one.a:.3g})" for one in moving[:_SHOWN]) + (", ..." if len(moving) > _SHOWN else "")
    return Caution("influence", f"a = {a.value:.3g} hangs on single runs: it changes without {names}; add runs near them")
