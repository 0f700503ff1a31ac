"""Gaussian and Student likelihoods of log loss with a fitted scale, and the intervals of their profiles (Wilks 1938).

Huber's cost with a small delta is no likelihood; these are, and stand beside it. The Gaussian's optimum is that of squared log errors. The
Student's is found by expectation and maximisation (Lange, Little and Taylor 1989): weights (v + 1) / (v + z^2) of squared errors, each
step a weighted fit. Where v is not given it is the best of `DEGREES`.
"""

import dataclasses
import math
import statistics
from typing import Optional, Union

import numpy as np

from lm.scaling.fits import constrained, solver
from lm.scaling.fits.fit import Fit
from lm.scaling.fits.objectives import SquaredLog
from lm.scaling.intervals import profile_likelihood
from lm.scaling.intervals.profile_likelihood import ProfileInterval
from lm.scaling.results import Refusal, result

DEGREES = (2.0, 3.0, 4.0, 6.0, 10.0, 20.0)
GAUSSIAN, STUDENT = "profile of the Gaussian likelihood, chi-squared cut-off", "profile of the Student likelihood, chi-squared cut-off"
_ROUNDS, _STILL = 200, 1e-10  # of expectation and maximisation; the change of log likelihood at which it ends


@dataclasses.dataclass(frozen=True)
class Likelihood:
    """The maximum: a fit under squared log errors with the weights of the last round, the degrees of freedom (None: Gaussian), the scale of
    log errors, and log likelihood."""

    fit: Fit
    degrees: Optional[float]
    scale: float
    log_likelihood: float

    def summary(self) -> "LikelihoodFit":
        n, k = len(self.fit.points.log_loss), len(self.fit.theta) + (1 if self.degrees is None else 2)
        aicc = 2 * k - 2 * self.log_likelihood + 2 * k * (k + 1) / max(n - k - 1, 1)
        name = "Gaussian" if self.degrees is None else f"Student, {self.degrees:g} degrees of freedom"
        return LikelihoodFit(name, self.fit.natural, self.scale, self.log_likelihood, aicc)


@result
class LikelihoodFit:
    """A law's parameters at the maximum likelihood, the relative scale of errors, and Akaike's criterion corrected for few rows."""

    distribution: str
    values: dict[str, float]
    scale: float
    log_likelihood: float
    aicc: float


def gaussian(made: Fit) -> Union[Likelihood, Refusal]:
    """Finds the Gaussian maximum, from where `made` lies."""
    points = dataclasses.replace(made.points, weights=made.points.weights ** (2 / made.objective.power))  # inverse variances
    starts = np.concatenate([made.theta[None], made.others])
    value, theta = _least(made, points.log_loss, points.weights, starts)
    if not np.isfinite(value):
        return Refusal("not_converged", "squared log errors have no minimum near the fit: check the fit, or add rows")
    scale = math.sqrt(value / len(points.log_loss))
    squared = dataclasses.replace(made, points=points, objective=SquaredLog(), theta=theta, value=value, others=made.theta[None])
    return Likelihood(squared, None, scale, _normal(value, points.weights))


def student(made: Fit, degrees: Optional[float] = None) -> Union[Likelihood, Refusal]:
    """Finds the Student maximum for given degrees of freedom, or the best of DEGREES."""
    first = gaussian(made)
    if isinstance(first, Refusal):
        return first
    found = [_student(first, v) for v in ((degrees,) if degrees is not None else DEGREES)]
    return max(found, key=lambda one: one.log_likelihood)


def _student(first: Likelihood, degrees: float) -> Likelihood:
    theta, scale, found = _rounds(first.fit, degrees, first.fit.theta[None], np.array([first.scale]), None, None)
    return Likelihood(dataclasses.replace(first.fit, theta=theta[0]), degrees, float(scale[0]), float(found[0]))


def _rounds(
    made: Fit, degrees: float, theta: np.ndarray, scale: np.ndarray, target: Optional[constrained.Target], values: Optional[np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Runs expectation and maximisation in lanes [M]: coordinates, scales and log likelihoods; `target` is held at `values`."""
    p = made.points
    found = np.full(len(theta), -np.inf)
    for _ in range(_ROUNDS):
        r = p.log_loss - made.log_loss(p.log_x, theta)
        z2 = p.weights * r**2 / scale[:, None] ** 2
        weights = p.weights * (degrees + 1) / (degrees + z2)
        if target is None or values is None:
            ends = solver.minimise(made.law, made.objective, p.design(made.law), p.log_loss, weights, theta)
        else:
            ends = constrained.minimise(made, target, values, p.log_loss, weights, theta)
        theta = np.where(np.isfinite(ends.theta), ends.theta, theta)
        r = p.log_loss - made.log_loss(p.log_x, theta)
        scale = np.sqrt(np.maximum(np.mean(weights * r**2, axis=1), 1e-300))
        last, found = found, _student_density(p.weights, r, scale, degrees)
        if np.all(np.abs(found - last) <= _STILL * np.maximum(np.abs(found), 1.0)):
            break
    return theta, scale, found


def _least(made: Fit, log_loss: np.ndarray, weights: np.ndarray, starts: np.ndarray) -> tuple[float, np.ndarray]:
    ends = solver.minimise(made.law, SquaredLog(), made.points.design(made.law), log_loss, weights, starts)
    value = np.where(np.isfinite(ends.value), ends.value, np.inf)
    best = int(np.argmin(value))
    return float(value[best]), ends.theta[best]


def _normal(value: float, weights: np.ndarray) -> float:
    """Returns the log likelihood at the fitted scale; a weight is the inverse variance relative to the others."""
    n = len(weights)
    return -0.5 * n * (math.log(2 * math.pi * value / n) + 1) + 0.5 * float(np.log(np.maximum(weights, 1e-300)).sum())


def _student_density(weights: np.ndarray, r: np.ndarray, scale: np.ndarray, degrees: float) -> np.ndarray:
    """Returns log likelihoods [M] of residuals [M, n]."""
    constant = math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2) - 0.5 * math.log(degrees * math.pi)
    z2 = weights * r**2 / scale[:, None] ** 2
    terms = constant - np.log(scale)[:, None] + 0.5 * np.log(weights) - (degrees + 1) / 2 * np.log1p(z2 / degrees)
    return terms.sum(axis=1)


def interval(made: Likelihood, name: str, target: constrained.Target, level: float = 0.8) -> ProfileInterval:
    """Reads the interval at which twice the log likelihood falls by the chi-squared quantile of one degree of freedom.

    The quantile is taken times n / (n - k) for k parameters, which a fitted scale calls for.
    """
    p, k = made.fit.points, len(made.fit.theta)
    z = statistics.NormalDist().inv_cdf((1 + level) / 2)
    cutoff = z * z * len(p.log_loss) / (len(p.log_loss) - k)
    natural = made.fit.law.natural(made.fit.theta[None], p.centre)
    value = float(target.of(made.fit.law, natural)[0])
    values = value + _step(made, target, value) * np.concatenate([-profile_likelihood.STEPS[::-1], [0.0], profile_likelihood.STEPS])
    fall = 2 * (made.log_likelihood - _profile(made, target, values))
    return profile_likelihood.read(
        name, target, value, values, np.maximum(fall, 0.0), cutoff, level, GAUSSIAN if made.degrees is None else STUDENT
    )


def _profile(made: Likelihood, target: constrained.Target, values: np.ndarray) -> np.ndarray:
    """Returns log likelihoods [m] with the quantity held."""
    p = made.fit.points
    theta = np.tile(made.fit.theta, (len(values), 1))
    if made.degrees is None:
        rise = profile_likelihood.profile(made.fit, target, values)
        return np.array([_normal(made.fit.value + up, p.weights) for up in rise])
    return _rounds(made.fit, made.degrees, theta, np.full(len(values), made.scale), target, values)[2]


def _step(made: Likelihood, target: constrained.Target, value: float) -> float:
    """Returns about one standard deviation, by the delta method on the Gauss-Newton covariance."""
    law, p = made.fit.law, made.fit.points
    slope = solver.jacobian(law, made.fit.theta, p.design(law)) * np.sqrt(p.weights)[:, None]
    covariance = np.linalg.pinv(slope.T @ slope) * made.scale**2
    step = 1e-4
    moved = made.fit.theta + step * np.eye(len(made.fit.theta))
    gradient = (target.of(law, law.natural(moved, p.centre)) - value) / step
    return max(math.sqrt(max(float(gradient @ covariance @ gradient), 0.0)), 1e-9)
