"""The expected covariance of a fit before its runs exist: the sandwich covariance of an M-estimator (Huber 1967), and the gradient of N*.

A fit solves sum_i psi(r_i) g_i = 0 with g_i the gradient of log loss at row i. With noise of known size its covariance is H^-1 V H^-1 to
first order, H = sum_i E[psi'] g_i g_i^T and V = sum_i E[psi^2] g_i g_i^T. Each row adds a term to both sums.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from lm.scaling.fits import frontier, solver
from lm.scaling.fits.objectives import Objective, SquaredRaw
from lm.scaling.laws.law import Law

_Z = np.linspace(-8.0, 8.0, 3201)
_MASS = np.exp(-0.5 * _Z**2) / np.sum(np.exp(-0.5 * _Z**2))
_STEP = 1e-4  # step of the coordinates in finite differences of log N*


@dataclasses.dataclass(frozen=True)
class Local:
    """A law near one parameter vector: natural values [k] and the centre [p] of its coordinates."""

    law: Law
    values: np.ndarray
    centre: np.ndarray
    objective: Objective

    @property
    def theta(self) -> np.ndarray:
        return self.law.coordinates(self.values, self.centre)

    def terms(self, log_x: np.ndarray, sigma: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the terms of H and of V [n, k, k] of rows with log inputs [n, p] and relative noise [n]."""
        design = self.law.design(log_x, self.centre)
        slope = solver.jacobian(self.law, self.theta, design)
        scale = np.exp(solver.predict(self.law, self.theta[None], design)[0]) if isinstance(self.objective, SquaredRaw) else 1.0
        curvature, variance = moments(self.objective, sigma * scale)
        outer = slope[:, :, None] * slope[:, None, :]
        return outer * (curvature * scale**2)[:, None, None], outer * (variance * scale**2)[:, None, None]

    def gradient(self, cost: frontier.Cost, log_c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns log N* at each C [m], and its gradient in the coordinates [m, k], by central differences."""
        moves = _STEP * np.eye(len(self.theta))
        places = self.law.natural(np.concatenate([self.theta[None], self.theta + moves, self.theta - moves]), self.centre)
        log_n = frontier.allocate(self.law, places, cost, log_c).log_n
        k = len(self.theta)
        return log_n[0], ((log_n[1 : 1 + k] - log_n[1 + k :]) / (2 * _STEP)).T


def moments(objective: Objective, sd: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns E[psi'] and E[psi^2] [n] of an objective under normal residuals of standard deviation [n].

    The first by Stein's lemma: E[psi r] / sd^2.
    """
    levels, index = np.unique(np.broadcast_to(sd, np.shape(sd)), return_inverse=True)
    r = levels[:, None] * _Z
    with jax.enable_x64(True):
        psi = np.asarray(objective.pull(jnp.asarray(r.ravel()))).reshape(r.shape) * r
    curvature = (psi * r) @ _MASS / levels**2
    return curvature[index], ((psi**2) @ _MASS)[index]


def variance(curvature: np.ndarray, scatter: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    """Returns h^T H^-1 V H^-1 h [...] for H and V [..., k, k] and h [k]; inf where H is singular to working precision."""
    scale = 1 / np.sqrt(np.maximum(np.einsum("...ii->...i", curvature), 1e-300))
    scaled = curvature * scale[..., :, None] * scale[..., None, :]
    singular = np.linalg.cond(scaled) > 1e13
    scaled = np.where(singular[..., None, None], np.eye(len(gradient)), scaled)
    solved = np.linalg.solve(scaled, (gradient * scale)[..., None])[..., 0] * scale
    return np.where(singular, np.inf, np.einsum("...i,...ij,...j->...", solved, scatter, solved))
