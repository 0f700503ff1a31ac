"""The compute-optimal path of a law under C as counted: the (N, D) of lowest loss among those that cost C (numpy only)."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from lm.scaling.laws.law import Law
from lm.scaling.runs import Runs

REACH = np.log(30.0)  # how far beyond the sampled sizes, in log N, an optimum is sought


def allocates(law: Law) -> bool:
    """Returns whether the law says how to split compute between N and D: it reads two of N, D, C and M = D / N, and nothing else."""
    return set(law.inputs) <= {"N", "D", "C", "M"} and len(law.inputs) >= 2


def log_inputs(law: Law, cost: "Cost", log_n: np.ndarray, log_d: np.ndarray) -> np.ndarray:
    """Returns the inputs of the law [..., p] at sizes and tokens of one shape."""
    known = {"N": log_n, "D": log_d, "C": cost.log_flops_per_token(log_n) + log_d, "M": log_d - log_n}
    return np.stack([known[name] for name in law.inputs], axis=-1)


class Cost(NamedTuple):
    """FLOPs per token of a model of N parameters: log(C / D) is a parabola in log N over the sampled sizes, continued by its tangents."""

    coefficients: np.ndarray  # [3], constant first
    centre: float
    low: float
    high: float
    sampled: tuple[float, float] = (-np.inf, np.inf)  # log C of the table

    def range(self, log_c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the least and largest log N at which the optimum of each C [m] is sought.

        They lie 30 times beyond the sampled sizes, and further by as much as C lies beyond the sampled compute: N* cannot exceed that
        while D* grows with C.
        """
        log_c = np.asarray(log_c, float)
        below, above = np.maximum(self.sampled[0] - log_c, 0.0), np.maximum(log_c - self.sampled[1], 0.0)
        return self.low - REACH - below, self.high + REACH + above

    def log_flops_per_token(self, log_n: np.ndarray) -> np.ndarray:
        inside = np.clip(log_n, self.low, self.high)
        return self._value(inside) + self.slope(log_n) * (log_n - inside)

    def size(self, flops_per_token: np.ndarray) -> np.ndarray:
        """Returns N [n] of models with these FLOPs per token, by Newton's steps; each step is exact beyond the sampled sizes."""
        target = np.log(flops_per_token)
        log_n = np.full(len(target), self.centre)
        for _ in range(50):
            log_n = log_n + (target - self.log_flops_per_token(log_n)) / self.slope(log_n)
        return np.exp(log_n)

    def slope(self, log_n: np.ndarray) -> np.ndarray:
        """Returns d log(C / D) / d log N, which is 1 for C = 6 N D."""
        u = np.clip(log_n, self.low, self.high) - self.centre
        return np.maximum(self.coefficients[1] + 2 * self.coefficients[2] * u, 1e-3)

    def _value(self, log_n: np.ndarray) -> np.ndarray:
        u = log_n - self.centre
        return self.coefficients[0] + self.coefficients[1] * u + self.coefficients[2] * u * u


def cost_of(runs: Runs) -> Cost:
    """Fits FLOPs per token as a smooth function of N to the counts of the runs; 6 N where the table counts no FLOPs."""
    log_n, log_c = runs.log_n, runs.log_c
    sampled = (float(log_c.min()), float(log_c.max()))
    if not runs.counted:
        return six_nd(runs.n.min(), runs.n.max())._replace(sampled=sampled)
    centre = float(log_n.mean())
    u = log_n - centre
    degree = min(2, len(set(np.round(u, 9).tolist())) - 1)
    coefficients = np.zeros(3)
    coefficients[: degree + 1] = np.polynomial.polynomial.polyfit(u, log_c - runs.log_d, degree)
    return Cost(coefficients, centre, float(log_n.min()), float(log_n.max()), sampled)


class Optimum(NamedTuple):
    """The compute-optimal path: log N*, log D* and log L* of R parameter vectors at m values of C, [R, m] each."""

    log_n: np.ndarray
    log_d: np.ndarray
    log_loss: np.ndarray


def optimum(natural: np.ndarray, cost: Cost, log_c: np.ndarray) -> Optimum:
    """Finds the minimum of E + A N^-alpha + B D^-beta at each C [m] for parameters (A, B, E, alpha, beta) [R, 5].

    Bisects the sign of dL/dlog N, which changes once while alpha, beta > 0. With an exponent of 0 or less the optimum is an end of
    `Cost.range`.
    """
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        a, b, e = np.log(natural[:, 0, None]), np.log(natural[:, 1, None]), natural[:, 2, None]
        alpha, beta = np.maximum(natural[:, 3, None], 1e-9), np.maximum(natural[:, 4, None], 1e-9)
        low, high = (np.tile(end, (len(natural), 1)) for end in cost.range(log_c))
        for _ in range(60):
            middle = 0.5 * (low + high)
            log_d = log_c - cost.log_flops_per_token(middle)
            falling = np.log(alpha) + a - alpha * middle > np.log(beta * cost.slope(middle)) + b - beta * log_d
            low, high = np.where(falling, middle, low), np.where(falling, high, middle)
        log_n = 0.5 * (low + high)
        log_d = log_c - cost.log_flops_per_token(log_n)
        return Optimum(log_n, log_d, np.log(e + np.exp(a - alpha * log_n) + np.exp(b - beta * log_d)))


def six_nd(low: float, high: float) -> Cost:
    """Returns the cost C = 6 N D, for sizes between `low` and `high` (an optimum is sought up to 30 times beyond them)."""
    return Cost(np.array([np.log(6.0), 1.0, 0.0]), 0.0, float(np.log(low)), float(np.log(high)))


def allocate(law: Law, natural: np.ndarray, cost: Cost, log_c: np.ndarray, fixed: Mapping[str, float] = MappingProxyType({})) -> Optimum:
    """Finds the minimum of any law of N and D at each C [m].

    Searches a grid of sizes over `Cost.range`, then bisects around the lowest.

    Args:
      natural: parameters of the law [R, k].
      fixed: values of the law's other inputs.
    """
    from lm.scaling.fits import solver

    origin = np.zeros(len(law.inputs))
    theta = law.coordinates(np.asarray(natural, float), origin)

    def log_loss(log_n: np.ndarray) -> np.ndarray:  # [R, m] -> [R, m]
        log_d = log_c - cost.log_flops_per_token(log_n)
        known = {"N": log_n, "D": log_d, "C": np.broadcast_to(log_c, log_n.shape), "M": log_d - log_n}
        known |= {name: np.full(log_n.shape, np.log(value)) for name, value in fixed.items()}
        x = np.stack([known[name] for name in law.inputs], axis=-1)
        return solver.predict_each(law, theta, law.design(x, origin))

    grid = np.linspace(*cost.range(log_c), 65)  # [65, m]
    values = np.stack([log_loss(np.tile(at, (len(theta), 1))) for at in grid])
    best = np.argmin(np.where(np.isfinite(values), values, np.inf), axis=0)
    columns = np.arange(len(log_c))
    low, high = grid[np.maximum(best - 1, 0), columns], grid[np.minimum(best + 1, len(grid) - 1), columns]
    log_n = _bisect(log_loss, low, high)
    return Optimum(log_n, log_c - cost.log_flops_per_token(log_n), log_loss(log_n))


def _bisect(of: Callable[[np.ndarray], np.ndarray], low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Returns the minimum of `of` between `low` and `high`, element by element, by bisection of the sign of its slope."""
    step = 1e-5
    for _ in range(44):
        middle = 0.5 * (low + high)
        falling = of(middle + step) < of(middle - step)
        low, high = np.where(falling, middle, low), np.where(falling, high, middle)
    return 0.5 * (low + high)
