"""The runs to make next: the cells that shrink the interval of N*(C) the most for a fixed amount of compute.

Candidates are sizes around the fitted N* at several budgets. A cell may be chosen again, as one more seed. A choice is judged by the
expected standard deviation of log N* (`spread`) under the noise and the objective of the fit, on the assumption that the law holds.
"""

import dataclasses
from typing import Optional, Union

import numpy as np

from lm.errors import UserError
from lm.scaling.fits.frontier import Cost, log_inputs
from lm.scaling.fitted_law import FittedLaw
from lm.scaling.intervals import noise as noise_lib
from lm.scaling.intervals.resampling import Sigma, SigmaOfC
from lm.scaling.planning.optimum import splits
from lm.scaling.planning.spread import Local, variance
from lm.scaling.results import Answer, Refusal, result
from lm.scaling.runs import Runs

MOST = 12  # largest number of cells in an answer
_BUDGETS, _SIZES, _WIDE = 7, 9, 5.0
_SWEEPS = 6  # sweeps of exchanges
_BEYOND = 3.0  # factor above the sampled compute up to which a cell may cost


@result
class NextCell:
    """A run to make. `shrinks_to` is the expected standard deviation of log N*, relative to today's, after it and those before it."""

    n: float
    d: float
    flops: float
    shrinks_to: float


@result
class NextCells:
    """The cells to run, the most helpful first.

    `n_star` is today's interval at C = `flops`; `shrinks_to` is the expected factor on its logarithmic width; `alone` holds every candidate
    on its own.
    """

    flops: float
    extra_flops: float
    spent: float
    n_star: Answer
    sd: float  # expected standard deviation of log N* today
    shrinks_to: float
    sigma: str
    cells: tuple[NextCell, ...]
    alone: tuple[NextCell, ...]


class Constant:
    """Noise with one relative standard deviation for every loss."""

    def __init__(self, sd: float):
        self.sd = sd

    def sigma(self, log_c: np.ndarray, log_loss: np.ndarray) -> np.ndarray:
        return np.full(np.shape(log_loss), self.sd)


def noise_of(fitted: FittedLaw, runs: Runs) -> tuple[Sigma, str]:
    """Returns the noise that the table's seeds measure, or without seeds that of the residuals, and its description."""
    found = noise_lib.fit_noise(runs)
    if not isinstance(found, Refusal):
        return SigmaOfC(found), "sigma(C) of the table's seeds"
    r = fitted.fit.residuals
    sd = float(np.sqrt(np.sum(r**2) / (len(r) - len(fitted.values))))
    if sd < 1e-9:
        raise UserError("the fit leaves no residuals, so the noise of a new run is unknown: add a column of seeds with --seed-column")
    return Constant(sd), f"standard deviation of the residuals, {sd:.2%}"


def candidates(fitted: FittedLaw, cost: Cost, runs: Runs, extra_flops: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns log N and log D of the candidates: seven budgets up to the extra compute, at each nine sizes from N* / 5 to 5 N*."""
    top = min(extra_flops, _BEYOND * float(runs.c.max()))
    log_c = np.linspace(np.log(min(float(runs.c.min()), top / 10)), np.log(top), _BUDGETS)
    star = fitted.allocate(cost, log_c)[0].log_n[0]
    log_n = np.clip(star[:, None] + np.linspace(-1, 1, _SIZES) * np.log(_WIDE), cost.low - np.log(_WIDE), cost.high + np.log(_WIDE))
    log_d = log_c[:, None] - cost.log_flops_per_token(log_n)
    return log_n.ravel(), log_d.ravel()


def next_cells(
    fitted: FittedLaw, runs: Runs, cost: Cost, flops: float, extra_flops: float, noise: Optional[Sigma] = None, most: int = MOST
) -> Union[NextCells, Refusal]:
    """Spends `extra_flops` on the cells, at most `most`, that shrink the interval of N* at C = `flops` the most.

    Cells are chosen greedily, by their gain over a power of their cost, and then exchanged one at a time until no exchange helps.
    """
    splits(fitted.law)
    least = float(runs.c.min())
    if extra_flops < least:
        raise UserError(f"--extra={extra_flops:.3g} is less than the table's cheapest run took, {least:.3g} FLOPs: give as much or more")
    sigma, said = noise_of(fitted, runs) if noise is None else (noise, "as given")
    local = Local(fitted.law, fitted.values, fitted.fit.points.centre, fitted.fit.objective)
    h = local.gradient(cost, np.log([flops]))[1][0]
    log_n, log_d = candidates(fitted, cost, runs, extra_flops)
    log_x = log_inputs(fitted.law, cost, log_n, log_d)
    log_c = cost.log_flops_per_token(log_n) + log_d
    measured = runs.log_x(fitted.law.inputs)  # seeds apart, whose cells the points of the fit are
    base = [part.sum(axis=0) for part in local.terms(measured, _sd(sigma, fitted, np.log(runs.c), measured))]
    now = float(variance(base[0], base[1], h))
    if not np.isfinite(now):
        return Refusal("unidentified", "the rows do not determine N* (singular information matrix): widen N or D first")
    offered = _Offered(local.terms(log_x, _sd(sigma, fitted, log_c, log_x)), np.exp(log_c), h)
    picks = offered.ordered(base, offered.chosen(base, extra_flops, most))
    if not picks:
        return Refusal("missing", f"no run of {extra_flops:.3g} FLOPs narrows N*: allow more compute")
    rows = [(i, np.sqrt(after / now)) for i, after in picks]
    alone = [(i, np.sqrt(after / now)) for i, after in enumerate(offered.after(base))]
    cells, single = (tuple(_cell(log_n, log_d, log_c, i, float(to)) for i, to in found) for found in (rows, alone))
    n_star = fitted.answer_of(np.exp(fitted.path(cost, np.log([flops])).log_n[:, 0]))
    spent = sum(cell.flops for cell in cells)
    return NextCells(flops, extra_flops, spent, n_star, float(np.sqrt(now)), cells[-1].shrinks_to, said, cells, single)


def _cell(log_n: np.ndarray, log_d: np.ndarray, log_c: np.ndarray, i: int, shrinks_to: float) -> NextCell:
    n, d, flops = (float(np.exp(column[i])) for column in (log_n, log_d, log_c))
    return NextCell(n, d, flops, shrinks_to)


def _sd(sigma: Sigma, fitted: FittedLaw, log_c: np.ndarray, log_x: np.ndarray) -> np.ndarray:
    return np.asarray(sigma.sigma(log_c, fitted.fit.log_loss(log_x)), float)


@dataclasses.dataclass(frozen=True)
class _Offered:
    """The candidates: their terms of H and V [m, k, k], their cost [m], and the gradient of log N* [k]."""

    terms: tuple[np.ndarray, np.ndarray]
    flops: np.ndarray
    gradient: np.ndarray

    def after(self, base: list[np.ndarray]) -> np.ndarray:
        """Returns the variance of log N* with each candidate added [m]."""
        return variance(base[0] + self.terms[0], base[1] + self.terms[1], self.gradient)

    def chosen(self, base: list[np.ndarray], extra: float, most: int) -> list[int]:
        """Chooses candidates, with repeats, for `extra` FLOPs."""
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
        """Returns each candidate with the variance after it, the most helpful first."""
        found, left = [], list(picks)
        while left:
            after = self.after(base)
            i = min(left, key=lambda j: after[j])
            left.remove(i)
            found.append((i, float(after[i])))
            base = self._with(base, [i])
        return found

    def _greedy(self, base: list[np.ndarray], extra: float, most: int, power: float) -> list[int]:
        """Chooses by the gain over cost^power, until the compute or `most` is spent or nothing helps."""
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
