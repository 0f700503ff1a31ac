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
    """Returns log N* at log C = `at` [m] and its standard deviation [m], from optima [b] with standard deviations [b]; two are needed."""
    centre = log_c.mean()
    design, ahead = (np.stack([np.ones_like(x), x - centre], axis=1) for x in (log_c, at))
    within = matern(np.abs(log_c[:, None] - log_c) / LENGTH)
    across = matern(np.abs(at[:, None] - log_c) / LENGTH)
    found = []
    for tau in TAUS:
        for scatter in SCATTER:
            noise = np.diag(sd**2 + scatter**2 + _LEAST**2)
            evidence, mean, variance = _kriged(design, ahead, noise + tau**2 * within, tau**2 * across, log_n)
            prior = -0.5 * (np.log(tau / TAU) / TAU_SD) ** 2
            found.append((evidence + prior, mean, tau**2 + scatter**2 + variance))
    logs = np.array([one[0] for one in found])
    weights = np.exp(logs - logs.max())
    weights /= weights.sum()
    means, variances = (np.stack([one[i] for one in found]) for i in (1, 2))
    mean = weights @ means
    return mean, np.sqrt(weights @ (variances + means**2) - mean**2)


def _kriged(
    design: np.ndarray, ahead: np.ndarray, covariance: np.ndarray, across: np.ndarray, y: np.ndarray
) -> tuple[float, np.ndarray, np.ndarray]:
    """Returns the log restricted likelihood, the mean [m], and what the data change about the variance [m]."""
    inverse = np.linalg.inv(covariance)
    precision = design.T @ inverse @ design
    coefficients = np.linalg.solve(precision, design.T @ inverse @ y)
    left = y - design @ coefficients
    evidence = -0.5 * (np.linalg.slogdet(covariance)[1] + np.linalg.slogdet(precision)[1] + left @ inverse @ left)
    slope = ahead - across @ inverse @ design
    variance = np.sum((slope @ np.linalg.inv(precision)) * slope, axis=1) - np.sum((across @ inverse) * across, axis=1)
    return float(evidence), ahead @ coefficients + across @ inverse @ left, variance
