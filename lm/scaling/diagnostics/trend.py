"""Lack of fit: residuals that follow a smooth trend in the inputs, which no law that is true leaves.

Residuals in units of their spread, held within 4, are regressed on products of second and third order of the log inputs, after all that
the law's own parameters could take up (its Jacobian) is projected out of both. Under a true law and independent noise the share that they
explain is distributed as F. A caution comes at `CHANCE`, where the trend also holds a tenth of the variance.
"""

import itertools
from typing import TYPE_CHECKING, NamedTuple, Optional

import numpy as np
from scipy import special

from lm.scaling.diagnostics.residuals import spread
from lm.scaling.fits import solver
from lm.scaling.results import Caution
from lm.scaling.runs import Runs

if TYPE_CHECKING:
    from lm.scaling.fitted_law import FittedLaw

CHANCE = 0.005  # nominal; below 1% of studies where the law is true get the caution (tests/nightly/false_alarms.py)
SHARE = 0.1
_HELD = 4.0
_LEFT = 8  # degrees of freedom of what the trend leaves


class Trend(NamedTuple):
    """The trend [n] in units of log loss, its share of the residuals' variance, and its chance under a true law."""

    values: np.ndarray
    share: float
    chance: float


def trend(made: "FittedLaw") -> Optional[Trend]:
    """Regresses the residuals on the inputs; None where too few rows are left to judge by."""
    scale = spread(made)
    u = np.clip(made.fit.residuals / scale, -_HELD, _HELD)
    points = made.fit.points
    slope = solver.jacobian(made.law, made.fit.theta, points.design(made.law)) / scale[:, None]
    own = _basis(slope)
    u = u - own @ (own.T @ u)
    x = (points.log_x - points.log_x.mean(axis=0)) / np.maximum(points.log_x.std(axis=0), 1e-9)
    for order in (3, 2):
        terms = [np.prod(part, axis=0) for n in range(2, order + 1) for part in itertools.combinations_with_replacement(x.T, n)]
        columns = np.stack(terms, axis=1) / scale[:, None]
        norms = np.linalg.norm(columns, axis=0)
        columns = (columns - own @ (own.T @ columns)) / np.maximum(norms, 1e-300)
        basis = _basis(columns)
        left = len(u) - own.shape[1] - basis.shape[1]
        if basis.shape[1] and left >= _LEFT:
            return _judged(u, basis, left, scale)
    return None


def _judged(u: np.ndarray, basis: np.ndarray, left: int, scale: np.ndarray) -> Trend:
    along = basis.T @ u
    explained, total = float(along @ along), float(u @ u)
    rest = max(total - explained, 1e-30)
    chance = float(special.fdtrc(basis.shape[1], left, explained / basis.shape[1] / (rest / left)))
    return Trend(basis @ along * scale, explained / max(total, 1e-30), chance)


def _basis(columns: np.ndarray) -> np.ndarray:
    """Returns an orthonormal basis of columns, those of no length left out."""
    u, s, _ = np.linalg.svd(columns, full_matrices=False)
    return u[:, s > 1e-6 * max(float(s.max(initial=0.0)), 1e-3)]


def lack(made: "FittedLaw", runs: Runs) -> Optional[Caution]:
    """Warns of residuals that follow a trend; points of one run depend on each other and are not judged."""
    if len(set(runs.run)) < len(runs):
        return None
    found = trend(made)
    if found is None or found.chance > CHANCE or found.share < SHARE:
        return None
    size = float(np.sqrt(np.mean(found.values**2)))
    most = int(np.argmax(np.abs(found.values)))
    share = f"{found.share:.0%} of their variance, p {found.chance:.0e}"
    where = f"{found.values[most]:+.2%} at {runs.run[most]}"
    what = f"residuals follow a trend in {' and '.join(made.law.inputs)} of {size:.2%} ({share}), {where}"
    return Caution("lack_of_fit", f"{what}: intervals hold noise, and not what the law misses; try another law or range")
