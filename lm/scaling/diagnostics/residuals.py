"""The residuals of a fitted law in units of their own spread, as the checks of its fit read them."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from lm.scaling.fitted_law import FittedLaw

_NORMAL_MEAN = -0.635  # of log |z|, z standard normal
_LEAST = 16  # rows that a spread which changes with the loss needs


def spread(made: "FittedLaw") -> np.ndarray:
    """Returns the standard deviation [n] of log loss about the law: a power of the fitted loss, fitted to |residual|.

    Residuals of seeds are larger at high losses, up to 25 times (Porian et al. 2024). Few residuals beyond their kin do not move it: |r|
    enters as a logarithm, held within a factor of 10 of its median.
    """
    r = np.abs(made.fit.residuals)
    middle = float(np.median(r))
    if middle <= 1e-12:
        return np.full(len(r), max(float(r.std()), 1e-12))
    log_r = np.log(np.clip(r, middle / 10, middle * 10))
    if len(r) < _LEAST:
        return np.full(len(r), middle / 0.6745)
    x = made.fit.points.log_loss - made.fit.residuals
    x = x - np.median(x)
    design = np.stack([np.ones_like(x), x], axis=1)
    line = design @ np.linalg.lstsq(design, log_r, rcond=None)[0] if np.ptp(x) > 1e-9 else np.full(len(r), log_r.mean())
    scale = np.exp(line - _NORMAL_MEAN)
    return scale * float(np.median(r / scale)) / 0.6745
