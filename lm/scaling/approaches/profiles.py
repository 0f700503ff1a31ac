"""IsoFLOP profiles: end losses against size at one compute, by the planned budgets or interpolated to common ones (numpy only)."""

import dataclasses
import math
from typing import Union

import numpy as np

from lm.errors import UserError, counted
from lm.scaling.results import Refusal
from lm.scaling.runs import Runs, Size

_TARGETS_MIN_SIZES = 5
_BUDGETS_PER_SIZE = 3
_MIN_RANGE = 3.0  # factor that the common values of C have to span


@dataclasses.dataclass(frozen=True)
class Profile:
    """The losses of k sizes at one compute, by increasing N.

    `mix` [k, cells] maps independent relative noise of the study's cells to that of the profile's points: an average or an interpolation.
    """

    budget: float  # the planned budget, or the common one
    log_c: float  # counted: mean over the cells; else the budget's
    sizes: tuple[Size, ...]
    ids: tuple[tuple[str, ...], ...]
    log_n: np.ndarray
    log_d: np.ndarray
    log_loss: np.ndarray
    seeds: np.ndarray
    mix: np.ndarray

    def weights(self, noise_weight: np.ndarray) -> np.ndarray:
        """Returns the inverse variance of each point at equal sigma, with mean 1."""
        variance = (self.mix**2) @ (noise_weight**2)
        return variance.mean() / variance


def by_budget(cells: Runs) -> list[Profile]:
    """Returns the profiles as planned: cells of one budget, those of one size (N, where sizes have no names) averaged whatever their D.

    `diagnostics.cells` refuses rows that are no replicas, and warns of rows of one budget and N whose D differ. UserError for a table
    without planned budgets.

    The cells of a budget share a C in the convention in which budgets are planned, and in no other. The C of a profile is what was counted;
    where nothing was, it is the budget, for 6 N D of the sampled sizes may stray from it, and more so at one end of the budgets.
    """
    if cells.budget is None:
        raise UserError("approach 2 needs a column of planned budgets: name it with --budget=COLUMN")
    names = cells.n.tolist() if cells.size is None else cells.size
    log_n, log_d, log_c = cells.log_n, cells.log_d, cells.log_c
    found = []
    for budget in sorted(set(cells.budget.tolist())):
        sizes: dict[object, list[int]] = {}
        for i in np.flatnonzero(cells.budget == budget):
            sizes.setdefault(names[i], []).append(int(i))
        groups = sorted((np.array(rows) for rows in sizes.values()), key=lambda rows: float(log_n[rows[0]]))
        mix = np.zeros((len(groups), len(cells)))
        for row, group in zip(mix, groups, strict=True):
            row[group] = cells.seeds[group] / cells.seeds[group].sum()
        at = float(log_c[np.concatenate(groups)].mean()) if cells.counted else math.log(budget)
        found.append(_profile(cells, budget, at, groups, mix, mix @ log_d))
    return found


def interpolated(cells: Runs, budgets: int) -> Union[list[Profile], Refusal]:
    """Returns profiles at `budgets` common log-spaced values of C, in any convention, without the planned labels.

    Each size that ran at three budgets or more gets log loss as a parabola in log C (least squares), read at the common values within
    the size's own range only; D follows from the size's FLOPs per token. The common values span where at least five sizes have data.
    """
    groups = [np.flatnonzero([size == other for other in cells.sizes]) for size in dict.fromkeys(cells.sizes)]
    log_c = cells.log_c
    groups = [g for g in groups if len(g) >= _BUDGETS_PER_SIZE]
    if len(groups) < _TARGETS_MIN_SIZES:
        reason = f"{counted(len(groups), 'size')} ran at {_BUDGETS_PER_SIZE} budgets or more; to interpolate takes {_TARGETS_MIN_SIZES}"
        return Refusal("too_few_points", reason)
    low = np.sort([log_c[g].min() for g in groups])[_TARGETS_MIN_SIZES - 1]
    high = np.sort([log_c[g].max() for g in groups])[-_TARGETS_MIN_SIZES]
    if not high - low >= math.log(_MIN_RANGE):
        factor = math.exp(max(high - low, 0.0))
        reason = f"{_TARGETS_MIN_SIZES} sizes at once cover a factor {factor:.2g} of compute, not {_MIN_RANGE:g}: share more sizes"
        return Refusal("too_few_points", reason)
    return [_common(cells, groups, float(target)) for target in np.linspace(low, high, budgets)]


def _common(cells: Runs, groups: list[np.ndarray], target: float) -> Profile:
    """Returns the profile at log C = target, of the sizes whose range holds it."""
    slack, log_c = 1e-9, cells.log_c
    inside = [g for g in groups if log_c[g].min() - slack <= target <= log_c[g].max() + slack]
    inside.sort(key=lambda g: float(cells.n[g[0]]))
    mix = np.zeros((len(inside), len(cells)))
    for row, group in zip(mix, inside, strict=True):
        u = log_c[group] - target
        root = np.sqrt(cells.seeds[group])
        design = np.stack([np.ones_like(u), u, u * u], axis=1)
        row[group] = np.linalg.pinv(design * root[:, None])[0] * root
    log_d = np.array([target - np.mean(log_c[g] - cells.log_d[g]) for g in inside])
    return _profile(cells, math.exp(target), target, inside, mix, log_d)


def _profile(cells: Runs, budget: float, log_c: float, groups: list[np.ndarray], mix: np.ndarray, log_d: np.ndarray) -> Profile:
    first = np.array([g[0] for g in groups], int)
    return Profile(
        budget=float(budget),
        log_c=log_c,
        sizes=tuple(cells.sizes[i] for i in first),
        ids=tuple(tuple(name for i in g for name in cells.ids[i]) for g in groups),
        log_n=cells.log_n[first],
        log_d=log_d,
        log_loss=mix @ cells.log_loss,
        seeds=np.array([cells.seeds[g].sum() for g in groups]),
        mix=mix,
    )
