"""Ways to forecast the losses above a cut from the rows below it. Each returns draws [R, m] of log loss at the rows to forecast.

Draws of a Student's t stand at its quantiles i / (R + 1), so that percentiles and scores carry no noise of their own.
"""

from collections.abc import Callable
from typing import Optional, Union

import numpy as np
from scipy import special
from scipy.optimize import nnls

from lm.scaling import prediction
from lm.scaling.backtest.below import Below, compute_of, lowest
from lm.scaling.fitted_law import scale_of_run
from lm.scaling.results import Refusal
from lm.scaling.runs import Runs

R = 199
Method = Callable[[Below, Runs], Optional[np.ndarray]]
_EXPONENTS = np.linspace(0.01, 0.6, 60)  # of C, among which the power law with a floor takes the best
_LEAST = 1e-4  # standard deviation of log loss


def student(centre: np.ndarray, scale: np.ndarray, degrees: Union[float, np.ndarray]) -> np.ndarray:
    """Returns quantiles [R, m] of a t distribution [m]; `degrees` may be infinite."""
    share = np.arange(1, R + 1)[:, None] / (R + 1)
    return centre + np.where(np.isinf(degrees), special.ndtri(share), special.stdtrit(np.minimum(degrees, 1e6), share)) * scale


def law(known: Below, ahead: Runs) -> np.ndarray:
    """Forecasts by the law, with the noise of the cell to come and the draws of the parameters: the law is supposed to be true."""
    inputs = {name: ahead.inputs[name] for name in {*known.law.inputs, "C"}}
    return prediction.predict(known.drawn, known.cost, inputs, known.noise, seed=known.seed).draws


def discrepancy(known: Below, ahead: Runs) -> Optional[np.ndarray]:
    """Forecasts by the law and its own error."""
    if isinstance(known.discrepancy, Refusal):
        return None
    log_x = ahead.log_x(known.law.inputs)
    spread = known.discrepancy.predict(log_x, scale_of_run(ahead.log_planned_c, known.noise, known.unit) * ahead.noise_weight)
    return student(known.fit.log_loss(log_x) + spread.shift, spread.total, spread.degrees)


def power_law(known: Below, ahead: Runs) -> Optional[np.ndarray]:
    """Forecasts by a power law through the lowest losses, log L = a + b log C, with the prediction interval of least squares."""
    x, y, at = _frontier(known.runs, ahead)
    if len(x) < 3:
        return None
    return _regressed(_line(x, x.mean()), y, _line(at, x.mean()), np.zeros(len(at)), len(x) - 2)


def floored(known: Below, ahead: Runs) -> Optional[np.ndarray]:
    """Forecasts by L = E + A / C^gamma through the lowest losses, linearised at its fit for the interval."""
    x, y, at = _frontier(known.runs, ahead)
    if len(x) < 4:
        return None
    loss, centre = np.exp(y), x.mean()
    fits = []
    for gamma in _EXPONENTS:
        coefficients, error = nnls(np.stack([np.ones_like(x), np.exp(-gamma * (x - centre))], axis=1) / loss[:, None], np.ones(len(x)))
        fits.append((error, gamma, coefficients))
    _, gamma, (floor, scale) = min(fits, key=lambda one: one[0])

    def curve(places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        falling = np.exp(-gamma * (places - centre))
        value = floor + scale * falling
        return np.log(value), np.stack([np.ones_like(places), falling, -scale * falling * (places - centre)], axis=1) / value[:, None]

    (fitted, design), (expected, there) = curve(x), curve(at)
    return _regressed(design, y - fitted, there, expected, len(x) - 3)


def last_budget(known: Below, ahead: Runs) -> Optional[np.ndarray]:
    """Forecasts the lowest loss of the last budget; its standard deviation is the root mean square fall per log C, times the distance."""
    x, y, at = _frontier(known.runs, ahead)
    if len(x) < 2:
        return None
    order = np.argsort(x)
    x, y = x[order], y[order]
    rate = np.sqrt(np.mean((np.diff(y) / np.maximum(np.diff(x), 0.3)) ** 2))
    return student(np.full(len(at), y[-1]), np.maximum(rate * np.maximum(at - x[-1], 0.1), _LEAST), np.inf)


def _frontier(runs: Runs, ahead: Runs) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    best = runs.take(lowest(runs))
    return np.log(compute_of(best)), best.log_loss, np.log(compute_of(ahead))


def _line(x: np.ndarray, centre: float) -> np.ndarray:
    return np.stack([np.ones_like(x), x - centre], axis=1)


def _regressed(design: np.ndarray, y: np.ndarray, at: np.ndarray, offset: np.ndarray, degrees: int) -> np.ndarray:
    """Returns the prediction of least squares at rows `at` of a design, with its t interval."""
    inverse = np.linalg.pinv(design, rcond=1e-7)
    coefficients = inverse @ y
    variance = max(float(np.sum((y - design @ coefficients) ** 2)) / degrees, _LEAST**2)
    spread = variance * (1 + np.sum((at @ (inverse @ inverse.T)) * at, axis=1))
    return student(offset + at @ coefficients, np.sqrt(spread), degrees)


LOSS: dict[str, Method] = {
    "law and its error": discrepancy,
    "law": law,
    "power law of C": power_law,
    "power law with a floor": floored,
    "last budget": last_budget,
}
