"""The functions that a fit minimises (objectives of training are in lm.data.objectives): each defines a residual and its cost.

`cost` must be twice differentiable almost everywhere. `pull(r)` = cost'(r) / r is the weight with which iteratively reweighted least
squares majorises the cost: it must be positive and not increase with |r|.
"""

import dataclasses
from typing import ClassVar, Protocol

import jax.numpy as jnp
from jaxtyping import Array, Float


class Objective(Protocol):
    """A function that a fit minimises: the sum over points of the cost of a residual. `pull` is the slope of the cost over the residual."""

    def __hash__(self) -> int: ...

    @property
    def power(self) -> int:
        """The power by which a term is weighted for its noise, 1 / sd^power: 1 for a cost that is nearly absolute, 2 for squares."""

    def residual(self, predicted: Float[Array, " n"], observed: Float[Array, " n"]) -> Float[Array, " n"]: ...

    def cost(self, r: Float[Array, " n"]) -> Float[Array, " n"]: ...

    def pull(self, r: Float[Array, " n"]) -> Float[Array, " n"]: ...


@dataclasses.dataclass(frozen=True)
class HuberLog:
    """Huber's cost of log predicted - log observed: r^2 / 2 up to delta, then delta |r| - delta^2 / 2 (Hoffmann et al. 2022, eq. 3)."""

    delta: float = 1e-3
    power: ClassVar[int] = 1

    def residual(self, predicted: Float[Array, " n"], observed: Float[Array, " n"]) -> Float[Array, " n"]:
        return predicted - observed

    def cost(self, r: Float[Array, " n"]) -> Float[Array, " n"]:
        clipped = jnp.clip(r, -self.delta, self.delta)
        return clipped * (r - 0.5 * clipped)

    def pull(self, r: Float[Array, " n"]) -> Float[Array, " n"]:
        return self.delta / jnp.maximum(jnp.abs(r), self.delta)


@dataclasses.dataclass(frozen=True)
class SquaredLog:
    """The square r^2 of log predicted - log observed."""

    power: ClassVar[int] = 2

    def residual(self, predicted: Float[Array, " n"], observed: Float[Array, " n"]) -> Float[Array, " n"]:
        return predicted - observed

    def cost(self, r: Float[Array, " n"]) -> Float[Array, " n"]:
        return r * r

    def pull(self, r: Float[Array, " n"]) -> Float[Array, " n"]:
        return jnp.full_like(r, 2.0)


@dataclasses.dataclass(frozen=True)
class SquaredRaw(SquaredLog):
    """The square r^2 of predicted - observed, in nats^2: the residual sum of squares."""

    def residual(self, predicted: Float[Array, " n"], observed: Float[Array, " n"]) -> Float[Array, " n"]:
        return jnp.exp(predicted) - jnp.exp(observed)


_SMOOTHED = 1e-6  # half width of the parabola that rounds the kink of an absolute value


@dataclasses.dataclass(frozen=True)
class QuantileLog:
    """The quantile cost of log predicted - log observed, whose minimum is the q-quantile of log loss (Koenker and Bassett 1978).

    A residual costs q |r| if the prediction is too low and (1 - q) |r| if it is too high, rounded by a parabola within 1e-6 of 0.
    """

    q: float = 0.5
    power: ClassVar[int] = 1

    def residual(self, predicted: Float[Array, " n"], observed: Float[Array, " n"]) -> Float[Array, " n"]:
        return predicted - observed

    def cost(self, r: Float[Array, " n"]) -> Float[Array, " n"]:
        clipped = jnp.clip(r, -_SMOOTHED, _SMOOTHED)
        return self._side(r) * clipped * (r - 0.5 * clipped) / _SMOOTHED

    def pull(self, r: Float[Array, " n"]) -> Float[Array, " n"]:
        return self._side(r) / jnp.maximum(jnp.abs(r), _SMOOTHED)

    def _side(self, r: Float[Array, " n"]) -> Float[Array, " n"]:
        return jnp.where(r > 0, 1 - self.q, self.q)


@dataclasses.dataclass(frozen=True)
class AbsoluteLog(QuantileLog):
    """The absolute value |r| of log predicted - log observed (L1), rounded as in QuantileLog: its minimum is the median."""

    def _side(self, r: Float[Array, " n"]) -> Float[Array, " n"]:
        return jnp.ones_like(r)


OBJECTIVES = {"huber": HuberLog, "squared_log": SquaredLog, "squared_raw": SquaredRaw, "l1": AbsoluteLog, "quantile": QuantileLog}
