"""Learning-rate brackets show how far from its best the learning-rate rule runs a cell, and what that does to the exponent (numpy only).

A bracket is one cell run again at other rates. A parabola of log loss in log rate gives the best rate and the rule's gap: log loss under
the rule minus log loss at the vertex.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Optional, Union

import numpy as np

from lm.analysis.runs import BRACKET
from lm.analysis.runs import size as size_of
from lm.scaling import sweeps
from lm.scaling.approaches.isoflop import Isoflop
from lm.scaling.intervals import bootstrap
from lm.scaling.intervals.noise import NoiseModel
from lm.scaling.results import Answer, Estimate, Refusal, result
from lm.scaling.runs import Runs, Size
from lm.scaling.settings import AnalysisSettings
from lm.study.rows import Row

METHOD = "parametric bootstrap"


@result
class Bracket:
    """One cell at several rates. `factors` are rates over the rule's; `gap` is relative: .01 says that the rule costs 1% of the loss."""

    ids: tuple[str, ...]
    budget: float
    n: float
    flops: float
    factors: tuple[float, ...]
    loss: tuple[float, ...]
    coefficients: tuple[float, float, float]  # log loss = c0 + c1 u + c2 u^2, u = log factor
    best_factor: Answer
    gap: Answer
    least_gap: float  # of the rule's run to the lowest run: what the gap is at least, by what was measured
    lost: Optional[float]  # share of draws without a best rate inside the bracket


def fit_brackets(rows: Sequence[Row], noise: Union[NoiseModel, Refusal], settings: AnalysisSettings) -> tuple[Bracket, ...]:
    """Fits every bracketed cell of usable `rows`, in planned order."""
    groups: dict[tuple[float, Size, int], list[Row]] = {}
    for row in rows:
        if row.role == BRACKET:
            groups.setdefault((row.budget, size_of(row), row.seed), []).append(row)
    found = []
    for (budget, size, seed), members in groups.items():
        rule = [r for r in rows if r.role != BRACKET and (r.budget, size_of(r), r.seed) == (budget, size, seed)]
        if rule:
            found.append(_bracket(rule[0], sorted([rule[0], *members], key=lambda r: r.learning_rate), noise, settings))
    return tuple(found)


def _bracket(rule: Row, rows: list[Row], noise: Union[NoiseModel, Refusal], settings: AnalysisSettings) -> Bracket:
    u = np.log([row.learning_rate / rule.learning_rate for row in rows])
    y = np.log([row.loss for row in rows])
    least = float(math.log(rule.loss) - y.min())
    losses, factors = tuple(float(row.loss) for row in rows), tuple(np.exp(u).tolist())
    ids = tuple(row.id for row in rows)
    head = (ids, rule.budget, float(rule.params[settings.n]), float(rule.flops[settings.c]), factors, losses)
    if len(rows) < 3:
        problem = Refusal("too_few_points", f"{len(rows)} rates at run {rule.id}; a parabola needs three")
        return Bracket(*head, (float(y.mean()), 0.0, 0.0), problem, problem, least, None)
    solver = np.linalg.pinv(sweeps.design(u[:, None]))
    fitted = drawn_fits = (solver @ y)[None]
    best = sweeps.lowest(fitted, u[:, None])
    coefficients = tuple(fitted[0].tolist())
    drawn, lost = best, None
    refused: Optional[Refusal] = noise if isinstance(noise, Refusal) else None
    if isinstance(noise, NoiseModel):
        sigma = noise.draws(np.log([row.flops[settings.planned_c] for row in rows]), settings.draws, settings.seed)
        z = bootstrap.generator(settings.seed, f"bracket {rule.id}").standard_normal(sigma.shape)
        drawn_fits = (y + sigma * z) @ solver.T
        drawn = sweeps.lowest(drawn_fits, u[:, None])
        lost = float(drawn.lost.mean())
        refused = bootstrap.lost_share(lost, settings.max_lost, f"the bracket of run {rule.id}")
    if best.lost[0]:
        kind, what = ("concave", "opens downwards") if coefficients[2] <= 0 else ("edge", "has its minimum outside")
        problem = Refusal(kind, f"the bracket of run {rule.id} {what}: the rule's gap is at least {least:.2%}")
        return Bracket(*head, coefficients, problem, problem, least, lost)
    own, draws = (np.maximum(made[:, 0] - at.value, 0.0) for made, at in ((fitted, best), (drawn_fits, drawn)))  # the rule stands at u = 0
    factor = bootstrap.estimate(math.exp(best.u[0, 0]), np.exp(drawn.u[:, 0]), settings.level, METHOD, refused)
    gap = bootstrap.estimate(own[0], draws, settings.level, METHOD, refused)
    return Bracket(*head, coefficients, factor, gap, least, lost)


def without_gaps(cells: Runs, found: Sequence[Bracket], fitted: Isoflop) -> Union[Runs, Refusal]:
    """Takes the rule's gap from the loss of every cell: interpolated in log N - log N*(C) between the brackets, constant beyond them.

    Where a bracket has no vertex the least gap that it shows stands in.
    """
    if not found:
        return Refusal("missing", "no cell was run at other learning rates")
    if fitted.n_line is None:
        return Refusal("missing", "the brackets are placed by N*(C), which approach 2 refuses")
    log_c, log_star = np.log(fitted.n_line.flops), np.log(fitted.n_line.value)
    placed: dict[float, list[float]] = {}
    for bracket in found:
        offset = math.log(bracket.n) - float(np.interp(math.log(bracket.flops), log_c, log_star))
        gap = bracket.gap.value if isinstance(bracket.gap, Estimate) else bracket.least_gap
        placed.setdefault(round(offset, 9), []).append(gap)
    offsets = np.array(sorted(placed))
    gaps = np.array([np.mean(placed[offset]) for offset in offsets])
    taken = np.interp(cells.log_n - np.interp(cells.log_c, log_c, log_star), offsets, gaps)
    return dataclasses.replace(cells, loss=np.exp(cells.log_loss - taken))
