"""Constrained fits: a parameter, an exponent of N*(C) or D*(C), or N*, D*, D / N or the loss at one C is fixed, the rest is fitted.

A quantity of the optimum is no coordinate of a law. Two further coordinates, log N* and its change, and further rows fix it: along a
budget the slope of log L in log N is zero at N*. The weight of these rows is so large that the optimum meets them to 1e-4. This needs no
closed form of N*, so it serves every law of N and D, under C = 6 N D and under C as counted.
"""

import dataclasses
from typing import Any, Union

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lm.scaling.fits import frontier, solver
from lm.scaling.fits.fit import Fit
from lm.scaling.laws.law import Law

WEIGHT = 1e3  # weight of a constraint: a hundred times that of data; a larger one converges more slowly
KINDS = ("a", "b", "n", "d", "ratio", "loss")
_ROWS = 3  # stationary at the first C, stationary at the last C, loss at the last C
_ABOUT = 7  # columns of a constraint's place: log C and the six numbers of the cost


@dataclasses.dataclass(frozen=True)
class Derived:
    """A quantity of the compute-optimal path.

    "n", "d", "ratio" (D / N) and "loss" are those at `flops[-1]`, as logarithms. "a" and "b" are the slopes of log N* and log D* between
    `flops[0]` and `flops[-1]`.
    """

    kind: str
    flops: tuple[float, ...]
    cost: frontier.Cost

    @property
    def logarithm(self) -> bool:
        return self.kind not in ("a", "b")

    @property
    def span(self) -> float:
        return float(np.log(self.flops[-1] / self.flops[0]))

    def of(self, law: Law, natural: np.ndarray) -> np.ndarray:
        """Returns the quantity, or its logarithm, [R] for parameters [R, k]."""
        best = frontier.allocate(law, natural, self.cost, np.log([self.flops[0], self.flops[-1]]))
        if self.kind in ("a", "b"):
            path = best.log_n if self.kind == "a" else best.log_d
            return (path[:, 1] - path[:, 0]) / self.span
        n, d, loss = best.log_n[:, 1], best.log_d[:, 1], best.log_loss[:, 1]
        return {"n": n, "d": d, "ratio": d - n, "loss": loss}[self.kind]


@dataclasses.dataclass(frozen=True)
class Parameter:
    """A parameter of the law; a coefficient, in which the loss is linear, is fixed by its logarithm."""

    name: str
    logarithm: bool

    def of(self, law: Law, natural: np.ndarray) -> np.ndarray:
        column = natural[:, law.names.index(self.name)]
        with np.errstate(divide="ignore"):
            return np.log(column) if self.logarithm else column


def parameter(law: Law, name: str) -> Parameter:
    """Returns the parameter of this name."""
    return Parameter(name, name in getattr(law, "linear", ()))


Target = Union[Derived, Parameter]


@dataclasses.dataclass(frozen=True)
class ConstrainedLaw:
    """A law with two more coordinates, place and move, and three rows of constraints.

    The constraints are the slope of the loss at a first C and N = e^place, the slope at a last C and N = e^(place + move), and log L - move
    at the last C and N = e^place. `width` is the width of the law's own design. Further columns hold three marks, log C, the numbers of the
    cost, and the law's design as an affine function of log inputs.
    """

    law: Law
    width: int

    @property
    def inputs(self) -> tuple[str, ...]:
        return self.law.inputs

    def log_loss(self, theta: Float[Array, " k"], x: Float[Array, "n q"]) -> Float[Array, " n"]:
        own, place, move = theta[:-2], theta[-2], theta[-1]
        found = self.law.log_loss(own, x[:, : self.width])
        marks = x[:, self.width : self.width + _ROWS]
        about = marks.T @ x[:, self.width + _ROWS :]
        slope = jax.grad(self._loss, 1)
        values = (slope(own, place, about[0]), slope(own, place + move, about[1]), self._loss(own, place, about[2]) - move)
        for value, mark in zip(values, marks.T, strict=True):
            found = jnp.where(mark > 0.5, value, found)
        return found

    def _loss(self, theta: Any, log_n: Any, about: Any) -> Any:
        """Returns log loss at N under the C of the row."""
        log_c, rest = about[0], about[_ABOUT:]
        log_d = log_c - _per_token(about[1:_ABOUT], log_n)
        known = {"N": log_n, "D": log_d, "C": log_c, "M": log_d - log_n}
        x = rest[: self.width] + jnp.stack([known[name] for name in self.inputs]) @ rest[self.width :].reshape(-1, self.width)
        return self.law.log_loss(theta, x[None])[0]


def _per_token(cost: Any, log_n: Any) -> Any:
    """Computes `frontier.Cost.log_flops_per_token` in JAX; `cost` is three coefficients, centre, low, high."""
    inside = jnp.clip(log_n, cost[4], cost[5])
    u = inside - cost[3]
    slope = jnp.maximum(cost[1] + 2 * cost[2] * u, 1e-3)
    return cost[0] + cost[1] * u + cost[2] * u * u + slope * (log_n - inside)


def minimise(made: Fit, target: Target, values: np.ndarray, log_loss: np.ndarray, weights: np.ndarray, starts: np.ndarray) -> solver.Minima:
    """Minimises the objective with `target` fixed at `values` [M], for losses and weights [M, n] or [n], from starts [M, k]."""
    if isinstance(target, Parameter):
        return _coordinate(made, target, values, log_loss, weights, starts)
    design, k = made.points.design(made.law), starts.shape[1]
    lanes, rows = len(starts), _rows(target.kind)
    active = np.tile(np.array([float(name in rows) for name in range(_ROWS)]), (lanes, 1))
    y = np.concatenate([np.broadcast_to(log_loss, (lanes, len(design))), np.zeros_like(active)], axis=1)
    w = np.concatenate([np.broadcast_to(weights, (lanes, len(design))), WEIGHT * active], axis=1)
    place, move, free = _lanes(made, target, np.broadcast_to(values, lanes), starts)
    full = np.concatenate([starts, place[:, None], move[:, None]], axis=1)
    x = _with_rows(made, target, design)
    law: Any = ConstrainedLaw(made.law, design.shape[1])  # it has no starts, and `minimise` asks for none
    mask = np.concatenate([np.ones(k), np.array([free, False], float)])
    for _ in range(2):  # the exact phase compiles third derivatives for 10 s; two rough ones end within 1e-5 of the rise
        ends = solver.minimise(law, made.objective, x, y, w, full, free=mask, exact=False)
        full = np.where(np.isfinite(ends.theta), ends.theta, full)
    return ends._replace(theta=ends.theta[:, :k])


def _coordinate(
    made: Fit, target: Parameter, values: np.ndarray, log_loss: np.ndarray, weights: np.ndarray, starts: np.ndarray
) -> solver.Minima:
    """Fixes a parameter as a coordinate about an origin of 1, where coefficients do not mix with exponents."""
    law, centre = made.law, made.points.centre
    origin, i = np.zeros_like(centre), law.names.index(target.name)
    natural = law.natural(starts, centre)
    natural[:, i] = np.exp(values) if target.logarithm else values
    free = np.arange(starts.shape[1]) != i
    design = law.design(made.points.log_x, origin)
    ends = solver.minimise(law, made.objective, design, log_loss, weights, law.coordinates(natural, origin), free=free)
    return ends._replace(theta=law.coordinates(law.natural(ends.theta, origin), centre))


def _rows(kind: str) -> tuple[int, ...]:
    """Returns the constraints of a quantity: two optima for an exponent, the optimum and its loss for a loss, else the optimum."""
    return (0, 1) if kind in ("a", "b") else (0, 2) if kind == "loss" else (0,)


def _lanes(made: Fit, target: Derived, values: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray, bool]:
    """Returns starts of place and move by lane, and whether the place is free."""
    cost, log_c = target.cost, np.log([target.flops[0], target.flops[-1]])
    zero = np.zeros(len(starts))
    if target.kind in ("n", "d", "ratio"):
        return _size(target, values, log_c[1]), zero, False
    best = frontier.allocate(made.law, made.law.natural(starts, made.points.centre), cost, log_c)
    if target.kind == "loss":
        return best.log_n[:, 1], values, True
    if target.kind == "a":
        return best.log_n[:, 0], values * target.span, True
    end = _size(dataclasses.replace(target, kind="d"), best.log_d[:, 0] + values * target.span, log_c[1])
    return best.log_n[:, 0], end - best.log_n[:, 0], True


def _size(target: Derived, values: np.ndarray, log_c: float) -> np.ndarray:
    """Returns the log N at which N, D or D / N under C has the value, by bisection: each is monotone in N."""
    cost = target.cost
    low, high = (np.full(len(values), end) for end in (cost.low - 2 * frontier.REACH, cost.high + 2 * frontier.REACH))
    if target.kind == "n":
        return np.array(values, float)
    for _ in range(60):
        middle = 0.5 * (low + high)
        log_d = log_c - cost.log_flops_per_token(middle)
        above = (log_d if target.kind == "d" else log_d - middle) > values
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return 0.5 * (low + high)


def _with_rows(made: Fit, target: Derived, design: np.ndarray) -> np.ndarray:
    """Returns the design of the points, and below it the rows of constraints."""
    law, centre, count = made.law, made.points.centre, len(made.law.inputs)
    origin = law.design(np.zeros((1, count)), centre)[0]
    turn = law.design(np.eye(count), centre) - origin
    cost = target.cost
    numbers = [*cost.coefficients, cost.centre, cost.low, cost.high, *origin, *turn.ravel()]
    first = 0 if target.kind in ("a", "b") else -1
    about = np.array([[np.log(target.flops[i]), *numbers] for i in (first, -1, -1)])
    below = np.concatenate([np.tile(design.mean(axis=0), (_ROWS, 1)), np.eye(_ROWS), about], axis=1)
    return np.concatenate([np.pad(design, ((0, 0), (0, below.shape[1] - design.shape[1]))), below])
