"""The profile of the objective, with a cut-off calibrated by simulation, says whether the points determine a parameter.

The profile of a parameter is the least objective with that parameter held. Under Huber's cost with a small delta it is no likelihood, so
the rise that means something is found by fitting data simulated from the fitted law, with the parameter held at its true value and free.
`interval` does this for any parameter or derived quantity, and reads the interval where the profile crosses the cut-off.
"""

import itertools
import math
from typing import Optional

import numpy as np

from lm.scaling.fits import constrained, fit, solver
from lm.scaling.fits.fit import Fit
from lm.scaling.intervals import bootstrap
from lm.scaling.intervals.resampling import Resampling
from lm.scaling.results import Answer, Estimate, Refusal, result
from lm.scaling.runs import Runs

_POINTS = 9  # on each side of the optimum
_FACTOR = 4.0  # an exponent is followed from a quarter to four times its value
_QUANTILE = 0.9


@result
class ProfileCurve:
    """The rise of the objective above its minimum at values of one parameter; flat when an end of the range stays below the cut-off."""

    name: str
    values: tuple[float, ...]
    rise: tuple[float, ...]
    cutoff: float
    flat: bool

    @property
    def refusal(self) -> Refusal:
        ends = f"{self.values[0]:.3g} and {self.values[-1]:.3g}"
        reason = f"the profile of {self.name} is flat: {ends} fit nearly as well as the optimum; widen N or D, or add seeds"
        return Refusal("unidentified", reason)


def profiles(made: Fit, names: tuple[str, ...], simulated: np.ndarray, free_values: np.ndarray) -> tuple[ProfileCurve, ...]:
    """Profiles E or exponents, by name. `simulated` [R, n]: log losses drawn from the fitted law, `free_values` [R]: their minima."""
    found = []
    for index in map(made.law.names.index, names):
        curve = _profile(made, index)
        cutoff = _cutoff(made, index, simulated, free_values)
        flat = min(curve[1][0], curve[1][-1]) < cutoff
        found.append(ProfileCurve(made.law.names[index], tuple(curve[0]), tuple(curve[1]), cutoff, bool(flat)))
    return tuple(found)


def _coordinates(made: Fit, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns values to hold the parameter at, natural and in coordinates. E runs from nothing to just below the least loss."""
    best = made.theta[index]
    if made.law.names[index] != "E":
        values = best * np.geomspace(1 / _FACTOR, _FACTOR, 2 * _POINTS + 1)
        return values, values
    least, value = float(np.exp(made.points.log_loss.min())), float(np.exp(best))
    value = min(value, 0.99 * least)
    below, above = np.linspace(1e-3 * value, value, _POINTS + 1)[:-1], np.linspace(value, 0.999 * least, _POINTS + 1)
    values = np.concatenate([below, above])
    return values, np.log(values)


def _profile(made: Fit, index: int) -> tuple[np.ndarray, np.ndarray]:
    values, fixed = _coordinates(made, index)
    starts = np.concatenate([made.theta[None], made.others])
    lanes = np.repeat(starts[None], len(fixed), axis=0)
    lanes[:, :, index] = fixed[:, None]
    free = np.arange(starts.shape[1]) != index
    p = made.points
    ends = solver.minimise(
        made.law, made.objective, p.design(made.law), p.log_loss, p.weights, lanes.reshape(-1, starts.shape[1]), free=free
    )
    value = np.where(np.isfinite(ends.value), ends.value, np.inf).reshape(len(fixed), -1).min(axis=1)
    return values, np.maximum(np.minimum(value, 1e300) - made.value, 0.0)


def _cutoff(made: Fit, index: int, simulated: np.ndarray, free_values: np.ndarray) -> float:
    """Returns the 90th percentile of the rise from the free fit to the fit with the parameter held at its true value."""
    free = np.arange(len(made.theta)) != index
    lanes = np.tile(made.theta, (len(simulated), 1))
    ends = solver.minimise(made.law, made.objective, made.points.design(made.law), simulated, made.points.weights, lanes, free=free)
    return float(np.quantile(np.maximum(ends.value - free_values, 0.0), _QUANTILE))


PROFILE = "profile of the objective, cut-off by simulation"
STEPS = np.array([0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 6.0, 9.0])  # on each side, in standard deviations of the simulated fits
_SWEEPS = 2  # every point of a profile starts again from where its neighbours ended


@result
class ProfileInterval:
    """The rise of the objective above its minimum with one quantity held. `answer` is a Refusal where an end of the profile stays below the
    cut-off: then nothing bounds the quantity on that side."""

    name: str
    answer: Answer
    values: tuple[float, ...]
    rise: tuple[float, ...]
    cutoff: float


def simulated(made: Fit, runs: Runs, resampling: Resampling, count: int, seed: int) -> np.ndarray:
    """Returns log losses [R, n] from the fitted law: the strategy's own where it makes losses, else those of the wild bootstrap."""
    log_loss, weights = resampling.draw(made, runs, count, seed)
    if weights is None:
        return log_loss
    return wild(made, count, seed)


def wild(made: Fit, count: int, seed: int) -> np.ndarray:
    """Returns the fitted log losses plus residuals with random signs [R, n], inflated for the fitted parameters (the wild bootstrap)."""
    n, k = len(made.points.log_loss), len(made.theta)
    signs = bootstrap.generator(seed, "wild signs").choice([-1.0, 1.0], (count, n))
    return made.log_loss(made.points.log_x) + signs * made.residuals / math.sqrt(1 - k / n)


def intervals(
    made: Fit, targets: dict[str, constrained.Target], losses: np.ndarray, level: float = 0.8, method: str = PROFILE
) -> dict[str, ProfileInterval]:
    """Returns calibrated profile intervals; `losses` [R, n] are simulated from the fitted law."""
    free = fit.refit(made, losses, extra=0)
    natural = made.law.natural(np.concatenate([made.theta[None], free.theta]), made.points.centre)
    found = {}
    for name, target in targets.items():
        column = target.of(made.law, natural)
        value, sd = float(column[0]), _spread(column[1:])
        rise = constrained_rise(made, target, value, losses, free.value)
        found[name] = traced(made, name, target, value, sd, float(np.quantile(rise, level, method="weibull")), level, method)
    return found


def _spread(draws: np.ndarray) -> float:
    """Returns half the distance between the 16th and 84th percentile."""
    low, high = np.quantile(draws[np.isfinite(draws)], [0.16, 0.84])
    return max(float(high - low) / 2, 1e-9)


def constrained_rise(made: Fit, target: constrained.Target, value: float, losses: np.ndarray, free_values: np.ndarray) -> np.ndarray:
    """Returns by how much holding the quantity at `value` raises the objective of each row of losses above its free minimum [R]."""
    lanes = np.tile(made.theta, (len(losses), 1))
    ends = constrained.minimise(made, target, np.full(len(losses), value), losses, made.points.weights, lanes)
    return np.maximum(np.where(np.isfinite(ends.value), ends.value, np.inf) - free_values, 0.0)


def traced(
    made: Fit, name: str, target: constrained.Target, value: float, sd: float, cutoff: float, level: float, method: str
) -> ProfileInterval:
    """Profiles the objective about its optimum, and reads where it crosses the cut-off."""
    values = value + sd * np.concatenate([-STEPS[::-1], [0.0], STEPS])
    return read(name, target, value, values, profile(made, target, values), cutoff, level, method)


def read(
    name: str, target: constrained.Target, value: float, values: np.ndarray, rise: np.ndarray, cutoff: float, level: float, method: str
) -> ProfileInterval:
    """Reads the interval of a profile: rise [m] at values [m], in increasing order about the optimum."""
    ends = _crossings(values, rise, cutoff)
    shown = np.exp(values) if target.logarithm else values
    kept = np.isfinite(rise)
    answer = _answer(name, target.logarithm, value, ends, (float(shown[0]), float(shown[-1])), level, method)
    return ProfileInterval(name, answer, tuple(shown[kept].tolist()), tuple(rise[kept].tolist()), cutoff)


def profile(made: Fit, target: constrained.Target, values: np.ndarray) -> np.ndarray:
    """Returns the rise of the objective with the quantity held at each value [m], in increasing order about the optimum."""
    p, middle = made.points, len(values) // 2
    starts = np.tile(made.theta, (len(values), 1))
    best = np.full(len(values), np.inf)
    for _ in range(_SWEEPS):
        ends = constrained.minimise(made, target, values, p.log_loss, p.weights, starts)
        best = np.minimum(best, np.where(np.isfinite(ends.value), ends.value, np.inf))
        inner = np.clip(np.arange(len(values)) + np.sign(middle - np.arange(len(values))), 0, len(values) - 1)
        starts = np.where(np.isfinite(ends.theta[inner]), ends.theta[inner], made.theta)
    return np.maximum(best - made.value, 0.0)


Ends = tuple[Optional[float], Optional[float]]


def _crossings(values: np.ndarray, rise: np.ndarray, cutoff: float) -> Ends:
    """Finds where the rise first passes the cut-off on each side; the root of the rise is near linear in the value."""
    middle = len(values) // 2
    ends: list[Optional[float]] = []
    for side in (range(middle, -1, -1), range(middle, len(values))):
        order = list(side)
        end = None
        for before, after in itertools.pairwise(order):
            if rise[after] >= cutoff:
                first, second = math.sqrt(rise[before]), math.sqrt(min(rise[after], 1e300))
                share = (math.sqrt(cutoff) - first) / max(second - first, 1e-300)
                end = float(values[before] + min(max(share, 0.0), 1.0) * (values[after] - values[before]))
                break
        ends.append(end)
    return ends[0], ends[1]


def _answer(name: str, logarithm: bool, value: float, ends: Ends, span: tuple[float, float], level: float, method: str) -> Answer:
    low, high = ends
    if low is None or high is None:
        end = span[0] if low is None else span[1]
        what = f"the profile of {name} is flat: {end:.3g} fits nearly as well as the optimum"
        return Refusal("unidentified", f"{what}; widen N or D, or add seeds")
    shown = [math.exp(v) if logarithm else v for v in (value, low, high)]
    return Estimate(shown[0], shown[1], shown[2], level, method)
