"""The compute-optimal path of a fitted law under a counted C: where L(N, D) is lowest among the (N, D) that cost C (numpy only)."""

from typing import NamedTuple

import numpy as np

from lm.scaling.points import Cells

_REACH = np.log(30.0)  # how far beyond the sampled sizes an optimum is looked for


class Cost(NamedTuple):
    """log(C / D) as a parabola in log N - centre over the sampled sizes, continued by its tangents."""

    coefficients: np.ndarray  # [3], constant first
    centre: float
    low: float
    high: float

    def log_flops_per_token(self, log_n: np.ndarray) -> np.ndarray:
        inside = np.clip(log_n, self.low, self.high)
        return self._value(inside) + self.slope(log_n) * (log_n - inside)

    def slope(self, log_n: np.ndarray) -> np.ndarray:
        """d log(C / D) / d log N: 1 for C = 6 N D."""
        u = np.clip(log_n, self.low, self.high) - self.centre
        return np.maximum(self.coefficients[1] + 2 * self.coefficients[2] * u, 1e-3)

    def _value(self, log_n: np.ndarray) -> np.ndarray:
        u = log_n - self.centre
        return self.coefficients[0] + self.coefficients[1] * u + self.coefficients[2] * u * u


def cost_of(cells: Cells) -> Cost:
    """FLOPs per token as a smooth function of N, from the counts of the runs themselves."""
    centre = float(cells.log_n.mean())
    u = cells.log_n - centre
    degree = min(2, len(set(np.round(u, 9).tolist())) - 1)
    coefficients = np.zeros(3)
    coefficients[: degree + 1] = np.polynomial.polynomial.polyfit(u, cells.log_c - cells.log_d, degree)
    return Cost(coefficients, centre, float(cells.log_n.min()), float(cells.log_n.max()))


class Optimum(NamedTuple):
    """Arrays [R, m]: log N*, log D*, log L*."""

    log_n: np.ndarray
    log_d: np.ndarray
    log_loss: np.ndarray


def optimum(natural: np.ndarray, cost: Cost, log_c: np.ndarray) -> Optimum:
    """The minimum of E + A N^-alpha + B D^-beta at each C for parameters (A, B, E, alpha, beta) [R, 5].

    Bisects the sign of dL/dlog N, which changes once while alpha, beta > 0; with an exponent of 0 or less the optimum runs to an end of the
    range, 30 times beyond the sampled sizes.
    """
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        a, b, e = np.log(natural[:, 0, None]), np.log(natural[:, 1, None]), natural[:, 2, None]
        alpha, beta = np.maximum(natural[:, 3, None], 1e-9), np.maximum(natural[:, 4, None], 1e-9)
        low = np.full((len(natural), len(log_c)), cost.low - _REACH)
        high = np.full_like(low, cost.high + _REACH)
        for _ in range(60):
            middle = 0.5 * (low + high)
            log_d = log_c - cost.log_flops_per_token(middle)
            falling = np.log(alpha) + a - alpha * middle > np.log(beta * cost.slope(middle)) + b - beta * log_d
            low, high = np.where(falling, middle, low), np.where(falling, high, middle)
        log_n = 0.5 * (low + high)
        log_d = log_c - cost.log_flops_per_token(log_n)
        return Optimum(log_n, log_d, np.log(e + np.exp(a - alpha * log_n) + np.exp(b - beta * log_d)))
