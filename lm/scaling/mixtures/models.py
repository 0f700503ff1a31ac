"""Models of loss as a function of the shares of a data mixture: linear, exponential, and a Gaussian process.

A mixture is a row of shares of m domains that sum to 1. Every model predicts log loss at further mixtures. `draws` are further functions
that the data also allow: refits to resampled rows, or draws from the posterior of the process.
"""

import dataclasses
from typing import ClassVar, Protocol

import numpy as np
from scipy import linalg, optimize

from lm.scaling.intervals import bootstrap


class Fitted(Protocol):
    """A model that was fitted to mixtures."""

    def predict(self, share: np.ndarray) -> np.ndarray:
        """Returns log loss [n] at mixtures [n, m]."""

    def draws(self, share: np.ndarray, count: int, seed: int) -> np.ndarray:
        """Returns log loss [count, n] at mixtures [n, m] by `count` functions that the data also allow."""


class MixtureModel(Protocol):
    """A kind of model."""

    equation: ClassVar[str]
    source: ClassVar[str]

    def fit(self, share: np.ndarray, loss: np.ndarray) -> Fitted:
        """Fits losses [n] of mixtures [n, m]."""


@dataclasses.dataclass(frozen=True)
class Resampled:
    """A parametric model with its parameters; `draws` refits it to resampled rows."""

    model: "Linear | Exponential"
    parameters: np.ndarray
    share: np.ndarray
    loss: np.ndarray

    def predict(self, share: np.ndarray) -> np.ndarray:
        return self.model.log_loss(self.parameters, share)

    def draws(self, share: np.ndarray, count: int, seed: int) -> np.ndarray:
        rows = bootstrap.generator(seed, "mixtures").integers(0, len(self.loss), (count, len(self.loss)))
        refits = (self.model.parameters(self.share[index], self.loss[index], self.parameters) for index in rows)
        return np.array([self.model.log_loss(parameters, share) for parameters in refits])


@dataclasses.dataclass(frozen=True)
class Linear:
    """Loss is linear in the shares: the baseline of Liu et al. 2024."""

    equation: ClassVar[str] = "L = sum_j w_j r_j"
    source: ClassVar[str] = "Liu et al. 2024, linear regression"

    def fit(self, share: np.ndarray, loss: np.ndarray) -> Fitted:
        return Resampled(self, self.parameters(share, loss), share, loss)

    def parameters(self, share: np.ndarray, loss: np.ndarray, near: np.ndarray | None = None) -> np.ndarray:
        """Returns the weights [m] of least squares; the shares sum to 1, so that a constant would add nothing."""
        return np.linalg.lstsq(share, loss, rcond=None)[0]

    def log_loss(self, parameters: np.ndarray, share: np.ndarray) -> np.ndarray:
        return np.log(np.maximum(share @ parameters, 1e-300))


@dataclasses.dataclass(frozen=True)
class Exponential:
    """The law of Ye et al. 2024. Shares sum to 1, so that k is a constant in every t: it is 1 here."""

    equation: ClassVar[str] = "L = c + k exp(sum_j t_j r_j)"
    source: ClassVar[str] = "Ye et al. 2024, data mixing laws, eq. 1"

    def fit(self, share: np.ndarray, loss: np.ndarray) -> Fitted:
        return Resampled(self, self.parameters(share, loss), share, loss)

    def parameters(self, share: np.ndarray, loss: np.ndarray, near: np.ndarray | None = None) -> np.ndarray:
        """Returns log c and t [1 + m] by least squares of log loss, from `near` or from several floors c."""
        starts = [near] if near is not None else [self._start(share, loss, floor) for floor in (0.1, 0.5, 0.9)]
        ends = [optimize.least_squares(self._residual, start, self._jacobian, args=(share, np.log(loss))) for start in starts]
        return np.asarray(min(ends, key=lambda end: float(end.cost)).x)

    def _start(self, share: np.ndarray, loss: np.ndarray, floor: float) -> np.ndarray:
        c = floor * loss.min()
        return np.concatenate([[np.log(c)], np.linalg.lstsq(share, np.log(loss - c), rcond=None)[0]])

    def log_loss(self, parameters: np.ndarray, share: np.ndarray) -> np.ndarray:
        return np.logaddexp(parameters[0], share @ parameters[1:])

    def _residual(self, parameters: np.ndarray, share: np.ndarray, log_loss: np.ndarray) -> np.ndarray:
        return self.log_loss(parameters, share) - log_loss

    def _jacobian(self, parameters: np.ndarray, share: np.ndarray, log_loss: np.ndarray) -> np.ndarray:
        varying = np.exp(share @ parameters[1:] - self.log_loss(parameters, share))  # share of the loss that depends on the mixture
        return np.concatenate([(1 - varying)[:, None], varying[:, None] * share], axis=1)


@dataclasses.dataclass(frozen=True)
class GaussianProcess:
    """A Gaussian process of log loss over the square roots of the shares, where mixtures are points of a sphere.

    A step from 0 to 1% of a domain is then as long as one from 16% to 25%, as losses show. The kernel is the sum of a smooth one, with a
    length for each domain, and a linear one. All of its numbers maximise the marginal likelihood.
    """

    equation: ClassVar[str] = "log L ~ GP(u = sqrt r), kernel s1^2 exp(-sum_j (u_j - v_j)^2 / (2 l_j^2)) + s2^2 u.v, noise s3^2"
    source: ClassVar[str] = "Rasmussen and Williams 2006, eq. 2.23, 5.1 and 5.8"

    def fit(self, share: np.ndarray, loss: np.ndarray) -> "Process":
        root, y = np.sqrt(share), np.log(loss)
        spread, domains = max(float(np.std(y)), 1e-6), share.shape[1]
        start = np.log([*[0.7] * domains, spread, spread, 0.1 * spread])
        sizes = [(spread / 50, 50 * spread), (spread / 50, 50 * spread), (1e-3 * spread, spread)]
        bounds = np.log([*[(0.05, 20.0)] * domains, *sizes])
        options = {"maxiter": 60}  # the order of held-out mixtures no longer changes then
        found = optimize.minimize(_evidence, start, (root, y - y.mean()), "L-BFGS-B", jac=True, bounds=bounds, options=options)
        return Process(found.x, root, y)


@dataclasses.dataclass(frozen=True)
class Process:
    """A fitted process: logs of the lengths [m], the smooth size, the linear size and the noise; the data it is conditioned on."""

    hyper: np.ndarray
    root: np.ndarray
    log_loss: np.ndarray

    def predict(self, share: np.ndarray) -> np.ndarray:
        return self._posterior(np.sqrt(share))[0]

    def draws(self, share: np.ndarray, count: int, seed: int) -> np.ndarray:
        root = np.sqrt(share)
        mean, half = self._posterior(root)
        values, vectors = np.linalg.eigh(sum(_kernels(self.hyper, root, root)) - half.T @ half)
        normal = bootstrap.generator(seed, "mixtures").standard_normal((count, len(share)))
        return mean + (normal * np.sqrt(np.maximum(values, 0))) @ vectors.T

    def _posterior(self, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the mean at roots of shares [n, m], and L^-1 k [rows, n], of which the covariance is made."""
        inside = sum(_kernels(self.hyper, self.root, self.root)) + np.exp(2 * self.hyper[-1]) * np.eye(len(self.root))
        factor = linalg.cholesky(inside, lower=True)
        centre = self.log_loss.mean()
        half = linalg.solve_triangular(factor, sum(_kernels(self.hyper, self.root, at)), lower=True)
        return centre + half.T @ linalg.solve_triangular(factor, self.log_loss - centre, lower=True), half


def _kernels(hyper: np.ndarray, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the smooth and the linear kernel of roots of shares."""
    p, q = a * np.exp(-hyper[:-3]), b * np.exp(-hyper[:-3])
    distance = np.maximum(np.sum(p * p, 1)[:, None] + np.sum(q * q, 1) - 2 * p @ q.T, 0.0)
    smooth, linear = np.exp(2 * hyper[-3:-1])
    return smooth * np.exp(-0.5 * distance), linear * a @ b.T


def _evidence(hyper: np.ndarray, root: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
    """Returns minus the log marginal likelihood, up to a constant, and its gradient."""
    near, inner = _kernels(hyper, root, root)
    noise = np.exp(2 * hyper[-1])
    factor = linalg.cholesky(near + inner + noise * np.eye(len(y)), lower=True)
    inverse = linalg.cho_solve((factor, True), np.eye(len(y)))
    pulled = inverse @ y
    outer = inverse - np.outer(pulled, pulled)
    pairs = outer * near
    apart = 2 * (pairs.sum(1) @ (root * root) - np.sum(root * (pairs @ root), axis=0))  # sum over pairs of (u_j - v_j)^2
    slopes = [*apart * np.exp(-2 * hyper[:-3]), 2 * pairs.sum(), 2 * np.sum(outer * inner), 2 * noise * np.trace(outer)]
    return float(0.5 * y @ pulled + np.sum(np.log(np.diag(factor)))), 0.5 * np.array(slopes)


MODELS: dict[str, MixtureModel] = {"process": GaussianProcess(), "exponential": Exponential(), "linear": Linear()}
