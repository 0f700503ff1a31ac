"""Checks of rows of equal inputs: repeats that are no seeds, seeds named twice, and rows that repeat another one.

The rows of a cell (`Runs.repeats`) have equal inputs, budget and end of schedule. Fits read repeats as independent
noise. If that is what they are, the means of cells scatter about a smooth surface as much as their rows let expect: the variance within
cells over that of k times the means about a surface of second order in the log inputs is then distributed as F, and smaller where the
surface does not fit. A sweep, or two corpora, moves all cells alike: rows of a cell lie far apart, and the means on a smooth surface.
"""

import itertools
from typing import NamedTuple, Optional

import numpy as np
from scipy import special

from lm.scaling.diagnostics.found import Found
from lm.scaling.results import Caution, Refusal
from lm.scaling.runs import Runs, near_duplicates

SAME_TOKENS = 0.02  # relative difference of D among rows of one budget and N
CHANCE = 1e-4  # probability of a false alarm where repeats are noise
FACTOR = 2.0  # by which the standard deviation within cells has to exceed what the means say
WIDEST = 0.2  # a range of log loss within a cell that no seeds have
_LEAST = 4  # degrees of freedom of the means about the surface


class Spread(NamedTuple):
    """The standard deviation of log loss within cells, that of the means about a smooth surface times sqrt(k), and their chance."""

    within: float
    between: float
    chance: float


def groups(runs: Runs) -> list[np.ndarray]:
    """Returns the rows of each cell that holds more than one."""
    index = runs.repeats()
    order = np.argsort(index, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(index[order])) + 1)
    return [rows for rows in parts if len(rows) > 1]


def repeats(runs: Runs) -> Optional[Found]:
    """Finds repeats that are no seeds: a Refusal, or a Caution where a column of seeds is named."""
    cells = groups(runs)
    if not cells or runs.members is not None:
        return None
    ranges = np.array([np.ptp(runs.log_loss[rows]) for rows in cells])
    spread = _spread(runs, cells)
    beyond = spread is not None and spread.chance < CHANCE and spread.within > FACTOR * spread.between
    if not beyond and ranges.max() <= WIDEST:
        return None
    widest = cells[int(np.argmax(ranges))]
    low, high = (widest[pick(runs.loss[widest])] for pick in (np.argmin, np.argmax))
    pair = f"{runs.run[low]} and {runs.run[high]} (loss {runs.loss[low]:.4g} and {runs.loss[high]:.4g})"
    count = sum(len(rows) for rows in cells)
    most = f"{np.expm1(ranges.max()):.0%}"
    what = f"{count} rows are {len(cells)} cells of equal N, D and budget, and differ within them by up to {most}, as {pair}"
    if runs.seed is not None:
        return Caution("mixed", f"{what}: more than the cells' means scatter, so that they are no seeds of one condition")
    column = varying(runs, cells)
    cause = f"{column} varies within them" if column else "a sweep or two conditions, not seeds"
    where = f"--where '{column}=VALUE' (or --input if the law reads it)" if column else "--where"
    mend = f"keep the lowest loss of each by --best, one condition by {where}, or name the seeds with --seed-column"
    return Refusal("mixed", f"{what}: {cause}; {mend}")


def _spread(runs: Runs, cells: list[np.ndarray]) -> Optional[Spread]:
    alone = np.setdiff1d(np.arange(len(runs)), np.concatenate(cells))
    every = [*cells, *(np.array([i]) for i in alone)]
    k = np.array([len(rows) for rows in every], float)
    mean = np.array([runs.log_loss[rows].mean() for rows in every])
    names = [name for name in runs.inputs if name not in ("C", "M")]
    x = np.stack([[np.log(runs.inputs[name][rows]).mean() for rows in every] for name in names])
    x = x - x.mean(axis=1, keepdims=True)
    products = [a * b for a, b in itertools.combinations_with_replacement(x, 2)]
    design = np.stack([np.ones(len(every)), *x, *products], axis=1) * np.sqrt(k)[:, None]
    y = np.sqrt(k) * mean
    solved, _, rank, _ = np.linalg.lstsq(design, y, rcond=1e-9)
    left, inner = len(every) - int(rank), int(np.sum(k - 1))
    if left < _LEAST:
        return None
    between = float(np.sum((y - design @ solved) ** 2)) / left
    within = sum(float(np.sum((runs.log_loss[rows] - runs.log_loss[rows].mean()) ** 2)) for rows in cells) / inner
    chance = float(special.fdtrc(inner, left, within / max(between, 1e-30)))
    return Spread(within**0.5, between**0.5, chance)


def varying(runs: Runs, cells: list[np.ndarray]) -> Optional[str]:
    """Returns the further column whose values explain most of the differences within cells; None if none varies there."""
    rows = np.concatenate(cells)
    apart = np.concatenate([runs.log_loss[cell] - runs.log_loss[cell].mean() for cell in cells])
    best: tuple[float, Optional[str]] = (-1.0, None)
    for name, column in runs.other.items():
        if not any(len({column[i] for i in cell}) > 1 for cell in cells):
            continue
        values, level = np.unique([column[i] for i in rows], return_inverse=True)
        sums = np.bincount(level, apart) ** 2 / np.bincount(level)
        share = float(sums.sum() / max(np.sum(apart**2), 1e-30)) if 2 * len(values) <= len(rows) else 0.0
        best = max(best, (share, name), key=lambda pair: pair[0])
    return best[1]


def twice(runs: Runs) -> Optional[Refusal]:
    """Refuses two rows of one cell with one seed: which of them the seed's loss is, nothing says."""
    if runs.seed is None or runs.members is not None:
        return None
    for rows in runs.replicas():
        seen: dict[str, int] = {}
        for i in rows:
            first = seen.setdefault(runs.seed[i], int(i))
            if first != i:
                what = f"{runs.run[first]} and {runs.run[i]} have one seed ({runs.seed[i]}) and equal inputs, and losses of their own"
                return Refusal("mixed", f"{what}: leave one out, or choose one condition by --where")
    return None


def duplicates(runs: Runs) -> Optional[Caution]:
    """Warns of rows whose inputs are those of another row and whose loss is too, but for rounding."""
    pairs = near_duplicates(runs)
    if not pairs:
        return None
    a, b = pairs[0]
    count = f"{len(pairs)} rows repeat" if len(pairs) > 1 else "1 row repeats"
    what = f"{count} another row's inputs and, but for rounding, its loss, as {runs.run[a]} and {runs.run[b]}"
    return Caution("duplicates", f"{what}: leave them out with --drop-duplicates, or name the column of seeds with --seed-column")


def tokens(runs: Runs) -> Optional[Caution]:
    """Warns of rows of one budget and N whose D differs: approach 2 takes them for one size and averages them."""
    if runs.budget is None or runs.size is not None or "D" not in runs.inputs:
        return None
    cells: dict[tuple[float, float], list[int]] = {}
    for i in range(len(runs)):
        cells.setdefault((float(runs.budget[i]), float(runs.n[i])), []).append(i)
    apart = [rows for rows in cells.values() if np.ptp(runs.log_d[rows]) > SAME_TOKENS]
    if not apart:
        return None
    worst = max(apart, key=lambda rows: float(np.ptp(runs.log_d[rows])))
    low, high = (worst[pick(runs.d[worst])] for pick in (np.argmin, np.argmax))
    what = f"{sum(map(len, apart))} rows share budget and N with another row of other D, as {runs.run[low]} and {runs.run[high]}"
    return Caution("mixed", f"{what} (D {runs.d[low]:.3g} and {runs.d[high]:.3g}): approach 2 averages them; keep one by --where")
