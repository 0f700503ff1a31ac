"""The weights of a bootstrap over rows or runs, kept as counts: 1,000 resamples of 100,000 rows would not fit a machine (numpy only)."""

import dataclasses
from typing import Any, Union

import numpy as np


@dataclasses.dataclass(frozen=True)
class Picks:
    """The weights [R, n] of R resamples of units, such as training runs: how often each unit was picked [R, units], and the unit and the
    weight of each row [n]."""

    counts: np.ndarray
    units: np.ndarray
    weights: np.ndarray

    def __len__(self) -> int:
        return len(self.counts)

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return self.rows(slice(None))

    def rows(self, which: slice) -> np.ndarray:
        """Returns the weights of some of the resamples."""
        return self.counts[which].astype(float)[:, self.units] * self.weights


Weights = Union[np.ndarray, Picks]
