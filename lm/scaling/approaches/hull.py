"""Approach 1 by the lower convex hull of (log C, log loss), and power laws through the runs that lie on it (numpy only).

McLeish et al. 2025, section 4.1: seen from a vantage point above and to the right of every point, the hull's visible vertices are the runs
that no mixture of others beats; those at which loss falls are kept, and log N and log D are regressed on log C by least squares.
"""

from typing import Union

import numpy as np

from lm.errors import counted
from lm.scaling.results import Refusal, result
from lm.scaling.runs import Runs

MIN_POINTS = 5
MIN_SIZES = 3


@result
class HullPoint:
    """A row on the hull."""

    run: str
    n: float
    tokens: float
    flops: float
    loss: float


@result
class Hull:
    """The rows on the hull by increasing compute, and N* ~ C^a, D* ~ C^b by ordinary least squares over them.

    `sizes` are the distinct N on the hull, `edge` how many of its rows have the table's smallest or largest N: where these are many, a
    larger or a smaller size might have been lower.
    """

    a: float
    b: float
    log_n: float  # log N* at C = 1 on the fitted line
    log_d: float
    sizes: int
    edge: int
    points: tuple[HullPoint, ...]


def lower_hull(log_c: np.ndarray, log_loss: np.ndarray) -> np.ndarray:
    """Returns indices of the lower convex hull's vertices by increasing C, as far as loss falls (Andrew's monotone chain)."""
    order = np.lexsort((log_loss, log_c))
    chain: list[int] = []
    for i in order:
        while len(chain) >= 2 and _turn(log_c, log_loss, chain[-2], chain[-1], i) <= 0:
            chain.pop()
        if not (chain and log_c[chain[-1]] == log_c[i]):
            chain.append(int(i))
    kept = [chain[0]]
    for i in chain[1:]:
        if log_loss[i] < log_loss[kept[-1]]:
            kept.append(i)
    return np.array(kept)


def _turn(x: np.ndarray, y: np.ndarray, a: int, b: int, c: int) -> float:
    """Returns a positive number where a, b, c turn to the left: b lies below the line from a to c."""
    return float((x[b] - x[a]) * (y[c] - y[a]) - (y[b] - y[a]) * (x[c] - x[a]))


def fit_hull(runs: Runs) -> Union[Hull, Refusal]:
    """Fits approach 1 with every row as a candidate: rows of one training run are points of its loss curve."""
    log_c = np.log(runs.c)
    index = lower_hull(log_c, np.log(runs.loss))
    sizes = len(set(runs.n[index].tolist()))
    if len(index) < MIN_POINTS or sizes < MIN_SIZES:
        reason = (
            f"{counted(len(index), 'point')} of {counted(sizes, 'size')} on the lower hull; "
            f"{MIN_POINTS} of {MIN_SIZES} sizes are needed: add sizes and compute"
        )
        return Refusal("too_few_points", reason)
    design = np.stack([np.ones(len(index)), log_c[index]], axis=1)
    lines = np.linalg.lstsq(design, np.log(np.stack([runs.n[index], runs.d[index]], axis=1)), rcond=None)[0]
    edge = int(np.sum((runs.n[index] == runs.n.min()) | (runs.n[index] == runs.n.max())))
    points = tuple(HullPoint(runs.run[i], *(float(v[i]) for v in (runs.n, runs.d, runs.c, runs.loss))) for i in index)
    return Hull(float(lines[1, 0]), float(lines[1, 1]), float(lines[0, 0]), float(lines[0, 1]), sizes, edge, points)
