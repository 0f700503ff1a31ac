"""IsoFLOP profiles: end losses against size at one compute, by the planned budgets or interpolated to common ones (numpy only)."""

import dataclasses
import math
from typing import Union

import numpy as np

from lm.scaling.points import Cells, Size
from lm.scaling.results import Refusal

_TARGETS_MIN_SIZES = 5
_BUDGETS_PER_SIZE = 3
_MIN_RANGE = 3.0  # factor that the common values of C have to span


@dataclasses.dataclass(frozen=True)
class Profile:
    """Losses of k sizes at one compute, by increasing N.

    `mix` [k, cells] maps independent relative noise of the study's cells to that of the profile's points: an average or an interpolation.
    """

    budget: float  # the planned budget, or the common one
    log_c: float  # measured: mean over the cells
    sizes: tuple[Size, ...]
    ids: tuple[tuple[str, ...], ...]
    log_n: np.ndarray
    log_d: np.ndarray
    log_loss: np.ndarray
    seeds: np.ndarray
    mix: np.ndarray

    def weights(self, noise_weight: np.ndarray) -> np.ndarray:
        """Inverse variance of each point at equal sigma, with mean 1."""
        variance = (self.mix**2) @ (noise_weight**2)
        return variance.mean() / variance


def by_budget(cells: Cells) -> list[Profile]:
    """The profiles as planned: cells of one budget. Right in the convention that budgets are planned in, and in no other."""
    found = []
    for budget in sorted(set(cells.budget.tolist())):
        index = np.flatnonzero(cells.budget == budget)
        index = index[np.argsort(cells.log_n[index], kind="stable")]
        found.append(_profile(cells, budget, float(cells.log_c[index].mean()), index, np.eye(len(cells))[index], cells.log_d[index]))
    return found


def interpolated(cells: Cells, budgets: int) -> Union[list[Profile], Refusal]:
    """Profiles at `budgets` common log-spaced values of C, in any convention, without the planned labels.

    Each size that ran at three budgets or more gets log loss as a parabola in log C (least squares), read at the common values within
    the size's own range only; D follows from the size's FLOPs per token. The common values span where at least five sizes have data.
    """
    groups = [np.flatnonzero([size == other for other in cells.sizes]) for size in dict.fromkeys(cells.sizes)]
    groups = [g for g in groups if len(g) >= _BUDGETS_PER_SIZE]
    if len(groups) < _TARGETS_MIN_SIZES:
        reason = f"{len(groups)} sizes ran at {_BUDGETS_PER_SIZE} budgets or more; {_TARGETS_MIN_SIZES} are needed to interpolate in C"
        return Refusal("too_few_points", reason)
    low = np.sort([cells.log_c[g].min() for g in groups])[_TARGETS_MIN_SIZES - 1]
    high = np.sort([cells.log_c[g].max() for g in groups])[-_TARGETS_MIN_SIZES]
    if not high - low >= math.log(_MIN_RANGE):
        factor = math.exp(max(high - low, 0.0))
        reason = f"{_TARGETS_MIN_SIZES} sizes at once cover a factor {factor:.2g} of compute, not {_MIN_RANGE:g}: share more sizes"
        return Refusal("too_few_points", reason)
    return [_common(cells, groups, float(target)) for target in np.linspace(low, high, budgets)]


def _common(cells: Cells, groups: list[np.ndarray], target: float) -> Profile:
    """The profile at log C = target, of the sizes whose range holds it."""
    slack = 1e-9
    inside = [g for g in groups if cells.log_c[g].min() - slack <= target <= cells.log_c[g].max() + slack]
    inside.sort(key=lambda g: float(cells.log_n[g[0]]))
    mix = np.zeros((len(inside), len(cells)))
    for row, group in zip(mix, inside, strict=True):
        u = cells.log_c[group] - target
        root = np.sqrt(cells.seeds[group])
        design = np.stack([np.ones_like(u), u, u * u], axis=1)
        row[group] = np.linalg.pinv(design * root[:, None])[0] * root
    index = np.array([g[0] for g in inside])
    log_d = np.array([target - np.mean(cells.log_c[g] - cells.log_d[g]) for g in inside])
    made = _profile(cells, math.exp(target), target, index, mix, log_d)
    ids = tuple(tuple(name for i in g for name in cells.ids[i]) for g in inside)
    return dataclasses.replace(made, ids=ids, seeds=np.array([cells.seeds[g].sum() for g in inside]))


def _profile(cells: Cells, budget: float, log_c: float, index: np.ndarray, mix: np.ndarray, log_d: np.ndarray) -> Profile:
    return Profile(
        budget=float(budget),
        log_c=log_c,
        sizes=tuple(cells.sizes[i] for i in index),
        ids=tuple(cells.ids[i] for i in index),
        log_n=cells.log_n[index],
        log_d=log_d,
        log_loss=mix @ cells.log_loss,
        seeds=cells.seeds[index],
        mix=mix,
    )
