"""The points that a law is fitted to (numpy only)."""

import dataclasses

import numpy as np

from lm.scaling.laws.law import Law


@dataclasses.dataclass(frozen=True)
class Points:
    """The data of a fit: log inputs [n, p], log loss [n], and the weights [n] of the terms of the objective (mean 1)."""

    log_x: np.ndarray
    log_loss: np.ndarray
    weights: np.ndarray

    @property
    def centre(self) -> np.ndarray:
        return self.log_x.mean(axis=0)

    def design(self, law: Law) -> np.ndarray:
        """Returns the rows that the law's `log_loss` reads."""
        return law.design(self.log_x, self.centre)
