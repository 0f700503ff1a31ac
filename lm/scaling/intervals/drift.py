"""A power law through measured optima whose exponent may drift: log N* = a log C + b + g(log C) + error (numpy only).

g is a Gaussian process with Matern's covariance over log C, as in `discrepancy`, of standard deviation tau. The minima are few, so that tau
gets a prior: log-normal about TAU. Results are averages over tau and over the scatter of the minima beyond their own standard deviations,
weighted by the restricted likelihood and the prior.
"""

import numpy as np

from lm.scaling.intervals.kernel import matern

LENGTH = 3.5  # of log C: a factor 33
TAU, TAU_SD = 0.2, 1.0  # median of the standard deviation of g, in log N, and the standard deviation of its logarithm
TAUS = TAU * 2.0 ** np.arange(-2.0, 3.25, 0.5)
SCATTER = (0.0, 0.03, 0.06, 0.12)  # standard deviations of log N* beyond the measured ones
_LEAST = 0.005


def extrapolate(log_c: np.ndarray, log_n: np.ndarray, sd: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns log N* at log C = `at` [m] and its standard deviation [m], from optima [b] with standard deviations [b]; two are needed.

    The scatter of the optima is part of it: what a budget at `at` would show.
    """
    return _combined(log_c, log_n, sd, at, np.eye(len(at)), scattered=True)


def exponent(log_c: np.ndarray, log_n: np.ndarray, sd: np.ndarray) -> tuple[float, float]:
    """Returns the slope of log N* on log C over the optima [b], and its standard deviation; two are needed.

    It is the slope of the line by least squares through a log C + b + g at the compute of the optima.
    """
    slope = np.linalg.pinv(np.stack([np.ones_like(log_c), log_c - log_c.mean()], axis=1))[1:]
    mean, spread = _combined(log_c, log_n, sd, log_c, slope, scattered=False)
    return float(mean[0]), float(spread[0])


def _combined(
    log_c: np.ndarray, log_n: np.ndarray, sd: np.ndarray, at: np.ndarray, mix: np.ndarray, scattered: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Returns linear combinations `mix` [q, m] of log N* at log C = `at` [m] and their standard deviations [q]."""
    centre = log_c.mean()
    design, ahead = (np.stack([np.ones_like(x), x - centre], axis=1) for x in (log_c, at))
    within, across, between = (matern(np.abs(a[:, None] - b) / LENGTH) for a, b in ((log_c, log_c), (at, log_c), (at, at)))
    tau, scatter = (grid.ravel()[:, None] for grid in np.meshgrid(TAUS, SCATTER, indexing="ij"))  # [g, 1]: every pair
    noise = (sd**2 + scatter**2 + _LEAST**2)[:, :, None] * np.eye(len(log_c))
    shared = tau[..., None] ** 2
    evidence, mean, variance = _kriged(design, mix @ ahead, noise + shared * within, shared * (mix @ across), log_n)
    apart = scatter**2 * np.sum(mix**2, axis=1) if scattered else 0.0
    variance = variance + tau**2 * np.sum((mix @ between) * mix, axis=1) + apart
    logs = evidence - 0.5 * (np.log(tau[:, 0] / TAU) / TAU_SD) ** 2
    weights = np.exp(logs - logs.max())
    weights /= weights.sum()
    best = weights @ mean
    return best, np.sqrt(np.maximum(weights @ (variance + mean**2) - best**2, 0.0))


def _kriged(
    design: np.ndarray, ahead: np.ndarray, covariance: np.ndarray, across: np.ndarray, y: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the log restricted likelihood [g], the means [g, q], and what the data change about the variances [g, q].

    `covariance` [g, b, b] is of the optima y [b], whose design is [b, 2]; `across` [g, q, b] is between what is asked, whose design is
    `ahead` [q, 2], and them.
    """
    inverse = np.linalg.inv(covariance)
    precision = design.T @ inverse @ design
    coefficients = np.linalg.solve(precision, (design.T @ inverse @ y)[..., None])[..., 0]
    left = y - coefficients @ design.T
    pulled = np.einsum("gab,gb->ga", inverse, left)
    evidence = -0.5 * (np.linalg.slogdet(covariance)[1] + np.linalg.slogdet(precision)[1] + np.sum(left * pulled, axis=1))
    weighted = across @ inverse
    slope = ahead - weighted @ design
    variance = np.sum((slope @ np.linalg.inv(precision)) * slope, axis=2) - np.sum(weighted * across, axis=2)
    return evidence, coefficients @ ahead.T + np.einsum("gqb,gb->gq", across, pulled), variance
