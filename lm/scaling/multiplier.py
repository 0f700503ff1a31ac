"""The compute multiplier X of two recipes: B reaches A's loss at C with X times the compute; X is below 1 where B is better.

A law is fitted to the runs of each. X solves L_B(X C) = L_A(C) along the frontiers (N* and D* for laws of N and D). The interval is a
parametric bootstrap of both tables at once: normal noise of log loss with the scale of the residuals and the correlation of paired runs,
so the effect that a seed and its data order have on both recipes cancels. The noise of a draw is scaled by sqrt(v / chi^2_v), since its
scale is estimated from v degrees of freedom.
"""

import collections
import math
from collections.abc import Hashable
from typing import Optional, Union

import numpy as np

from lm.errors import counted
from lm.scaling.diagnostics import extrapolation, mid_schedule, suspect
from lm.scaling.fits import fit, frontier, solver
from lm.scaling.fits.objectives import HuberLog, Objective
from lm.scaling.fitted_law import points_of
from lm.scaling.intervals import bootstrap
from lm.scaling.laws.law import Chinchilla, Law
from lm.scaling.results import Answer, Caution, Refusal, result
from lm.scaling.runs import Runs

METHOD = "parametric bootstrap of both recipes, scale and correlation from their residuals"
_REACH, _GRID = math.log(30.0), 121  # X is sought between 1/30 and 30, on a grid; linear interpolation is exact to 1e-4
_MAX_LOST = 0.05  # largest share of draws outside that range
_LEAST_PAIRS = 4


@result
class Multiplier:
    """The multiplier `compute` at each of `flops`.

    `pairs` counts the runs that share seed and data in both tables; `correlation` is that of their residuals (None: drawn independently);
    `difference` is the mean of log L_B - log L_A over the pairs.
    """

    flops: tuple[float, ...]
    compute: tuple[Answer, ...]
    loss: tuple[Answer, ...]  # of A
    equation: str
    objective: str
    method: str
    rows: tuple[int, int]
    pairs: int
    paired_by: str
    correlation: Optional[float]
    difference: Optional[float]
    sampled: tuple[float, float]  # compute that both tables cover
    cautions: tuple[Caution, ...]

    def sentence(self, i: int = 0) -> str:
        """Returns the answer at one compute in words."""
        found = self.compute[i]
        if isinstance(found, Refusal):
            return f"at C {self.flops[i]:.3g} there is no multiplier ({found.kind}): {found.reason}"
        low, high = found.low, found.high
        span = "no interval" if low is None or high is None else f"{low:.3g} to {high:.3g}, {found.level:.0%}"
        return f"B reaches A's loss with {found.value:.3g} times the compute ({span}) at C {self.flops[i]:.3g}"


def multiplier(
    a: Runs,
    b: Runs,
    flops: tuple[float, ...] = (),
    law: Law = Chinchilla(),
    objective: Objective = HuberLog(),
    paired: bool = True,
    draws: int = 1000,
    level: float = 0.8,
    seed: int = 0,
) -> Union[Multiplier, Refusal]:
    """Computes X at each C of `flops` (default: the largest that both tables reach).

    Args:
      paired: whether the noise of paired runs is correlated; otherwise that of A and B is drawn independently.
    """
    if problem := _comparable(a, b, law):
        return problem
    made = []
    for name, runs in (("A", a), ("B", b)):
        one = fit.fit(law, points_of(runs, law), objective)
        if isinstance(one, Refusal):
            return Refusal(one.kind, f"recipe {name}: {one.reason}")
        made.append(one)
    sampled = (max(float(a.c.min()), float(b.c.min())), min(float(a.c.max()), float(b.c.max())))
    at = flops or (sampled[1],)
    pairs, by = matched(a, b) if paired else ([], "nothing: drawn independently")
    noise_a, noise_b, correlation = _noise(made[0], made[1], pairs, draws, seed)
    stacked = [_stacked(one, noise) for one, noise in zip(made, (noise_a, noise_b), strict=True)]
    answers = [_solve(law, stacked, (a, b), math.log(c), level) for c in at]
    cautions = [found for c in at if (found := extrapolation(c, sampled))]
    if paired and correlation is None:
        cautions.append(
            Caution(
                "unpaired", f"{counted(len(pairs), 'run')} of A and B with equal seed and data; {_LEAST_PAIRS} are needed to use pairing"
            )
        )
    difference = float(np.mean([np.log(b.loss[j] / a.loss[i]) for i, j in pairs])) if pairs else None
    return Multiplier(
        flops=tuple(float(c) for c in at), compute=tuple(x for x, _ in answers), loss=tuple(loss for _, loss in answers),
        equation=getattr(law, "equation", type(law).__name__), objective=repr(objective), method=METHOD, rows=(len(a), len(b)),
        pairs=len(pairs), paired_by=by, correlation=correlation, difference=difference, sampled=sampled, cautions=tuple(cautions),
    )  # fmt: skip


def _comparable(a: Runs, b: Runs, law: Law) -> Optional[Refusal]:
    for name, runs in (("A", a), ("B", b)):
        found = (mid_schedule(runs), *suspect(runs, law))
        if refused := next((one for one in found if isinstance(one, Refusal)), None):
            return Refusal(refused.kind, f"recipe {name}: {refused.reason}")
    if a.counted != b.counted:
        return Refusal(
            "conventions", "one table counts FLOPs and the other takes 6 N D: give both the same column with --flops, or neither"
        )
    if not frontier.allocates(law) and tuple(law.inputs) != ("C",):
        return Refusal("missing", f"a law of {', '.join(law.inputs)} has no frontier in C: use a law of N and D, or of C")
    low, high = max(a.c.min(), b.c.min()), min(a.c.max(), b.c.max())
    if low > high:
        return Refusal("extrapolation", "the two tables share no range of compute: run both recipes at two budgets at the least")
    return None


def matched(a: Runs, b: Runs) -> tuple[list[tuple[int, int]], str]:
    """Pairs the rows of A and B that ran on the same data in the same order.

    Rows pair by the name of their run, else by seed, N and D, else by seed, budget and rank of size. A key must occur once in each.

    Returns:
      Indices of the pairs, and what they were paired by.
    """
    for by, keys in (("run", _by_run), ("seed, N and D", _by_cell), ("seed, budget and rank of size", _by_rank)):
        first, second = keys(a), keys(b)
        if first is None or second is None:
            continue
        one, other = _once(first), _once(second)
        if pairs := [(i, other[key]) for key, i in one.items() if key in other]:
            return pairs, by
    return [], "nothing: the tables share no names of runs and no seeds"


def _once(keys: list[Hashable]) -> dict[Hashable, int]:
    """Returns the index of each key that occurs once."""
    counts = collections.Counter(keys)
    return {key: i for i, key in enumerate(keys) if counts[key] == 1}


def _by_run(runs: Runs) -> Optional[list[Hashable]]:
    return None if all(name.startswith("row ") for name in runs.run) else list(runs.run)


def _by_cell(runs: Runs) -> Optional[list[Hashable]]:
    return None if runs.seed is None else [(s, float(n), float(d)) for s, n, d in zip(runs.seed, runs.n, runs.d, strict=True)]


def _by_rank(runs: Runs) -> Optional[list[Hashable]]:
    if runs.seed is None or runs.budget is None:
        return None
    group = list(zip(runs.seed, runs.budget.tolist(), strict=True))
    sizes = [sorted(float(runs.n[j]) for j in range(len(runs)) if group[j] == group[i]) for i in range(len(runs))]
    return [(*group[i], sizes[i].index(float(runs.n[i]))) for i in range(len(runs))]


def _noise(a: fit.Fit, b: fit.Fit, pairs: list[tuple[int, int]], draws: int, seed: int) -> tuple[np.ndarray, np.ndarray, Optional[float]]:
    """Draws the noise of A's and B's log losses [R, n]; returns it with the correlation of paired residuals."""
    k = len(a.law.names)
    residuals = [a.residuals, b.residuals]
    degrees = [len(r) - k for r in residuals]
    scale = [math.sqrt(float(r @ r) / v) for r, v in zip(residuals, degrees, strict=True)]
    random = [bootstrap.generator(seed, f"recipe {name}") for name in "AB"]
    normal = [g.standard_normal((draws, len(r))) for g, r in zip(random, residuals, strict=True)]
    inflate = [np.sqrt(v / g.chisquare(v, (draws, 1))) for g, v in zip(random, degrees, strict=True)]
    correlation = None
    if len(pairs) >= _LEAST_PAIRS:
        i, j = np.array(pairs).T
        first, second = residuals[0][i], residuals[1][j]
        correlation = float(np.clip(first @ second / max(math.sqrt((first @ first) * (second @ second)), 1e-300), -0.999, 0.999))
        normal[1][:, j] = correlation * normal[0][:, i] + math.sqrt(1 - correlation**2) * normal[1][:, j]
        inflate[1] = inflate[0]  # one unknown scale moves both recipes
    return normal[0] * inflate[0] * scale[0], normal[1] * inflate[1] * scale[1], correlation


def _stacked(made: fit.Fit, noise: np.ndarray) -> np.ndarray:
    """Returns the parameters [1 + R, k] of the optimum and of the draws."""
    ends = fit.refit(made, made.log_loss(made.points.log_x) + noise)
    return made.law.natural(np.concatenate([made.theta[None], ends.theta]), made.points.centre)


def _solve(law: Law, stacked: list[np.ndarray], tables: tuple[Runs, Runs], log_c: float, level: float) -> tuple[Answer, Answer]:
    """Returns X and A's loss at one C."""
    target = _frontier(law, stacked[0], tables[0], np.array([log_c]))[:, 0]
    steps = np.linspace(-_REACH, _REACH, _GRID)
    path = _frontier(law, stacked[1], tables[1], log_c + steps)
    found = np.array([_crossing(row, steps, at) for row, at in zip(path, target, strict=True)])
    loss = bootstrap.estimate(math.exp(target[0]), np.exp(target[1:]), level, METHOD)
    if not np.isfinite(found[0]):
        return Refusal("extrapolation", "B does not reach A's loss with 1/30 to 30 times the compute: compare them at another C"), loss
    lost = float(np.mean(~np.isfinite(found[1:])))
    x, drawn = math.exp(found[0]), np.exp(found[1:])
    refused = None
    if lost > _MAX_LOST:
        refused = Refusal("interval", f"{lost:.0%} of the draws put X beyond 30 times: add seeds, or budgets around C")
    return bootstrap.estimate(
        x, np.where(np.isfinite(drawn), drawn, math.inf) if refused is None and not lost else drawn, level, METHOD, refused
    ), loss


def _frontier(law: Law, natural: np.ndarray, runs: Runs, log_c: np.ndarray) -> np.ndarray:
    """Returns the log of the lowest loss at each C [R, m]."""
    if tuple(law.inputs) == ("C",):
        return np.log(solver.loss(law, natural, np.exp(log_c)[:, None]))
    cost = frontier.cost_of(runs)
    if isinstance(law, Chinchilla):
        return frontier.optimum(natural, cost, log_c).log_loss
    return frontier.allocate(law, natural, cost, log_c).log_loss


def _crossing(path: np.ndarray, steps: np.ndarray, target: float) -> float:
    """Returns the step at which a falling path meets the target; NaN if none does."""
    below = np.flatnonzero(path <= target)
    if not len(below) or below[0] == 0:
        return math.nan
    i = below[0]
    share = (path[i - 1] - target) / (path[i - 1] - path[i])
    return float(steps[i - 1] + share * (steps[i] - steps[i - 1]))
