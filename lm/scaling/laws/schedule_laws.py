"""The multi-power law: the training loss at any step of any learning-rate schedule, fitted to whole curves.

The law reads the whole schedule up to a point, not a few inputs. Its points are made by `curve_points`, not from the columns of a table.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lm.scaling.laws.points import Points

BLOCKS = 64  # drops of the rate that a fit keeps apart


class TrainingCurve(NamedTuple):
    """The loss curve of one run.

    Attributes:
      rates: learning rate of every step after warm-up [T].
      steps: the measured steps, as indices into `rates` [n].
      loss: losses of the measured steps [n].
      before: sum of the learning rate over the warm-up.
    """

    rates: np.ndarray
    steps: np.ndarray
    loss: np.ndarray
    before: float = 0.0


@dataclasses.dataclass(frozen=True)
class MultiPower:
    """L(t) = L0 + A S1^-alpha - B sum_k (eta_(k-1) - eta_k) (1 - (1 + C eta_k^-gamma S_k)^-beta), S1 and S_k the sums of the learning rate
    up to t from the start and from step k (Luo et al. 2025, eq. 1). Every parameter is positive; coordinates are logarithms."""

    names: tuple[str, ...] = ("L0", "A", "alpha", "B", "C", "beta", "gamma")
    inputs: tuple[str, ...] = ("S1", "schedule")
    linear: ClassVar[tuple[str, ...]] = ()
    equation: ClassVar[str] = "L = L0 + A / S1^alpha - B sum_k (eta_(k-1) - eta_k) (1 - (1 + C eta_k^-gamma S_k)^-beta)"
    source: ClassVar[str] = "Luo et al. 2025, eq. 1"

    def design(self, log_x: np.ndarray, centre: np.ndarray) -> np.ndarray:
        """Returns rows as `features` makes them; nothing is centred."""
        return log_x

    def log_loss(self, theta: Float[Array, " 7"], x: Float[Array, "n q"]) -> Float[Array, " n"]:
        floor, a, alpha, b, c, beta, gamma = jnp.exp(theta)
        blocks = (x.shape[1] - 1) // 3
        drop_nk, rate_nk, left_nk = (x[:, 1 + i * blocks : 1 + (i + 1) * blocks] for i in range(3))
        rate_nk = jnp.where(rate_nk > 0, rate_nk, 1.0)
        gain = drop_nk * -jnp.expm1(-beta * jnp.log1p(c * rate_nk**-gamma * left_nk))
        return jnp.log(floor + a * x[:, 0] ** -alpha - b * jnp.sum(gain, axis=1))

    def starts(self, centre: np.ndarray) -> np.ndarray:
        values = ((1.5, 2.5), (0.3, 1.0), (0.3, 0.6), (100.0, 500.0), (1.0, 5.0), (0.3, 0.8), (0.3, 0.8))
        return np.log(np.array(list(itertools.product(*values))))

    def natural(self, theta: np.ndarray, centre: np.ndarray) -> np.ndarray:
        return np.exp(np.minimum(theta, 700.0))

    def coordinates(self, natural: np.ndarray, centre: np.ndarray) -> np.ndarray:
        return np.log(np.asarray(natural, float))


def features(curve: TrainingCurve, blocks: int = BLOCKS) -> np.ndarray:
    """Returns the rows of the law's design.

    A block is a stretch of steps with an equal share of the whole fall of the learning rate. A rise is a negative drop of its block.

    Returns:
      [n, 1 + 3 blocks]: S1; the drop of the rate in each block up to the point; the block's mean rate; the mean S_k of its drops.
    """
    rates = np.asarray(curve.rates, float)
    total = curve.before + np.cumsum(rates)
    drops = -np.diff(rates)
    moving = np.flatnonzero(drops) + 1
    share = np.cumsum(np.abs(drops[moving - 1]))
    edges = np.searchsorted(share, np.linspace(0, share[-1], blocks + 1)[1:-1], side="left") if len(moving) > blocks else None
    parts = np.split(moving, edges) if edges is not None else [moving[i : i + 1] for i in range(len(moving))]
    found = np.zeros((len(curve.steps), 1 + 3 * blocks))
    found[:, 0] = total[curve.steps]
    for i, part in enumerate(p for p in parts if len(p)):
        size, before = drops[part - 1], total[part] - rates[part]
        seen = curve.steps[:, None] >= part[None]
        fallen = seen @ size
        found[:, 1 + i] = fallen
        found[:, 1 + blocks + i] = np.average(rates[part], weights=np.abs(size))
        mean = np.where(fallen != 0, seen @ (size * before) / np.where(fallen != 0, fallen, 1.0), total[curve.steps])
        found[:, 1 + 2 * blocks + i] = np.maximum(total[curve.steps] - mean, 0.0)
    return found


def curve_points(curves: Sequence[TrainingCurve], blocks: int = BLOCKS) -> Points:
    """Returns the points of a fit to whole curves, every measured step with weight 1."""
    x = np.concatenate([features(curve, blocks) for curve in curves])
    return Points(x, np.log(np.concatenate([curve.loss for curve in curves])), np.ones(len(x)))


def curve_loss(values: Sequence[float], curve: TrainingCurve) -> np.ndarray:
    """Returns the loss [n] at the measured steps for (L0, A, alpha, B, C, beta, gamma), from every step of the schedule: no blocks."""
    floor, a, alpha, b, c, beta, gamma = values
    rates = np.asarray(curve.rates, float)
    total = curve.before + np.cumsum(rates)
    drops = -np.diff(rates)
    moving = np.flatnonzero(drops) + 1
    fallen: list[Any] = []
    for step in curve.steps:
        k = moving[moving <= step]
        left = total[step] - total[k] + rates[k]
        fallen.append(np.sum(drops[k - 1] * (1 - (1 + c * rates[k] ** -gamma * left) ** -beta)))
    return floor + a * total[curve.steps] ** -alpha - b * np.array(fallen)
