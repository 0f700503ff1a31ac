"""The interface of a law, and Hoffmann's law, the default, whose coordinates and starts are those of the published fits.

A law says how log loss depends on the logarithms of its inputs, in coordinates that suit an optimiser. `design` turns log inputs [n, p] and
their mean, the centre, into the rows that `log_loss` reads. Here these are log x - centre, which removes most of the correlation between a
coefficient and its exponent. `natural` and `coordinates` translate between the coordinates and the parameters of the equation.
`formula.Formula` derives all of this from a formula: write a law of your own with it.
"""

import dataclasses
import itertools
from typing import ClassVar, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


class Law(Protocol):
    """A law as a fit sees it, with k coordinates and p inputs."""

    def __hash__(self) -> int: ...

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the parameters that are fitted, in order."""
        ...

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of the inputs, in order."""
        ...

    def design(self, log_x: np.ndarray, centre: np.ndarray) -> np.ndarray:
        """Returns the rows that `log_loss` reads, of log inputs [n, p] and their mean, the centre."""
        ...

    def log_loss(self, theta: Float[Array, " k"], x: Float[Array, "n p"]) -> Float[Array, " n"]:
        """Returns the log loss at rows of `design`, for coordinates theta."""
        ...

    def starts(self, centre: np.ndarray) -> np.ndarray:
        """Returns the coordinates [m, k] from which a fit starts."""
        ...

    def natural(self, theta: np.ndarray, centre: np.ndarray) -> np.ndarray:
        """Returns the parameters of the equation, given coordinates [..., k]."""
        ...

    def coordinates(self, natural: np.ndarray, centre: np.ndarray) -> np.ndarray:
        """Returns the coordinates, given parameters of the equation [..., k]: the inverse of `natural`."""
        ...


def log_sum_exp(*terms: Float[Array, " n"]) -> Float[Array, " n"]:
    """Returns log(sum of exp(term)) with the largest term taken out, smooth under differentiation."""
    stacked = jnp.stack(terms)
    top = jax.lax.stop_gradient(jnp.max(stacked, axis=0))
    return top + jnp.log(jnp.sum(jnp.exp(stacked - top), axis=0))


@dataclasses.dataclass(frozen=True)
class Chinchilla:
    """L(N, D) = E + A / N^alpha + B / D^beta (Hoffmann et al. 2022, eq. 2), in nats.

    Coordinates (a, b, e, alpha, beta): log of the N term and of the D term at the centre, log E, and the exponents. With C = k N D the
    optimum is N* ~ C^(beta / (alpha + beta)).
    """

    names: tuple[str, ...] = ("A", "B", "E", "alpha", "beta")
    inputs: tuple[str, ...] = ("N", "D")
    linear: ClassVar[tuple[str, ...]] = ("A", "B", "E")
    equation: ClassVar[str] = "L = E + A / N^alpha + B / D^beta"
    source: ClassVar[str] = "Hoffmann et al. 2022, eq. 2"

    def design(self, log_x: np.ndarray, centre: np.ndarray) -> np.ndarray:
        return log_x - centre

    def log_loss(self, theta: Float[Array, " 5"], x: Float[Array, "n 2"]) -> Float[Array, " n"]:
        a, b, e, alpha, beta = theta
        return log_sum_exp(a - alpha * x[:, 0], b - beta * x[:, 1], jnp.broadcast_to(e, x.shape[:1]))

    def starts(self, centre: np.ndarray) -> np.ndarray:
        """Returns Hoffmann's grid of 4,500 starts: log A, log B in 0, 5..25, log E in -1, -.5..1, alpha, beta in 0, .5..2."""
        coefficient, exponent = np.arange(0.0, 30.0, 5.0), np.arange(0.0, 2.5, 0.5)
        grid = np.array(list(itertools.product(coefficient, coefficient, np.arange(-1.0, 1.5, 0.5), exponent, exponent)))
        return _shift(grid, -centre)

    def natural(self, theta: np.ndarray, centre: np.ndarray) -> np.ndarray:
        """Returns (A, B, E, alpha, beta) of coordinates [..., 5]."""
        moved = _shift(theta, centre)
        return np.concatenate([np.exp(np.minimum(moved[..., :3], 700.0)), moved[..., 3:]], axis=-1)

    def coordinates(self, natural: np.ndarray, centre: np.ndarray) -> np.ndarray:
        """Inverts `natural`; coefficients are positive."""
        natural = np.asarray(natural, float)
        with np.errstate(divide="ignore"):  # a coefficient of 0
            coefficients = np.log(natural[..., :3])
        return _shift(np.concatenate([coefficients, natural[..., 3:]], axis=-1), -centre)


@dataclasses.dataclass(frozen=True)
class TiedChinchilla:
    """L(N, D) = E + A / N^alpha + B / D^alpha: N* and D* grow alike. Coordinates (a, b, e, alpha)."""

    names: tuple[str, ...] = ("A", "B", "E", "alpha")
    inputs: tuple[str, ...] = ("N", "D")
    linear: ClassVar[tuple[str, ...]] = ("A", "B", "E")
    equation: ClassVar[str] = "L = E + A / N^alpha + B / D^alpha"
    source: ClassVar[str] = "Muennighoff et al. 2023, stage 1: Hoffmann's law with equal exponents"

    def design(self, log_x: np.ndarray, centre: np.ndarray) -> np.ndarray:
        return log_x - centre

    def log_loss(self, theta: Float[Array, " 4"], x: Float[Array, "n 2"]) -> Float[Array, " n"]:
        return Chinchilla().log_loss(jnp.concatenate([theta, theta[3:]]), x)

    def starts(self, centre: np.ndarray) -> np.ndarray:
        """Returns the 900 of Hoffmann's starts whose exponents are equal."""
        full = Chinchilla().starts(centre)
        return full[full[:, 3] == full[:, 4], :4]

    def natural(self, theta: np.ndarray, centre: np.ndarray) -> np.ndarray:
        return Chinchilla().natural(_untied(theta), centre)[..., :4]

    def coordinates(self, natural: np.ndarray, centre: np.ndarray) -> np.ndarray:
        return Chinchilla().coordinates(_untied(natural), centre)[..., :4]


def _untied(theta: np.ndarray) -> np.ndarray:
    theta = np.asarray(theta, float)
    return np.concatenate([theta, theta[..., 3:]], axis=-1)


def _shift(theta: np.ndarray, by: np.ndarray) -> np.ndarray:
    """Returns coordinates whose origin in (log N, log D), where the two terms are read, is moved by `by`."""
    moved = np.array(theta, float)
    moved[..., :2] += moved[..., 3:5] * by
    return moved
