"""The backtest of forecasts: a table is cut at its budgets, or at quantiles of its compute, and each method forecasts what lies above.

Scores are of log loss and of log N*, so that an error of .01 is one of 1%. They are averaged over the cells of a cut and a factor of
compute beyond it, over cuts, over factors, over the tables of a family, and over families: none counts for more than another.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Optional, Union

import numpy as np

from lm.scaling import scores
from lm.scaling.backtest import methods, optima
from lm.scaling.backtest.below import Below, below, compute_of, lowest
from lm.scaling.fits.objectives import HuberLog, Objective
from lm.scaling.laws.law import Chinchilla, Law
from lm.scaling.results import Refusal, result
from lm.scaling.rolling import cuts_of
from lm.scaling.runs import Runs

SCHEMA = 1
FACTORS = {2.0: (1.0, 3.0), 4.0: (3.0, 6.0), 8.0: (6.0, 16.0), 30.0: (16.0, 60.0)}  # name: compute beyond the cut, from and to
EVERY, LOWEST, N_STAR = "loss of every run", "lowest loss of a budget", "N* of a budget"
OBSERVED = (EVERY, LOWEST, N_STAR)


@result
class Tested:
    """How one method forecasts: means over what it was asked for.

    `error` is the mean of |log measured - log forecast|, `bias` that of its value (above 0 the forecast is too low), forecasts being
    medians. `held` are the shares inside the 50%, 80% and 95% intervals; `score` is the interval score at 80%.
    """

    error: float
    bias: float
    held: tuple[float, ...]
    score: float
    crps: float


@result
class ScoredGroup:
    """The forecasts of one quantity by one method, at one factor of compute beyond the cut."""

    quantity: str
    method: str
    factor: float
    cuts: int
    tested: Tested


@result
class BacktestCut:
    """One cut: what it left below, or why no law was fitted there."""

    flops: float
    rows: int
    refused: Union[Refusal, None] = None


@result
class TableBacktest:
    """The backtest of one table."""

    source: str
    rows: int
    cuts: tuple[BacktestCut, ...]
    groups: tuple[ScoredGroup, ...]


@result
class MethodScores:
    """The forecasts of one quantity by one method over all tables: over all factors, and the share held at 80% by factor.

    `relative` is the score over that of the first method, as a geometric mean over families: large errors of one table weigh no more.
    """

    quantity: str
    method: str
    families: int
    tested: Tested
    relative: Optional[float]  # None where the first method forecasts nothing
    held_by_factor: dict[str, float]
    score_by_factor: dict[str, float]


@result
class Backtest:
    """The backtest of several tables. `families` names the tables that share runs or authors, which count as one."""

    schema: int
    tables: tuple[TableBacktest, ...]
    families: dict[str, tuple[str, ...]]
    lines: tuple[MethodScores, ...]


class _Scored(NamedTuple):
    quantity: str
    method: str
    factor: float
    tested: Tested


def backtest_table(runs: Runs, law: Law = Chinchilla(), objective: Objective = HuberLog(), seed: int = 0) -> TableBacktest:
    """Cuts one table, forecasts above each cut, and scores the forecasts."""
    cuts, found = [], []
    every = optima.shown(runs)
    for cut in cuts_of(runs):
        known = below(runs, cut, law, objective, seed)
        count = int(np.sum(compute_of(runs) <= cut * (1 + 1e-9)))
        cuts.append(BacktestCut(float(cut), count, known if isinstance(known, Refusal) else None))
        if isinstance(known, Below):
            found += _losses(known, runs) + _optima(known, every)
    return TableBacktest(runs.source, len(runs), tuple(cuts), _grouped(found))


def _losses(known: Below, runs: Runs) -> list[_Scored]:
    """Scores the forecasts of the losses above one cut."""
    beyond = compute_of(runs) / known.cut
    chosen = (beyond > 1 + 1e-9) & (beyond <= max(high for _, high in FACTORS.values()))
    if not chosen.any():
        return []
    ahead, beyond = runs.take(chosen), beyond[chosen]
    best, found = lowest(ahead), []
    for name, method in methods.LOSS.items():
        drawn = method(known, ahead)
        if drawn is None:
            continue
        for factor, (low, high) in FACTORS.items():
            inside = (beyond > low) & (beyond <= high)
            for quantity, which in ((EVERY, inside), (LOWEST, inside & best)):
                if which.any():
                    found.append(_Scored(quantity, name, factor, tested(ahead.log_loss[which], drawn[:, which])))
    return found


def _optima(known: Below, every: optima.Optima) -> list[_Scored]:
    """Scores the forecasts of the optima above one cut."""
    beyond = np.exp(every.log_c) / known.cut
    seen, chosen = beyond <= 1 + 1e-9, (beyond > 1 + 1e-9) & (beyond <= max(high for _, high in FACTORS.values()))
    if seen.sum() < optima.BUDGETS or not chosen.any():
        return []
    before, after = (optima.Optima(*(column[which] for column in every)) for which in (seen, chosen))
    found = []
    for name, method in optima.N_STAR.items():
        drawn = method(known, before, after.log_c)
        if drawn is None:
            continue
        drawn = optima.measured_with(drawn, after.sd, known.seed)
        for factor, (low, high) in FACTORS.items():
            inside = (beyond[chosen] > low) & (beyond[chosen] <= high)
            if inside.any():
                found.append(_Scored(N_STAR, name, factor, tested(after.log_n[inside], drawn[:, inside])))
    return found


def tested(measured: np.ndarray, draws: np.ndarray) -> Tested:
    """Scores forecasts, draws [R, m], against what was measured [m]."""
    error = measured - np.median(draws, axis=0)
    by_level = scores.level_scores(measured, draws)
    held = tuple(one.held / one.rows for one in by_level)
    (score,) = (one.score for one in by_level if one.level == 0.8)
    return Tested(float(np.abs(error).mean()), float(error.mean()), held, score, float(scores.crps(measured, draws).mean()))


def mean(found: Sequence[Tested]) -> Tested:
    """Returns the mean of scores, each counting alike."""
    held = tuple(float(np.mean(column)) for column in zip(*(one.held for one in found), strict=True))
    error, bias, score, crps = (float(np.mean([getattr(one, name) for one in found])) for name in ("error", "bias", "score", "crps"))
    return Tested(error, bias, held, score, crps)


def _grouped(found: Sequence[_Scored]) -> tuple[ScoredGroup, ...]:
    keys = dict.fromkeys((one.quantity, one.method, one.factor) for one in found)
    members = {key: [one.tested for one in found if (one.quantity, one.method, one.factor) == key] for key in keys}
    return tuple(ScoredGroup(*key, len(members[key]), mean(members[key])) for key in keys)


def backtest(
    tables: Sequence[Runs], law: Law = Chinchilla(), objective: Objective = HuberLog(), families: Mapping[str, str] = {}, seed: int = 0
) -> Backtest:
    """Backtests several tables. `families` names the family of a table by its source (default: each table is its own)."""
    return combined([backtest_table(runs, law, objective, seed) for runs in tables], families)


def combined(tables: Sequence[TableBacktest], families: Mapping[str, str] = {}) -> Backtest:
    """Averages the backtests of several tables."""
    of = {made.source: families.get(made.source, made.source) for made in tables}
    named = {family: tuple(source for source, other in of.items() if other == family) for family in dict.fromkeys(of.values())}
    lines = []
    for quantity, names in ((EVERY, methods.LOSS), (LOWEST, methods.LOSS), (N_STAR, optima.N_STAR)):
        first = next(iter(names))
        by_table = {name: _by_table(tables, quantity, name) for name in names}
        for name in names:
            if by_table[name]:
                lines.append(_line(quantity, name, by_table[name], by_table[first], of))
    return Backtest(SCHEMA, tuple(tables), named, tuple(lines))


def _by_table(tables: Sequence[TableBacktest], quantity: str, method: str) -> dict[str, dict[float, Tested]]:
    """Returns the scores of a method by table and factor."""
    found = {made.source: {g.factor: g.tested for g in made.groups if (g.quantity, g.method) == (quantity, method)} for made in tables}
    return {source: by_factor for source, by_factor in found.items() if by_factor}


def _line(
    quantity: str,
    method: str,
    own: Mapping[str, Mapping[float, Tested]],
    first: Mapping[str, Mapping[float, Tested]],
    of: Mapping[str, str],
) -> MethodScores:
    whole = {source: mean(list(by_factor.values())) for source, by_factor in own.items()}
    ratios = {s: math.log(whole[s].score / mean(list(first[s].values())).score) for s in whole if s in first}
    relative = math.exp(float(np.mean([np.mean(values) for values in _families(ratios, of).values()]))) if ratios else None
    by_factor = {}
    for factor in FACTORS:
        there = {source: found[factor] for source, found in own.items() if factor in found}
        if there:
            by_factor[f"{factor:g}"] = mean([mean(group) for group in _families(there, of).values()])
    families = _families(whole, of)
    return MethodScores(
        quantity, method, len(families), mean([mean(group) for group in families.values()]), relative,
        {name: one.held[1] for name, one in by_factor.items()}, {name: one.score for name, one in by_factor.items()},
    )  # fmt: skip


def _families(values: Mapping[str, object], of: Mapping[str, str]) -> dict[str, list]:
    """Groups values by the family of their table."""
    found: dict[str, list] = {}
    for source, value in values.items():
        found.setdefault(of[source], []).append(value)
    return found
