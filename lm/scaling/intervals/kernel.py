"""The correlation of a smooth unknown function at two places (numpy only)."""

import math

import numpy as np


def matern(distance: np.ndarray) -> np.ndarray:
    """Returns Matern's correlation of smoothness 5/2 at distances over the length (Rasmussen and Williams 2006, eq. 4.17)."""
    d = math.sqrt(5.0) * distance
    return (1 + d + d * d / 3) * np.exp(-d)
