"""The compute-optimal N, D and loss at a compute, and approach 2's answer: the lines through its minima, carried on (numpy only)."""

from collections.abc import Sequence
from typing import Optional

import numpy as np

from lm.errors import counted
from lm.scaling import diagnostics
from lm.scaling.approaches import isoflop
from lm.scaling.approaches.isoflop import MIN_BUDGETS, Minimum
from lm.scaling.intervals import bootstrap
from lm.scaling.law_error import WithError
from lm.scaling.results import Answer, Caution, Refusal, result
from lm.scaling.settings import AnalysisSettings

LEAST_LOSSES = 4  # minima for the three parameters of the loss
_GAMMA = (1e-3, 2.0)  # exponents among which the loss's is sought
_PLACES, _ZOOMS = 41, 5


@result
class Allocation:
    """The compute-optimal N, D, loss and D / N at C. `caution` marks an extrapolation.

    Their intervals suppose the law to be true; those of `with_error` do not. None where the law's own error is not inferred.
    """

    flops: float
    n: Answer
    d: Answer
    loss: Answer
    ratio: Answer
    caution: Optional[Caution]
    with_error: Optional[WithError] = None


def by_minima(fitted: Sequence[Minimum], flops: Sequence[float], settings: AnalysisSettings) -> tuple[Allocation, ...]:
    """Returns N*, D* and loss at each C by the minima of approach 2.

    N* and D* lie on the regressions of the minima on log C. The loss is E + A / C^gamma through the lowest losses, by least squares of
    their relative errors with E and A of 0 or more. The draws of the minima carry through all of them. Beside them stand N*, D* and
    D* / N* where the exponents may drift.
    """
    log_c = np.log(np.array(flops, float))
    n, d = (_line(fitted, which, log_c, settings) for which in ("n_star", "d_star"))
    loss = _losses(fitted, log_c, settings)
    own = [isoflop.extrapolate_with_error(fitted, which, log_c, settings) for which in ("n_star", "d_star", "ratio")]
    both = {which: isoflop.with_minimum(fitted, which) for which in ("n_star", "d_star")}
    sampled = [m.result.flops for m in both["n_star"]] or [m.result.flops for m in fitted]
    found = []
    for i, c in enumerate(flops):
        ratio: Answer = next((one[i] for one in (n, d) if isinstance(one[i], Refusal)), Refusal("missing", ""))
        if all(len(good) >= MIN_BUDGETS for good in both.values()):
            lines = {which: isoflop.extrapolate(good, which, log_c[i : i + 1], settings.regression) for which, good in both.items()}
            value, drawn = (np.exp(one - other) for one, other in zip(lines["d_star"], lines["n_star"], strict=True))
            problem = _problem(both["n_star"], "n_star", settings) or _problem(both["d_star"], "d_star", settings)
            ratio = bootstrap.estimate(float(value[0]), drawn[:, 0], settings.level, _method(both["n_star"]), problem)
        caution, with_error = diagnostics.extrapolation(c, (min(sampled), max(sampled))), WithError(own[0][i], own[1][i], None, own[2][i])
        found.append(Allocation(float(c), n[i], d[i], loss[i], ratio, caution, with_error))
    return tuple(found)


def _line(fitted: Sequence[Minimum], which: str, log_c: np.ndarray, settings: AnalysisSettings) -> list[Answer]:
    good = isoflop.with_minimum(fitted, which)
    if len(good) < MIN_BUDGETS:
        return [
            Refusal("too_few_points", f"{counted(len(good), 'budget')} with an interior minimum; a power law needs {MIN_BUDGETS}")
        ] * len(log_c)
    best, drawn = isoflop.extrapolate(good, which, log_c, settings.regression)
    problem, values = _problem(good, which, settings), zip(np.exp(best).tolist(), np.exp(drawn).T, strict=True)
    return [bootstrap.estimate(value, column, settings.level, _method(good), problem) for value, column in values]


def _losses(fitted: Sequence[Minimum], log_c: np.ndarray, settings: AnalysisSettings) -> list[Answer]:
    good = isoflop.with_minimum(fitted, "loss_star")
    if len(good) < LEAST_LOSSES:
        return [
            Refusal("too_few_points", f"lowest losses of {counted(len(good), 'budget')}; a law of the loss needs {LEAST_LOSSES}")
        ] * len(log_c)
    at = np.log([m.result.flops for m in good])
    best = np.array([[m.result.loss_star.value for m in good]])  # type: ignore[union-attr]  # `good` have one
    problem = _problem(good, "loss_star", settings)
    drawn = best if problem else np.stack([isoflop.draws_of(m).loss for m in good], axis=1)
    values = lowest_losses(at, np.concatenate([best, drawn]), log_c)
    return [bootstrap.estimate(float(column[0]), column[1:], settings.level, _method(good), problem) for column in values.T]


def lowest_losses(log_c: np.ndarray, loss: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Returns E + A / C^gamma at log C of the targets [m], fitted to losses [R, B] at log C [B]: [R, m].

    Gamma is sought on grids that close in on the least sum of squared relative errors; E and A follow linearly.
    """
    centre = float(log_c.mean())
    low, high = (np.full(len(loss), np.log(end)) for end in _GAMMA)
    rows = np.arange(len(loss))
    for _ in range(_ZOOMS):
        places = low[:, None] + (high - low)[:, None] * np.linspace(0, 1, _PLACES)
        cost = np.stack([_linear(log_c - centre, loss, np.exp(gamma))[2] for gamma in places.T], axis=1)
        pick = np.argmin(cost, axis=1)
        low, high = places[rows, np.maximum(pick - 1, 0)], places[rows, np.minimum(pick + 1, _PLACES - 1)]
    gamma = np.exp(places[rows, pick])
    e, a, _ = _linear(log_c - centre, loss, gamma)
    return e[:, None] + a[:, None] * np.exp(-gamma[:, None] * (target - centre))


def _linear(u: np.ndarray, loss: np.ndarray, gamma: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns E, A [R] of 0 or more and the sum of squared relative errors [R], at exponents gamma [R].

    The columns are 1 and (exp(-gamma u) - 1) / gamma, which stay apart as gamma goes to 0: L = (E + A) + A gamma * the second.
    """
    one, falling = 1 / loss, np.expm1(-gamma[:, None] * u) / (gamma[:, None] * loss)
    power = one + gamma[:, None] * falling
    s11, s12, s22 = (np.sum(x * y, axis=1) for x, y in ((one, one), (one, falling), (falling, falling)))
    t1, t2 = one.sum(axis=1), falling.sum(axis=1)
    determinant = s11 * s22 - s12**2
    whole, slope = (s22 * t1 - s12 * t2) / determinant, (s11 * t2 - s12 * t1) / determinant
    a = slope / gamma
    e = whole - a
    alone = power.sum(axis=1) / np.sum(power**2, axis=1)  # A where E is 0
    e, a = np.where(a < 0, t1 / s11, np.maximum(e, 0.0)), np.where(a < 0, 0.0, np.where(e < 0, alone, a))
    return e, a, np.sum((e[:, None] * one + a[:, None] * power - 1) ** 2, axis=1)


def _problem(good: Sequence[Minimum], which: str, settings: AnalysisSettings) -> Optional[Refusal]:
    return isoflop.interval_problem(good, which, False, settings)


def _method(good: Sequence[Minimum]) -> str:
    return isoflop.RESIDUAL if good[0].parametric is None else isoflop.PARAMETRIC
