"""Rows of several kinds: a further column whose values lie at losses of their own about the law, and residuals that no one kind has.

Two corpora whose sizes or tokens differ a little share no cell, and a law of N and D runs between them. A column of few values, such as
the corpus, then tells from its value on which side of the law a row lies.
"""

from typing import TYPE_CHECKING, Optional

import numpy as np
from scipy import special

from lm.scaling.diagnostics.residuals import spread
from lm.scaling.results import Caution
from lm.scaling.runs import Runs

if TYPE_CHECKING:
    from lm.scaling.fitted_law import FittedLaw

CHANCE = 1e-6  # of a column's split of the residuals; a table may have many columns
SHARE = 0.5  # of the residuals' variance that a column has to hold
SCATTER = 0.05  # relative spread of losses about the law that runs of one kind do not have
VALUES = (2, 10)  # of a column that names conditions
_LEAST = 3  # rows of each value
_HELD = 4.0


def split(made: "FittedLaw", runs: Runs) -> Optional[Caution]:
    """Warns of the further column whose values hold most of the residuals' variance."""
    u = np.clip(made.fit.residuals / spread(made), -_HELD, _HELD)
    found = []
    for name, column in runs.other.items():
        values, level, counts = np.unique(np.array(column, object).astype(str), return_inverse=True, return_counts=True)
        if not VALUES[0] <= len(values) <= VALUES[1] or counts.min() < _LEAST:
            continue
        means = np.bincount(level, u) / counts
        between, total = float(np.sum(counts * (means - u.mean()) ** 2)), float(np.sum((u - u.mean()) ** 2))
        degrees = len(values) - 1, len(u) - len(values) - len(made.law.names)
        if total == 0 or degrees[1] < 1 or between < SHARE * total:  # no residuals: every point lies on the law
            continue
        f = between / degrees[0] / (max(total - between, 1e-12 * total) / degrees[1])
        if special.fdtrc(*degrees, f) < CHANCE:
            raw = np.bincount(level, made.fit.residuals) / counts
            found.append((between / total, name, values[int(np.argmin(raw))], values[int(np.argmax(raw))], float(np.ptp(raw))))
    if not found:
        return None
    share, name, low, high, apart = max(found)
    what = f"{name} holds {share:.0%} of the residuals' variance: losses at {high} lie {np.expm1(apart):.1%} above those at {low}"
    return Caution("mixed", f"{what}; one law does not hold for both: keep one by --where '{name}={low}'")


def scatter(made: "FittedLaw") -> Optional[Caution]:
    """Warns where losses scatter about the law by more than runs of one kind do."""
    middle = float(np.median(np.abs(made.fit.residuals))) / 0.6745
    if middle <= SCATTER:
        return None
    what = f"losses scatter by {middle:.0%} about the law, which runs that differ in N and D alone do not"
    return Caution("scatter", f"{what}: are several corpora, schedules or conditions mixed? keep one by --where")
