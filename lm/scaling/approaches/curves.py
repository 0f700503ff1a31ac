"""Curves through an IsoFLOP profile, and where they are lowest: parabola, cubic, and Akima's interpolation (numpy; scipy for Akima).

A polynomial is fitted to the loss in nats by least squares. Akima's piecewise cubic runs through every point of log loss (Porian et al.
2024, section 3.2), so that it has no residuals. All read log N - centre, or log D - centre where D* is asked for, and map the losses
linearly to what the minimum is read from, so that thousands of draws are one product of matrices. Which curve is used moves exponents by
up to .03: it is a choice of the analyst.
"""

import itertools
from typing import NamedTuple

import numpy as np

from lm.scaling.approaches.profiles import Profile

DEGREE = {"parabola": 2, "cubic": 3}
NAMES = (*DEGREE, "akima")
_PER_GAP = 25  # places per gap between sizes at which Akima's curve is read, as published


class Curve(NamedTuple):
    """A curve through k points at u = log N - centre, or log D - centre: coefficients [c], fitted losses [k], the map from losses to
    coefficients [c, k], leverage [k] (1 for a curve through every point). For Akima's curve the coefficients are the losses themselves."""

    kind: str
    centre: float
    u: np.ndarray
    coefficients: np.ndarray
    fitted: np.ndarray
    solver: np.ndarray
    leverage: np.ndarray


class Lowest(NamedTuple):
    """The minima of R curves within the sampled sizes: u [R], loss [R], and which have no interior minimum [R]."""

    u: np.ndarray
    loss: np.ndarray
    lost: np.ndarray


def through(profile: Profile, noise_weight: np.ndarray, kind: str = "parabola", along: str = "log_n") -> Curve:
    """Fits a curve of a kind to the losses of a profile along log N or log D. Points weigh by the inverse variance of their loss."""
    x = np.asarray(getattr(profile, along))
    centre = float(x.mean())
    u, loss = x - centre, np.exp(profile.log_loss)
    if kind == "akima":
        return Curve(kind, centre, u, loss, loss, np.eye(len(u)), np.ones(len(u)))
    design = np.stack([u**power for power in range(DEGREE[kind] + 1)], axis=1)
    root = np.sqrt(profile.weights(noise_weight))
    solver = np.linalg.pinv(design * root[:, None]) * root
    coefficients = solver @ loss
    return Curve(kind, centre, u, coefficients, design @ coefficients, solver, np.einsum("kj,jk->k", design, solver))


def lowest(curve: Curve, coefficients: np.ndarray) -> Lowest:
    """Finds the minima of curves [R, c] of the kind of `curve`. A lost one stands at the end of the grid towards which its curve falls."""
    return {"parabola": _parabola, "cubic": _cubic, "akima": _akima}[curve.kind](curve.u, coefficients)


def values(curve: Curve, u: np.ndarray) -> np.ndarray:
    """Returns the losses of the curve at u [m], for figures."""
    if curve.kind != "akima":
        return np.polynomial.polynomial.polyval(u, curve.coefficients)
    from scipy.interpolate import Akima1DInterpolator

    return np.exp(Akima1DInterpolator(curve.u, np.log(curve.coefficients))(u))


def _parabola(u: np.ndarray, coefficients: np.ndarray) -> Lowest:
    c0, c1, c2 = coefficients.T
    left, right = u.min(), u.max()
    with np.errstate(divide="ignore", invalid="ignore"):
        vertex = -c1 / (2 * c2)
    falling_left = c1 * left + c2 * left**2 <= c1 * right + c2 * right**2
    inside = (c2 > 0) & (vertex >= left) & (vertex <= right)
    at = np.where(c2 > 0, np.clip(vertex, left, right), np.where(falling_left, left, right))
    return Lowest(at, c0 + c1 * at + c2 * at * at, ~inside)


def _cubic(u: np.ndarray, coefficients: np.ndarray) -> Lowest:
    """Finds the local minimum where it lies inside and no end of the grid is lower."""
    c0, c1, c2, c3 = coefficients.T
    left, right = u.min(), u.max()

    def value(at: np.ndarray) -> np.ndarray:
        return c0 + at * (c1 + at * (c2 + at * c3))

    with np.errstate(divide="ignore", invalid="ignore"):
        root = np.sqrt(c2 * c2 - 3 * c1 * c3)
        vertex = np.where(
            c2 > 0, -c1 / (c2 + root), (root - c2) / (3 * c3)
        )  # the root of the slope at which it rises, without cancellation
    end = np.where(value(np.full_like(c0, left)) <= value(np.full_like(c0, right)), left, right)
    inside = (vertex >= left) & (vertex <= right) & (value(vertex) <= value(end))
    at = np.where(inside, vertex, end)
    return Lowest(at, value(at), ~inside)


def _akima(u: np.ndarray, coefficients: np.ndarray) -> Lowest:
    from scipy.interpolate import Akima1DInterpolator

    order = np.argsort(u)
    grid = np.unique(np.concatenate([np.linspace(a, b, _PER_GAP + 1) for a, b in itertools.pairwise(u[order])]))
    log_loss = Akima1DInterpolator(u[order], np.log(np.maximum(coefficients[:, order], 1e-300)).T)(grid)
    best = np.argmin(log_loss, axis=0)
    return Lowest(grid[best], np.exp(log_loss[best, np.arange(len(coefficients))]), (best == 0) | (best == len(grid) - 1))
