"""Rows that the answer hangs on: outliers, and rows whose removal moves the exponent a by more than its noise.

The law is fitted again without each row, or without the 63 rows of the largest Cook's distance, and without all outliers together: five of
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

SINGLES = 63  # rows that are left out one by one, those of the largest Cook's distance
OUTLIER = 6.0  # standard deviations of the residuals beyond which a row is an outlier
GROSS = 10.0  # the same, for rows that are named although the answer does not hang on them
MOVED = 1.645  # standard deviations of a by which a row has to move it; 2% of small studies have such a row where the law is true
_MOST = 0.1  # share of outliers above which the rows are of two kinds, or the law does not fit
_SHOWN = 5


class Without(NamedTuple):
    """The exponent a without some rows."""

    rows: tuple[int, ...]
    a: float


def checks(made: "FittedLaw", runs: Runs, a: Estimate) -> list[Caution]:
    """Names outliers, and rows that move `a`, the exponent of N* ~ C^a as reported, by more than its noise."""
    out = outliers(made)
    singles = [(int(i),) for i in np.argsort(-cook(made), kind="stable")[:SINGLES]]
    groups = [*singles, *([tuple(out)] if len(out) > 1 else [])]
    found = [Without(rows, value) for rows, value in zip(groups, exponents(made, runs, groups), strict=True)]
    most = np.inf if a.sd is None else MOVED * a.sd
    together = next((one for one in found if set(one.rows) == set(out)), None)
    moving = [one for one in found if len(one.rows) == 1 and abs(one.a - a.value) > most and one.rows[0] not in out]
    return [one for one in (_outlying(made, runs, out, together, a, most), _moving(runs, moving, a)) if one is not None]


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


def _outlying(made: "FittedLaw", runs: Runs, out: list[int], together: Optional[Without], a: Estimate, most: float) -> Optional[Caution]:
    if not out:
        return None
    r, z = made.fit.residuals, made.fit.residuals / spread(made)
    far = together is not None and abs(together.a - a.value) > most
    if not far and np.abs(z).max() < GROSS:
        return None
    names = ", ".join(f"{runs.run[i]} ({r[i]:+.0%}, {abs(z[i]):.0f} sd)" for i in out[:_SHOWN]) + (", ..." if len(out) > _SHOWN else "")
    moves = "" if together is None else f"; without {'them' if len(out) > 1 else 'it'} a is {together.a:.3f} instead of {a.value:.3f}"
    what = f"{len(out)} of {len(runs)} rows {'lie' if len(out) > 1 else 'lies'} far off the law: {names}{moves}"
    return Caution("outliers", what + (", outside its interval" if far else ""))


def _moving(runs: Runs, moving: list[Without], a: Estimate) -> Optional[Caution]:
    if not moving:
        return None
    moving = sorted(moving, key=lambda one: -abs(one.a - a.value))
    names = ", ".join(f"{runs.run[one.rows[0]]} ({one.a:.3g})" for one in moving[:_SHOWN]) + (", ..." if len(moving) > _SHOWN else "")
    return Caution("influence", f"a = {a.value:.3g} hangs on single rows: it changes without {names}; add rows near them")
