"""Seed noise: sigma(C), the standard deviation of log loss over seeds as a function of compute (numpy only).

Cell i with n_i seeds gives a variance s_i^2 of log loss with v_i = n_i - 1 degrees of freedom, v_i s_i^2 / sigma^2 ~ chi^2(v_i). The
model is log sigma(C) = log sigma_0 + slope log(C / C_0), fitted by maximum likelihood of all cells together, with a normal prior on
the slope about 0: a few cells at neighbouring budgets do not determine it, and it carries sigma to budgets without replicas.
"""

import math
import statistics
from typing import Union

import numpy as np

from lm.scaling.intervals.bootstrap import generator
from lm.scaling.results import Estimate, Refusal, result
from lm.scaling.runs import Runs
from lm.scaling.settings import AnalysisSettings

_FLOOR = 1e-6  # relative sd below which seeds count as identical


@result
class ReplicatedCell:
    """A cell with seeds: the sample sd of log loss and its degrees of freedom."""

    budget: float
    flops: float
    n: float
    sd: float
    dof: int


@result
class NoiseModel:
    """The seed noise sigma(C) = exp(log_sd + slope (log C - log_flops)).

    `covariance` is that of (log_sd, slope), by the curvature of the posterior.
    """

    log_sd: float
    slope: float
    log_flops: float
    covariance: tuple[tuple[float, float], tuple[float, float]]
    dof: int
    cells: tuple[ReplicatedCell, ...]
    level: float

    def sigma(self, log_c: np.ndarray) -> np.ndarray:
        """Returns the relative seed standard deviation at log FLOPs."""
        return np.exp(self.log_sd + self.slope * (np.asarray(log_c, float) - self.log_flops))

    def at(self, flops: float) -> Estimate:
        """Returns sigma at C with its interval."""
        u = np.array([1.0, math.log(flops) - self.log_flops])
        sd = math.sqrt(u @ np.array(self.covariance) @ u)
        value, z = float(self.sigma(np.array(math.log(flops)))), statistics.NormalDist().inv_cdf((1 + self.level) / 2)
        return Estimate(value, value * math.exp(-z * sd), value * math.exp(z * sd), self.level, "posterior curvature of log sigma")

    def draws(self, log_c: np.ndarray, count: int, seed: int) -> np.ndarray:
        """Draws sigma at log FLOPs [n] from its own uncertainty: [count, n], the same draws whatever is asked of them."""
        z = generator(seed, "sigma").standard_normal((count, 2))
        coefficients = np.array([self.log_sd, self.slope]) + z @ np.linalg.cholesky(np.array(self.covariance)).T
        return np.exp(coefficients[:, :1] + coefficients[:, 1:] * (np.asarray(log_c, float) - self.log_flops))


def fit_noise(runs: Runs, settings: AnalysisSettings = AnalysisSettings()) -> Union[NoiseModel, Refusal]:
    """Fits sigma(C) to the cells of a table that ran with several seeds (`Runs.replicas`), with C in the convention of the plan."""
    if runs.seed is None:
        return Refusal("no_replicas", "the table names no seeds: name their column with --seed-column=COLUMN, and repeat a few cells")
    found = replicated(runs)
    if not found:
        return Refusal("no_replicas", "no cell ran with more than one seed: three seeds of two cells of the smallest budget are the least")
    return _fit(found, settings)


def replicated(runs: Runs) -> tuple[ReplicatedCell, ...]:
    """Returns the sample standard deviation over the seeds of each cell that has several."""
    seeds, log_loss, flops = runs.seed or (), runs.log_loss, np.exp(runs.log_planned_c)
    cells = []
    for rows in runs.replicas():
        losses = {seeds[i]: log_loss[i] for i in rows}
        if len(losses) > 1:
            first = rows[0]
            budget = float(flops[first] if runs.budget is None else runs.budget[first])
            sd = float(np.std(list(losses.values()), ddof=1))
            cells.append(ReplicatedCell(budget, float(flops[first]), float(runs.n[first]), sd, len(losses) - 1))
    return tuple(cells)


def _fit(found: tuple[ReplicatedCell, ...], settings: AnalysisSettings) -> NoiseModel:
    """Finds the maximum of the posterior of log sigma_0 and the slope."""
    s2 = np.maximum([cell.sd**2 for cell in found], _FLOOR**2)
    dof = np.array([cell.dof for cell in found], float)
    log_c = np.log([cell.flops for cell in found])
    centre = float(np.average(log_c, weights=dof))
    design = np.stack([np.ones_like(log_c), log_c - centre], axis=1)
    prior = np.array([0.0, 1 / settings.noise_slope_sd**2])
    theta = np.array([0.5 * math.log(np.average(s2, weights=dof)), 0.0])
    for _ in range(100):  # Fisher scoring; the log posterior is concave in theta
        ratio = s2 * np.exp(-2 * design @ theta)
        gradient = design.T @ (dof * (ratio - 1)) - prior * theta
        step = np.linalg.solve(design.T @ (design * (2 * dof * np.maximum(ratio, 1e-3))[:, None]) + np.diag(prior), gradient)
        theta = theta + np.clip(step, -1, 1)
    information = design.T @ (design * (2 * dof)[:, None]) + np.diag(prior)
    covariance = np.linalg.inv(information)
    pairs = ((float(covariance[0, 0]), float(covariance[0, 1])), (float(covariance[1, 0]), float(covariance[1, 1])))
    return NoiseModel(float(theta[0]), float(theta[1]), centre, pairs, int(dof.sum()), found, settings.level)
