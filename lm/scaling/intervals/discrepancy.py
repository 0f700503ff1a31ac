"""Intervals that hold the law's own error: the law is taken to be true up to a smooth function of the logarithms of its inputs.

Log loss at inputs x is log L(x; theta) + g(x) + noise. g is a Gaussian process with mean 0, standard deviation tau and Matern's covariance
of smoothness 5/2 at the length `LENGTH`; the noise is independent with standard deviation sigma. The law is linearised at its fit
(universal kriging: Stein 1999, 1.5), and its coordinates lie about the fit with standard deviation `PRIOR`, which matters in directions
alone that the rows do not determine. sigma follows from the restricted likelihood, and results are averages over
`RATIOS` of tau^2 to sigma^2, each weighted by its restricted likelihood (Patterson and Thompson 1971). A residual counts up to `CLIP`
robust standard deviations: a law that is fitted by Huber's cost leaves outliers, and they are not smooth.

Where residuals look like noise, tau is small and the intervals are those of a linear fit. Where neighbours share their residuals the law is
off, and what it is off by at the edge of the data is expected to continue a little: a forecast moves by `shift`, and its interval grows
with the distance from the data. LENGTH, CLIP and the covariance are those with the best scores over public tables (docs/backtest.md).
"""

import dataclasses
import math
from typing import NamedTuple, Union

import numpy as np
from scipy import special

from lm.errors import counted
from lm.scaling.fits import fit, frontier, solver
from lm.scaling.intervals import bootstrap
from lm.scaling.intervals.kernel import matern
from lm.scaling.laws.law import Chinchilla
from lm.scaling.results import Refusal

LENGTH = 5.0  # distance in log inputs: a factor 150
RATIOS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)
CLIP = 3.0
MOST = 300  # rows that are used: of more, as many evenly spaced ones in order of their inputs
SPARE = 3  # rows beyond the parameters that are needed
_NEGLIGIBLE = 1e-3  # weight below which a ratio is left out
PRIOR = 10.0  # standard deviation of the law's coordinates, which are exponents and logarithms of the terms at the centre of the data
_SPAN, _SIZES = 2.5, 31  # how far from the law's N*, in log N, a lower loss is looked for, and at how many sizes
_SAME = 3e-4  # difference of logarithms that is rounding: rows this close in all inputs and in loss are one
_LEAST = 1e-12  # standard deviation of log loss below which the fit is exact


class Spread(NamedTuple):
    """A forecast of log loss at m inputs [m] each: what the law is expected to be off by, and three standard deviations.

    They are of independent errors, so that their squares add up: the noise of the run to come, the parameters under independent noise, and
    what the law's own error adds to these. `degrees` of freedom belong to sigma.
    """

    shift: np.ndarray
    noise: np.ndarray
    parameters: np.ndarray
    discrepancy: np.ndarray
    degrees: int

    @property
    def total(self) -> np.ndarray:
        return np.sqrt(self.noise**2 + self.parameters**2 + self.discrepancy**2)

    def quantile(self, share: float) -> np.ndarray:
        """Returns the quantile [m] of log measured - log L(x; theta), by Student's t."""
        return self.shift + self.total * special.stdtrit(self.degrees, share)


class Path(NamedTuple):
    """Optima on the law with its error: log N*, log D* and log loss at m values of C, of the mean [m] and of the draws [R, m]."""

    log_n: np.ndarray
    log_d: np.ndarray
    log_loss: np.ndarray
    drawn_log_n: np.ndarray
    drawn_log_d: np.ndarray
    drawn_log_loss: np.ndarray


class _Member(NamedTuple):
    """One ratio tau^2 / sigma^2: its weight and sigma^2, the law's coefficients, and what kriging at new inputs needs."""

    weight: float
    ratio: float
    variance: float  # sigma^2
    coefficients: np.ndarray  # [k] how far the coordinates move
    precision: np.ndarray  # [k, k] of the coefficients, times sigma^2
    eigenvalues: np.ndarray  # [n] of identity + ratio * covariance of the rows
    pull: np.ndarray  # [n] residuals over the eigenvalues


@dataclasses.dataclass(frozen=True)
class Discrepancy:
    """The error of a fitted law, inferred from its residuals. `scale` [n] is the noise of each row over sigma."""

    made: fit.Fit
    log_x: np.ndarray  # [n, p]
    scale: np.ndarray
    vectors: np.ndarray  # [n, n] eigenvectors of the covariance of the rows
    rotated: np.ndarray  # [n, k] gradients of log loss at the rows over their scales, in the eigenvectors
    prior: np.ndarray  # [k, k] precision of the coordinates before the rows, times sigma^2
    members: tuple[_Member, ...]

    @property
    def degrees(self) -> int:
        return len(self.log_x) - self.rotated.shape[1]

    @property
    def sigma(self) -> float:
        """The standard deviation of log loss that neighbours do not share."""
        return math.sqrt(sum(one.weight * one.variance for one in self.members))

    @property
    def tau(self) -> float:
        """The standard deviation of the law's own error far from the data."""
        return math.sqrt(sum(one.weight * one.ratio * one.variance for one in self.members))

    def predict(self, log_x: np.ndarray, scale: Union[np.ndarray, float] = 1.0) -> Spread:
        """Returns the forecast at log inputs [m, p]. `scale` is the noise of the runs to come over sigma."""
        law, near = _gradients(self.made, log_x), self._near(log_x)
        shift, square, total, plain = (np.zeros(len(log_x)) for _ in range(4))
        independent = np.sum((law @ np.linalg.inv(self.rotated.T @ self.rotated + self.prior)) * law, axis=1)
        for one in self.members:
            weighted = one.ratio * near / one.eigenvalues
            slope = law - weighted @ self.rotated
            mean = law @ one.coefficients + one.ratio * near @ one.pull
            known = one.ratio * np.sum(weighted * near, axis=1) - np.sum((slope @ np.linalg.inv(one.precision)) * slope, axis=1)
            shift += one.weight * mean
            square += one.weight * mean**2
            total += one.weight * one.variance * (one.ratio - known)
            plain += one.weight * one.variance * independent
        own = np.maximum(total + square - shift**2 - plain, 0.0)
        return Spread(shift, np.broadcast_to(self.sigma * scale, shift.shape), np.sqrt(plain), np.sqrt(own), self.degrees)

    def surfaces(self, log_x: np.ndarray, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns log loss without noise at log inputs [m, p]: its mean [m] and joint draws [count, m]."""
        law, near = _gradients(self.made, log_x), self._near(log_x)
        between = _covariance(log_x, log_x)
        random = bootstrap.generator(seed, "discrepancy")
        counts = random.multinomial(count, [one.weight for one in self.members])
        mean, drawn = self.made.log_loss(log_x), []
        centre = mean.copy()
        for one, here in zip(self.members, counts, strict=True):
            weighted = one.ratio * near / one.eigenvalues
            slope = law - weighted @ self.rotated
            moved = law @ one.coefficients + one.ratio * near @ one.pull
            centre += one.weight * moved
            spread = one.ratio * (between - weighted @ near.T) + slope @ np.linalg.inv(one.precision) @ slope.T
            values, vectors = np.linalg.eigh(0.5 * (spread + spread.T))
            root = vectors * np.sqrt(np.maximum(values, 0.0) * one.variance)
            heavy = np.sqrt(self.degrees / random.chisquare(self.degrees, (here, 1)))
            drawn.append(mean + moved + heavy * random.standard_normal((here, len(mean))) @ root.T)
        return centre, np.concatenate(drawn)

    def path(self, cost: frontier.Cost, log_c: np.ndarray, count: int = 1000, seed: int = 0) -> Path:
        """Returns the optima at each C [m], sought within a factor 12 of the law's own N*."""
        law, log_c = self.made.law, np.asarray(log_c, float)
        natural = law.natural(self.made.theta, self.made.points.centre)[None]
        best = frontier.optimum(natural, cost, log_c) if isinstance(law, Chinchilla) else frontier.allocate(law, natural, cost, log_c)
        log_n = best.log_n[0][:, None] + np.linspace(-_SPAN, _SPAN, _SIZES)
        log_d = log_c[:, None] - cost.log_flops_per_token(log_n)
        mean, drawn = self.surfaces(frontier.log_inputs(law, cost, log_n, log_d).reshape(-1, len(law.inputs)), count, seed)
        at, lowest = _lowest(log_n, mean.reshape(1, *log_n.shape))
        moved, low = _lowest(log_n, drawn.reshape(count, *log_n.shape))
        tokens = [log_c - cost.log_flops_per_token(where) for where in (at, moved)]
        return Path(at[0], tokens[0][0], lowest[0], moved, tokens[1], low)

    def _near(self, log_x: np.ndarray) -> np.ndarray:
        return _covariance(log_x, self.log_x) / self.scale @ self.vectors


def discrepancy(made: fit.Fit) -> Union[Discrepancy, Refusal]:
    """Infers the law's own error from the residuals of a fit, whose weights say how the noise differs between rows."""
    own = _distinct(made)
    index = own[_kept(made.points.log_x[own])]
    log_x, residual = made.points.log_x[index], made.residuals[index]
    scale = made.points.weights[index] ** (-1.0 / made.objective.power)
    residual = clipped(residual / scale)
    design = _gradients(made, log_x) / scale[:, None]
    free = len(residual) - design.shape[1]
    if free < SPARE:
        needed = design.shape[1] + SPARE
        return Refusal("too_few_points", f"{counted(len(residual), 'row')} cannot show the law's own error: {needed} are the least")
    values, vectors = np.linalg.eigh(_covariance(log_x, log_x) / np.outer(scale, scale))
    rotated = vectors.T @ design
    prior = max(float(np.mean(residual**2)), _LEAST**2) / PRIOR**2 * np.eye(design.shape[1])
    members = _members(np.maximum(values, 0.0), rotated, vectors.T @ residual, prior, free)
    return Discrepancy(made, log_x, scale, vectors, rotated, prior, members)


def _distinct(made: fit.Fit) -> np.ndarray:
    """Returns the indices of the rows without those that repeat another: a row that is there twice says nothing new of the noise."""
    log_x, log_loss = made.points.log_x, made.points.log_loss
    order = np.lexsort((log_loss, *log_x.T))
    apart = np.any(np.abs(np.diff(log_x[order], axis=0)) > _SAME, axis=1) | (np.diff(log_loss[order]) > _SAME)
    return np.sort(order[np.concatenate([[True], apart])])


def clipped(residual: np.ndarray) -> np.ndarray:
    """Returns residuals [n] cut off at CLIP robust standard deviations, 1.4826 times the median distance from the median."""
    most = CLIP * 1.4826 * float(np.median(np.abs(residual - np.median(residual))))
    return np.clip(residual, -most, most) if most > 0 else residual


def _members(values: np.ndarray, design: np.ndarray, residual: np.ndarray, prior: np.ndarray, free: int) -> tuple[_Member, ...]:
    """Returns the ratios with their weights by the restricted likelihood, given eigenvalues [n] and the rows in the eigenvectors."""
    found, evidence = [], []
    for ratio in RATIOS:
        eigen = 1.0 + ratio * values
        precision = design.T @ (design / eigen[:, None]) + prior
        coefficients = np.linalg.solve(precision, design.T @ (residual / eigen))
        left = residual - design @ coefficients
        variance = max(float(np.sum(left**2 / eigen)) / free, _LEAST**2)
        logs = np.sum(np.log(eigen)) + np.linalg.slogdet(precision)[1] + free * math.log(variance)
        evidence.append(-0.5 * logs)
        found.append(_Member(0.0, ratio, variance, coefficients, precision, eigen, left / eigen))
    weights = np.exp(np.array(evidence) - max(evidence))
    weights = np.where(weights < _NEGLIGIBLE * weights.sum(), 0.0, weights)
    weights /= weights.sum()
    return tuple(one._replace(weight=float(weight)) for one, weight in zip(found, weights, strict=True) if weight > 0)


def _kept(log_x: np.ndarray) -> np.ndarray:
    """Returns indices of at most MOST rows, evenly spaced in order of the sum of their log inputs."""
    order = np.argsort(log_x.sum(axis=1), kind="stable")
    return order if len(order) <= MOST else order[np.unique(np.linspace(0, len(order) - 1, MOST).round().astype(int))]


def _gradients(made: fit.Fit, log_x: np.ndarray) -> np.ndarray:
    return solver.jacobian(made.law, made.theta, made.law.design(log_x, made.points.centre))


def _covariance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Returns the correlations [n, m] of the law's error between log inputs [n, p] and [m, p]."""
    square = np.sum(a**2, axis=1)[:, None] + np.sum(b**2, axis=1) - 2 * a @ b.T
    return matern(np.sqrt(np.maximum(square, 0.0)) / LENGTH)


def _lowest(log_n: np.ndarray, losses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns log N and log loss [R, m] of the minima of losses [R, m, s] on sizes [m, s], by the parabola through three sizes."""
    at = np.clip(np.argmin(losses, axis=2), 1, losses.shape[2] - 2)[..., None]
    left, middle, right = (np.take_along_axis(losses, at + by, axis=2)[..., 0] for by in (-1, 0, 1))
    bend = left - 2 * middle + right
    step = np.clip(np.where(bend > 0, 0.5 * (left - right) / np.where(bend > 0, bend, 1.0), 0.0), -1.0, 1.0)
    gap = log_n[:, 1] - log_n[:, 0]
    where = np.take_along_axis(np.broadcast_to(log_n, losses.shape), at, axis=2)[..., 0]
    return where + step * gap, middle + 0.5 * step * (right - left) + 0.5 * step**2 * bend
