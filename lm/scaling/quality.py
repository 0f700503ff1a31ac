"""Rules for IsoFLOP profiles that are no good to read a minimum from, each a filter with a name (numpy; scipy for two of them).

A rule leaves out whole profiles, or sizes of profiles, and says why of each. The rules and their limits follow those by which public
IsoFLOP tables were curated (Czech et al. 2026, Open-Athena/scaling-law-analysis, data/transform.py); `edge` and the limit of `off_centre`
are ours.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterator

import numpy as np

from lm.errors import UserError, counted
from lm.scaling.approaches import curves, profiles
from lm.scaling.runs import Runs

LEAST_SIZES = 6
NEAR = 0.01  # relative distance of two sizes that count as one
OFF_CENTRE = 2.0  # factor between the minimum and the middle of the sizes
LOPSIDED = 2.5  # reach of a size from the minimum, over that of the shorter side
SIGNIFICANT = 0.95  # level at which a parabola's curvature has to differ from 0
OUTLYING = 6.0  # robust standard deviations from what the neighbours say

Left = Iterator[tuple[np.ndarray, str]]  # indices of cells, and why they are left out


@dataclasses.dataclass(frozen=True)
class Quality:
    """Leaves out profiles, or sizes of profiles, by one of RULES."""

    rule: str

    @property
    def name(self) -> str:
        return f"quality {self.rule}"

    def keep(self, runs: Runs) -> np.ndarray:
        kept = np.ones(len(runs), bool)
        replicas = runs.replicas()
        for cells, _ in self._left_out(runs):
            kept[np.concatenate([replicas[i] for i in cells])] = False
        return kept

    def reasons(self, runs: Runs) -> tuple[str, ...]:
        """Returns why each profile or size is left out."""
        return tuple(why for _, why in self._left_out(runs))

    def _left_out(self, runs: Runs) -> list[tuple[np.ndarray, str]]:
        if runs.budget is None:
            raise UserError(f"--quality {self.rule} is about profiles: name the column of planned budgets with --budget=COLUMN")
        return list(RULES[self.rule](runs.cells()))


def _duplicates(cells: Runs) -> Left:
    """Yields the sizes within 1% of another but for the one whose compute is nearest to the budget."""
    for budget, index in _budgets(cells):
        index = index[np.argsort(cells.n[index], kind="stable")]
        first = [0, *(1 + np.flatnonzero(np.diff(cells.log_n[index]) > NEAR)), len(index)]
        for start, end in itertools.pairwise(first):
            group = index[start:end]
            best = group[np.argmin(np.abs(cells.log_c[group] - np.log(budget)))]
            for i in group[group != best]:
                yield (
                    np.array([i]),
                    f"budget {budget:.3g}: {cells.run[i]}, N {cells.n[i]:.3g}, stands within {NEAR:.0%} of {cells.run[best]}",
                )


def _too_few(cells: Runs) -> Left:
    """Profiles of fewer than six sizes."""
    for budget, index in _budgets(cells):
        count = len(set(cells.n[index].tolist()))
        if count < LEAST_SIZES:
            yield index, f"budget {budget:.3g}: {counted(count, 'size')}, {LEAST_SIZES} are the least"


def _outlier(cells: Runs) -> Left:
    """Sizes whose loss is far from what Akima's curve through the other sizes of the profile says; the ends are not judged.

    One at a time, the furthest first: an outlier makes its neighbours look like some.
    """
    kept = np.ones(len(cells), bool)
    while True:
        found = [error for budget, _ in _budgets(cells) for error in _errors(cells, np.flatnonzero(kept & (cells.budget == budget)))]
        if not found:
            return
        error = np.array([value for _, value in found])
        apart = np.abs(error - np.median(error))
        scale = float(np.median(apart)) / 0.6745  # of a normal distribution the standard deviation
        worst = int(np.argmax(apart))
        if apart[worst] <= OUTLYING * scale + 1e-12:
            return
        i, value = found[worst]
        kept[i] = False
        what = f"{cells.run[i]}, N {cells.n[i]:.3g}, is {value:+.1%} off its neighbours, {apart[worst] / scale:.0f} standard deviations"
        yield np.array([i]), f"budget {cells.budget[i]:.3g}: {what}"  # type: ignore[index]  # profiles have budgets


def _errors(cells: Runs, index: np.ndarray) -> list[tuple[int, float]]:
    """Returns the inner sizes of a profile, each with log loss less Akima's curve through the others."""
    from scipy.interpolate import Akima1DInterpolator

    index = index[np.unique(cells.log_n[index], return_index=True)[1]]
    if len(index) < 5:
        return []
    found = []
    for i in range(1, len(index) - 1):
        rest = np.delete(index, i)
        expected = Akima1DInterpolator(cells.log_n[rest], cells.log_loss[rest])(cells.log_n[index[i]])
        found.append((int(index[i]), float(cells.log_loss[index[i]] - expected)))
    return found


def _concave(cells: Runs) -> Left:
    """Profiles whose parabola opens downwards."""
    for budget, index, c2, _ in _parabolas(cells):
        if c2 <= 0:
            yield index, f"budget {budget:.3g}: the parabola opens downwards"


def _flat(cells: Runs) -> Left:
    """Profiles whose parabola might as well open downwards: the interval of its curvature holds 0."""
    from scipy import special

    for profile in profiles.by_budget(cells):
        degrees = len(profile.log_n) - 3
        if degrees < 1:
            continue
        fit = curves.through(profile, cells.noise_weight)
        residual = np.exp(profile.log_loss) - fit.fitted
        sd = float(np.sqrt(residual @ residual / degrees * np.sum(fit.solver[2] ** 2)))
        reach = float(special.stdtrit(degrees, (1 + SIGNIFICANT) / 2)) * sd
        if 0 < fit.coefficients[2] <= reach:
            what = f"the curvature {fit.coefficients[2]:.2g} is not above its {SIGNIFICANT:.0%} uncertainty {reach:.2g}"
            yield np.flatnonzero(cells.budget == profile.budget), f"budget {profile.budget:.3g}: {what}"


def _edge(cells: Runs) -> Left:
    """Profiles whose minimum lies outside their sizes."""
    for budget, index, c2, star in _parabolas(cells):
        log_n = cells.log_n[index]
        if c2 > 0 and not log_n.min() < star < log_n.max():
            side = "below" if star <= log_n.min() else "above"
            yield index, f"budget {budget:.3g}: the minimum lies {side} the sizes"


def _off_centre(cells: Runs) -> Left:
    """Profiles whose minimum is more than twice off the middle of their sizes, which biases a parabola's minimum."""
    for budget, index, c2, star in _parabolas(cells):
        log_n = cells.log_n[index]
        apart = float(np.exp(abs(star - 0.5 * (log_n.min() + log_n.max()))))
        if c2 > 0 and log_n.min() < star < log_n.max() and apart > OFF_CENTRE:
            yield index, f"budget {budget:.3g}: the minimum is a factor {apart:.2g} off the middle of the sizes"


def _lopsided(cells: Runs) -> Left:
    """Sizes that lie more than 2.5 times as far from the minimum as the last size of the shorter side."""
    for budget, index, c2, star in _parabolas(cells):
        apart = cells.log_n[index] - star
        if c2 > 0 and apart.min() < 0 < apart.max():
            radius = min(-apart.min(), apart.max())
            for i in index[np.abs(apart) > LOPSIDED * radius]:
                yield np.array([i]), f"budget {budget:.3g}: {cells.run[i]}, N {cells.n[i]:.3g}, lies far out on one side of the minimum"


RULES: dict[str, Callable[[Runs], Left]] = {
    "duplicates": _duplicates,
    "too_few": _too_few,
    "lopsided": _lopsided,
    "outlier": _outlier,
    "concave": _concave,
    "flat": _flat,
    "edge": _edge,
    "off_centre": _off_centre,
}


def _budgets(cells: Runs) -> Iterator[tuple[float, np.ndarray]]:
    assert cells.budget is not None  # `Quality` asks for it
    for budget in sorted(set(cells.budget.tolist())):
        yield budget, np.flatnonzero(cells.budget == budget)


def _parabolas(cells: Runs) -> Iterator[tuple[float, np.ndarray, float, float]]:
    """Yields budget, cells, curvature and log N of the vertex of each profile's parabola."""
    for profile in profiles.by_budget(cells):
        if len(profile.log_n) >= 3:
            fit = curves.through(profile, cells.noise_weight)
            _, c1, c2 = fit.coefficients
            star = fit.centre - c1 / (2 * c2) if c2 != 0 else np.inf
            yield profile.budget, np.flatnonzero(cells.budget == profile.budget), float(c2), float(star)
