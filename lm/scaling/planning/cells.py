"""Which runs to make next: the cells that most shrink the interval of N*(C) for a fixed extra budget.

Candidates are budgets by sizes around the fitted N*; a cell may be chosen again, as one more seed. Each choice is judged by the expected
spread of log N* (`spread`), for noise of a stated size and the objective of the fit: the law is taken to hold.
"""

import dataclasses
from typing import Optional, Union

import numpy as np

from lm.errors import UserError
from lm.scaling.fits.frontier import Cost
from lm.scaling.fitted_law import Surface
from lm.scaling.intervals import noise as noise_lib
from lm.scaling.intervals.resampling import Sigma, SigmaOfC
from lm.scaling.planning.optimum import log_inputs, splits
from lm.scaling.planning.spread import Local, variance
from lm.scaling.results import Answer, Refusal, result
from lm.scaling.runs import Runs

MOST = 12  # cells of one answer
_BUDGETS, _SIZES, _WIDE = 7, 9, 5.0
_SWEEPS = 6  # of exchanges
_BEYOND = 3.0  # factor above the sampled compute up to which a cell may cost


@result
class NextCell:
    """A run to make, and the expected sd of log N* over today's when it and those before it are in."""

    n: float
    d: float
    flops: float
    shrinks_to: float


@result
class NextCells:
    """The cells in the order in which they help. `n_star` is today's interval at C = `flops`; `shrinks_to` is the expected factor on its
    logarithmic width; `alone` holds every candidate on its own."""

    flops: float
    extra_flops: float
    spent: float
    n_star: Answer
    sd: float  # expected sd of log N*, today
    shrinks_to: float
    sigma: str
    cells: tuple[NextCell, ...]
    alone: tuple[NextCell, ...]


class Constant:
    """One relative sd for every loss."""

    def __init__(self, sd: float):
        self.sd = sd

    def sigma(self, log_c: np.ndarray, log_loss: np.ndarray) -> np.ndarray:
        return np.full(np.shape(log_loss), self.sd)


def noise_of(surface: Surface, runs: Runs) -> tuple[Sigma, str]:
    """The noise that the table's seeds measure; without seeds, the sd of the fit's residuals."""
    found = noise_lib.fit_noise(runs)
    if not isinstance(found, Refusal):
        return SigmaOfC(found), "sigma(C) of the table's seeds"
    r = surface.fit.residuals
    sd = float(np.sqrt(np.sum(r**2) / (len(r) - len(surface.values))))
    if sd < 1e-9:
        raise UserError("the fit leaves no residuals, so the noise of a new run is unknown: add a column of seeds with --seed-column")
    return Constant(sd), f"sd of the residuals, {sd:.2%}"


def candidates(surface: Surface, cost: Cost, runs: Runs, extra_flops: float) -> tuple[np.ndarray, np.ndarray]:
    """log N and log D of the cells that could be run: seven budgets, at each nine sizes from N* / 5 to 5 N*, none dearer than the extra."""
    top = min(extra_flops, _BEYOND * float(runs.c.max()))
    log_c = np.linspace(np.log(min(float(runs.c.min()), top / 10)), np.log(top), _BUDGETS)
    star = surface.allocate(cost, log_c)[0].log_n[0]
    log_n = np.clip(star[:, None] + np.linspace(-1, 1, _SIZES) * np.log(_WIDE), cost.low - np.log(_WIDE), cost.high + np.log(_WIDE))
    log_d = log_c[:, None] - cost.log_flops_per_token(log_n)
    return log_n.ravel(), log_d.ravel()


def next_cells(
    surface: Surface, runs: Runs, cost: Cost, flops: float, extra_flops: float, noise: Optional[Sigma] = None, most: int = MOST
) -> Union[NextCells, Refusal]:
    """Spends `extra_flops` on the cells that most shrink the interval of N* at C = `flops`, `most` of them at most.

    Greedy choices, by what a cell gains over a power of its cost, are improved by exchanging one cell at a time until no exchange helps.
    """
    splits(surface.law)
    sigma, said = noise_of(surface, runs) if noise is None else (noise, "as given")
    local = Local(surface.law, surface.values, surface.fit.points.centre, surface.fit.objective)
    h = local.gradient(cost, np.log([flops]))[1][0]
    log_n, log_d = candidates(surface, cost, runs, extra_flops)
    log_x = log_inputs(surface.law, cost, log_n, log_d)
    log_c = cost.log_flops_per_token(log_n) + log_d
    measured = surface.fit.points.log_x
    base = [part.sum(axis=0) for part in local.terms(measured, _sd(sigma, surface, np.log(runs.c), measured))]
    now = float(variance(base[0], base[1], h))
    if not np.isfinite(now):
        return Refusal("unidentified", "the rows do not hold N* to first order (singular information): widen N or D first")
    offered = _Offered(local.terms(log_x, _sd(sigma, surface, log_c, log_x)), np.exp(log_c), h)
    picks = offered.ordered(base, offered.chosen(base, extra_flops, most))
    if not picks:
        return Refusal("missing", f"no cell for {extra_flops:.3g} FLOPs narrows N*: allow more")
    rows = [(i, np.sqrt(after / now)) for i, after in picks]
    alone = [(i, np.sqrt(after / now)) for i, after in enumerate(offered.after(base))]
    cells, single = (tuple(_cell(log_n, log_d, log_c, i, float(to)) for i, to in found) for found in (rows, alone))
    n_star = surface.answer_of(np.exp(surface.path(cost, np.log([flops])).log_n[:, 0]))
    spent = sum(cell.flops for cell in cells)
    return NextCells(flops, extra_flops, spent, n_star, float(np.sqrt(now)), cells[-1].shrinks_to, said, cells, single)


def _cell(log_n: np.ndarray, log_d: np.ndarray, log_c: np.ndarray, i: int, shrinks_to: float) -> NextCell:
    n, d, flops = (float(np.exp(column[i])) for column in (log_n, log_d, log_c))
    return NextCell(n, d, flops, shrinks_to)


def _sd(sigma: Sigma, surface: Surface, log_c: np.ndarray, log_x: np.ndarray) -> np.ndarray:
    return np.asarray(sigma.sigma(log_c, surface.fit.log_loss(log_x)), float)


@dataclasses.dataclass(frozen=True)
class _Offered:
    """The candidates: what each adds to H and V [m, k, k], what it costs [m], and the gradient of log N* [k]."""

    terms: tuple[np.ndarray, np.ndarray]
    flops: np.ndarray
    gradient: np.ndarray

    def after(self, base: list[np.ndarray]) -> np.ndarray:
        """[m]: the variance of log N* with each candidate added."""
        return variance(base[0] + self.terms[0], base[1] + self.terms[1], self.gradient)

    def chosen(self, base: list[np.ndarray], extra: float, most: int) -> list[int]:
        """The candidates chosen, with repeats, for `extra` FLOPs."""
        ways = [self._greedy(base, extra, most, power) for power in (0.0, 0.25, 0.5, 1.0)]
        picks = min(ways, key=lambda found: self._ends(base, found))
        reached = self._ends(base, picks)
        for _ in range(_SWEEPS):
            before = reached
            for slot in range(min(len(picks) + 1, most)):
                others = picks[:slot] + picks[slot + 1 :]
                after = self._affordable(self.after(self._with(base, others)), extra - self.flops[others].sum())
                if after.min() < reached * (1 - 1e-9):
                    reached, picks = float(after.min()), [*others, int(np.argmin(after))]
            if reached == before:
                break
        return picks

    def ordered(self, base: list[np.ndarray], picks: list[int]) -> list[tuple[int, float]]:
        """(candidate, variance afterwards), what helps most first."""
        found, left = [], list(picks)
        while left:
            after = self.after(base)
            i = min(left, key=lambda j: after[j])
            left.remove(i)
            found.append((i, float(after[i])))
            base = self._with(base, [i])
        return found

    def _greedy(self, base: list[np.ndarray], extra: float, most: int, power: float) -> list[int]:
        """By the gain over cost^power, until the compute or `most` is spent or nothing helps."""
        found: list[int] = []
        current = self._ends(base, [])
        while len(found) < most:
            after = self._affordable(self.after(base), extra)
            i = int(np.argmin(np.log(after / current) / self.flops**power))
            if not after[i] < current:
                break
            found.append(i)
            base, extra, current = self._with(base, [i]), extra - self.flops[i], float(after[i])
        return found

    def _with(self, base: list[np.ndarray], picks: list[int]) -> list[np.ndarray]:
        return [part + term[picks].sum(axis=0) for part, term in zip(base, self.terms, strict=True)]

    def _ends(self, base: list[np.ndarray], picks: list[int]) -> float:
        curvature, scatter = self._with(base, picks)
        return float(variance(curvature, scatter, self.gradient))

    def _affordable(self, after: np.ndarray, extra: float) -> np.ndarray:
        return np.where(self.flops <= extra * (1 + 1e-9), after, np.inf)
