"""A law of one's own in five lines: names, inputs, starts and the formula in natural units.

    class Mine(Formula):
        parameters = ("E", "A", "alpha")
        inputs = ("N",)
        start = ((0.5, 2.0), (1.0, 100.0), (0.1, 0.5))
        pairs = (("A", "alpha", "N"),)  # optional: A N^-alpha is a term of the law

        def loss(self, p, x):
            return p.E + p.A * x.N**-p.alpha

The optimiser's coordinates are logarithms, so that every parameter is positive, except those that `signed` names. A coefficient that
`pairs` names is read at the centre of the inputs, which takes most of its correlation with the exponent away. Derivatives are JAX's.
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
    """A law by its formula. `held` fixes parameters at natural values: the rest are fitted.

    parameters: names in order. inputs: names of the inputs, all positive. start: for each parameter, the values that the starts combine.
    signed: parameters that may be negative. pairs: (coefficient, exponent, input) of the terms coefficient * input^-exponent.
    linear: parameters in which the loss is linear, without a constant; variable projection solves for them.
    """

    parameters: ClassVar[tuple[str, ...]]
    inputs: ClassVar[tuple[str, ...]]
    start: ClassVar[tuple[tuple[float, ...], ...]]
    signed: ClassVar[tuple[str, ...]] = ()
    pairs: ClassVar[tuple[tuple[str, str, str], ...]] = ()
    linear: ClassVar[tuple[str, ...]] = ()
    equation: ClassVar[str] = ""
    source: ClassVar[str] = ""

    held: tuple[tuple[str, float], ...] = ()

    def loss(self, p: Any, x: Any) -> Any:
        """Loss at the inputs `x.NAME` for the parameters `p.NAME`, in natural units; written with arithmetic and jax.numpy."""
        raise NotImplementedError  # the one thing that a law has to say

    @property
    def names(self) -> tuple[str, ...]:
        """Parameters that are fitted, in order."""
        fixed = dict(self.held)
        return tuple(name for name in self.parameters if name not in fixed)

    def design(self, log_x: np.ndarray, centre: np.ndarray) -> np.ndarray:
        """[n, 2p]: log inputs, and the centre beside each of them."""
        return np.concatenate([log_x, np.broadcast_to(centre, log_x.shape)], axis=-1)

    def log_loss(self, theta: Float[Array, " k"], x: Float[Array, "n q"]) -> Float[Array, " n"]:
        count = len(self.inputs)
        centre = {name: x[:, count + i] for i, name in enumerate(self.inputs)}
        at = dict(zip(self.names, theta, strict=True))
        values = dict(self.held) | {name: self._value(name, at, centre) for name in self.names}
        inputs = {name: jnp.exp(x[:, i]) for i, name in enumerate(self.inputs)}
        return jnp.log(self.loss(types.SimpleNamespace(**values), types.SimpleNamespace(**inputs)))

    def _value(self, name: str, at: Mapping[str, Any], centre: Mapping[str, Any]) -> Any:
        return at[name] if name in self.signed else jnp.exp(jnp.minimum(at[name] + self._shift(name, at, centre), _LARGEST))

    def _shift(self, name: str, at: Mapping[str, Any], centre: Mapping[str, Any]) -> Any:
        """log coefficient - its coordinate: the exponents times the log of the centre."""
        fixed = dict(self.held)
        total: Any = 0.0
        for coefficient, exponent, source in self.pairs:
            if coefficient == name:
                coordinate = at.get(exponent)
                power = fixed[exponent] if coordinate is None else coordinate if exponent in self.signed else jnp.exp(coordinate)
                total = total + power * centre[source]
        return total

    def starts(self, centre: np.ndarray) -> np.ndarray:
        """Every combination of the start values of the fitted parameters."""
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
        found: dict[str, Any] = dict(self.held)
        for i, name in enumerate(self.names):
            plain = are_natural or name in self.signed
            found[name] = values[..., i] if plain else np.exp(np.minimum(values[..., i], _LARGEST))
        return found

    def _centred(self, index: int, exponents: Mapping[str, Any], centre: np.ndarray) -> Any:
        own = [(exponent, source) for name, exponent, source in self.pairs if name == self.names[index]]
        return sum((exponents[exponent] * centre[self.inputs.index(source)] for exponent, source in own), 0.0)
