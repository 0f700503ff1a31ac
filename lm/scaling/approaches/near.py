"""The optimum that a budget shows near its lowest loss: a parabola of log loss through the sizes about it alone (numpy only).

Where sizes span a factor of 100 no one parabola holds, and its minimum moves. How far the sizes nearby are off theirs is the optimum's own
uncertainty, whatever the reason. The backtest of approach 2 and its error starts from these (docs/backtest.md).
"""

import math
from typing import Optional

import numpy as np

WINDOW = math.log(6.0)  # sizes up to this factor from the minimum make its parabola
SIZES = 5  # the fewest that make one
MOST_SD = 0.5  # of the logarithm of the minimum: a budget that shows less does not show its optimum
_LEAST_SD = 3e-4  # of log loss about the parabola


def lowest(log_x: np.ndarray, log_loss: np.ndarray) -> Optional[tuple[float, float]]:
    """Returns where log loss is lowest in log N, or log D, and the standard deviation of that; None where a budget shows it nowhere."""
    sizes, index = np.unique(np.round(log_x, 9), return_inverse=True)
    if len(sizes) < SIZES:
        return None
    loss = np.bincount(index, log_loss) / np.bincount(index)
    at, sd = float(sizes[np.argmin(loss)]), math.inf
    for _ in range(3):  # the window follows the minimum
        near = np.sort(np.argsort(np.abs(sizes - at), kind="stable")[: max(SIZES, int(np.sum(np.abs(sizes - at) <= WINDOW)))])
        u = sizes[near] - at
        design = np.stack([np.ones_like(u), u, u * u], axis=1)
        coefficients = np.linalg.lstsq(design, loss[near], rcond=None)[0]
        _, slope, bend = coefficients
        if bend <= 0 or not u.min() < -slope / (2 * bend) < u.max():
            return None
        free = max(len(u) - 3, 1)
        variance = max(float(np.sum((loss[near] - design @ coefficients) ** 2)) / free, _LEAST_SD**2)
        gradient = np.array([0.0, -1 / (2 * bend), slope / (2 * bend**2)])
        sd = math.sqrt(variance * float(gradient @ np.linalg.inv(design.T @ design) @ gradient))
        at += float(-slope / (2 * bend))
    return (at, sd) if sd <= MOST_SD else None
