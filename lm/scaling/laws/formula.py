"""The base class of a law that is written as a formula: its parameters, its inputs, values to start from, and the loss.

    class Mine(Formula):
        parameters = ("E", "A", "alpha")
        inputs = ("N",)
        start = ((0.5, 2.0), (1.0, 100.0), (0.1, 0.5))
        pairs = (("A", "alpha", "N"),)  # optional: A N^-alpha is a term of the law
        equation = "L = E + A / N^alpha"  # optional: printed with the fit

        def loss(self, p, x):
            return p.E + p.A * x.N**-p.alpha

The coordinates of the optimiser are logarithms, so every parameter is positive, except those that `signed` names. The coordinate of a
coefficient in `pairs` is its term at the geometric mean of the inputs, which removes most of the correlation between a coefficient and its
exponent. Derivatives are JAX's.

A quantity that may be negative, such as a reward, is a `LogFormula`.
"""

import dataclasses
import itertools
import types
from collections.abc import Mapping
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

_LARGEST = 700.0  # exp of more is not a float64


@dataclasses.dataclass(frozen=True)
class Formula:
    """A law given by its formula. A law of one's own inherits from this class and sets:

    - `parameters`: the names of the parameters, in order.
    - `inputs`: the names of the inputs, all positive: N, D, C, M = D / N, or a name that `--input=NAME=COLUMN` gives.
    - `start`: for each parameter, the values to start from; the fit starts from every combination.
    - `signed` (optional): the parameters that may be negative.
    - `pairs` (optional): (coefficient, exponent, input) of each term coefficient * input^-exponent; "1/N" is an input too.
    - `linear` (optional): the parameters p in which L = sum of p * (something without p), as E and A above; variable projection, a second
      way to the minimum, solves for them.
    - `equation`, `source` (optional): shown with the fit.
    - `derived` (optional): a method that names what follows from the parameters, such as where a curve peaks.

    `fixed` holds (name, value) of parameters that are not fitted.
    """

    parameters: ClassVar[tuple[str, ...]]
    inputs: ClassVar[tuple[str, ...]]
    start: ClassVar[tuple[tuple[float, ...], ...]]
    signed: ClassVar[tuple[str, ...]] = ()
    pairs: ClassVar[tuple[tuple[str, str, str], ...]] = ()
    linear: ClassVar[tuple[str, ...]] = ()
    equation: ClassVar[str] = ""
    source: ClassVar[str] = ""

    fixed: tuple[tuple[str, float], ...] = ()

    def loss(self, p: Any, x: Any) -> Any:
        """Returns the loss at inputs `x.NAME` for parameters `p.NAME`, in natural units, by arithmetic and jax.numpy."""
        raise NotImplementedError  # the one thing that a law has to say

    def log(self, p: Any, x: Any) -> Any:
        """Returns the log of `loss`."""
        return jnp.log(self.loss(p, x))

    def derived(self, p: Any, sampled: Mapping[str, tuple[float, float]]) -> dict[str, Any]:
        """Returns what follows from the parameters, by a name that says what it is: shown with the fit, with intervals.

        Args:
          p: the parameters `p.NAME`, arrays [m] or numbers.
          sampled: the range of every input in the table.
        """
        return {}

    @property
    def names(self) -> tuple[str, ...]:
        """The parameters that are fitted, in order."""
        fixed = dict(self.fixed)
        return tuple(name for name in self.parameters if name not in fixed)

    def design(self, log_x: np.ndarray, centre: np.ndarray) -> np.ndarray:
        """Returns [n, 2p]: log inputs, and their centre in every row."""
        return np.concatenate([log_x, np.broadcast_to(centre, log_x.shape)], axis=-1)

    def log_loss(self, theta: Float[Array, " k"], x: Float[Array, "n q"]) -> Float[Array, " n"]:
        count = len(self.inputs)
        centre = {name: x[:, count + i] for i, name in enumerate(self.inputs)}
        at = dict(zip(self.names, theta, strict=True))
        values = dict(self.fixed) | {name: self._value(name, at, centre) for name in self.names}
        inputs = {name: jnp.exp(x[:, i]) for i, name in enumerate(self.inputs)}
        return self.log(types.SimpleNamespace(**values), types.SimpleNamespace(**inputs))

    def derive(self, values: np.ndarray, sampled: Mapping[str, tuple[float, float]]) -> dict[str, np.ndarray]:
        """Returns `derived` of fitted parameters [m, k], as arrays [m]."""
        named = dict(self.fixed) | dict(zip(self.names, np.asarray(values, float).T, strict=True))
        with np.errstate(all="ignore"):
            found = self.derived(types.SimpleNamespace(**named), sampled)
        return {name: np.asarray(value, float) for name, value in found.items()}

    def _value(self, name: str, at: Mapping[str, Any], centre: Mapping[str, Any]) -> Any:
        return at[name] if name in self.signed else jnp.exp(jnp.minimum(at[name] + self._shift(name, at, centre), _LARGEST))

    def _shift(self, name: str, at: Mapping[str, Any], centre: Mapping[str, Any]) -> Any:
        """Returns the log of a coefficient less its coordinate: its exponents times the centre of their inputs."""
        fixed = dict(self.fixed)
        total: Any = 0.0
        for coefficient, exponent, source in self.pairs:
            if coefficient == name:
                coordinate = at.get(exponent)
                power = fixed[exponent] if coordinate is None else coordinate if exponent in self.signed else jnp.exp(coordinate)
                total = total + power * (-centre[source[2:]] if source.startswith("1/") else centre[source])
        return total

    def starts(self, centre: np.ndarray) -> np.ndarray:
        """Returns every combination of the values to start from, as coordinates [m, k]."""
        start = dict(zip(self.parameters, self.start, strict=True))
        grid = np.array(list(itertools.product(*(start[name] for name in self.names))), float)
        return self.coordinates(grid, centre)

    def natural(self, theta: np.ndarray, centre: np.ndarray) -> np.ndarray:
        theta = np.asarray(theta, float)
        values = [theta[..., i] + self._centred(i, self._exponents(theta, False), centre) for i in range(len(self.names))]
        columns = [v if n in self.signed else np.exp(np.minimum(v, _LARGEST)) for n, v in zip(self.names, values, strict=True)]
        return np.stack(columns, axis=-1)

    def coordinates(self, natural: np.ndarray, centre: np.ndarray) -> np.ndarray:
        natural = np.asarray(natural, float)
        with np.errstate(divide="ignore"):
            columns = [natural[..., i] if n in self.signed else np.log(natural[..., i]) for i, n in enumerate(self.names)]
        shifts = [self._centred(i, self._exponents(natural, True), centre) for i in range(len(self.names))]
        return np.stack([column - shift for column, shift in zip(columns, shifts, strict=True)], axis=-1)

    def _exponents(self, values: np.ndarray, are_natural: bool) -> dict[str, Any]:
        found: dict[str, Any] = dict(self.fixed)
        for i, name in enumerate(self.names):
            plain = are_natural or name in self.signed
            found[name] = values[..., i] if plain else np.exp(np.minimum(values[..., i], _LARGEST))
        return found

    def _centred(self, index: int, exponents: Mapping[str, Any], centre: np.ndarray) -> Any:
        own = [(exponent, source) for name, exponent, source in self.pairs if name == self.names[index]]
        at = {name: value for i, name in enumerate(self.inputs) for name, value in ((name, centre[i]), (f"1/{name}", -centre[i]))}
        return sum((exponents[exponent] * at[source] for exponent, source in own), 0.0)


class LogFormula(Formula):
    """A law of a quantity Q that may be negative, such as a reward: `log` gives Q, and the loss of the fit is exp Q.

    Residuals are then differences of Q. `--ln=COLUMN` says that a table's column holds Q.
    """

    def log(self, p: Any, x: Any) -> Any:
        """Returns Q at inputs `x.NAME` for parameters `p.NAME`. Every law of this kind has its own."""
        raise NotImplementedError

    def loss(self, p: Any, x: Any) -> Any:
        return jnp.exp(self.log(p, x))
