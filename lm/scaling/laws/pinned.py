"""A law at fixed values of some of its inputs (numpy only): of N, D and U it becomes one of N and D, which compute can be split by."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Array, Float

from lm.scaling.laws.law import Law


@dataclasses.dataclass(frozen=True)
class Pinned:
    """A law with (name, value) of inputs that are fixed. Its parameters and coordinates are the law's own.

    Log inputs and centres may come with the fixed inputs or without: the points of a fit keep the values that they were measured at.
    """

    law: Law
    at: tuple[tuple[str, float], ...]

    @property
    def names(self) -> tuple[str, ...]:
        return self.law.names

    @property
    def inputs(self) -> tuple[str, ...]:
        return tuple(name for name in self.law.inputs if name not in dict(self.at))

    @property
    def equation(self) -> str:
        where = ", ".join(f"{name} = {value:.4g}" for name, value in self.at)
        return f"{getattr(self.law, 'equation', '') or type(self.law).__name__}, at {where}"

    @property
    def source(self) -> str:
        return getattr(self.law, "source", "")

    def _whole(self, columns: np.ndarray) -> np.ndarray:
        columns = np.asarray(columns, float)
        if columns.shape[-1] == len(self.law.inputs):
            return columns
        parts = {name: columns[..., i] for i, name in enumerate(self.inputs)}
        parts |= {name: np.full(columns.shape[:-1], np.log(value)) for name, value in self.at}
        return np.stack([parts[name] for name in self.law.inputs], axis=-1)

    def _centre(self, centre: np.ndarray) -> np.ndarray:
        """Returns a centre with zeros for the fixed inputs where it comes without them: any origin serves that both sides use."""
        if len(centre) == len(self.law.inputs):
            return np.asarray(centre, float)
        known = dict(zip(self.inputs, centre, strict=True))
        return np.array([known.get(name, 0.0) for name in self.law.inputs])

    def design(self, log_x: np.ndarray, centre: np.ndarray) -> np.ndarray:
        return self.law.design(self._whole(log_x), self._centre(centre))

    def log_loss(self, theta: Float[Array, " k"], x: Float[Array, "n q"]) -> Any:
        return self.law.log_loss(theta, x)

    def starts(self, centre: np.ndarray) -> np.ndarray:
        return self.law.starts(self._centre(centre))

    def natural(self, theta: np.ndarray, centre: np.ndarray) -> np.ndarray:
        return self.law.natural(theta, self._centre(centre))

    def coordinates(self, natural: np.ndarray, centre: np.ndarray) -> np.ndarray:
        return self.law.coordinates(natural, self._centre(centre))
