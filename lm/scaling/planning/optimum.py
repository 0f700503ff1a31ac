"""Decisions from a fitted law: N*, D* and loss of a budget, iso-loss curves, the cheapest model for a loss and the tokens it serves."""

import dataclasses
from collections.abc import Mapping
from typing import Optional, Union

import numpy as np

from lm.errors import UserError
from lm.scaling import diagnostics, law_error
from lm.scaling.fits import solver
from lm.scaling.fits.frontier import REACH, Cost, allocates, log_inputs
from lm.scaling.fitted_law import FittedLaw
from lm.scaling.laws.law import Law
from lm.scaling.laws.pinned import Pinned
from lm.scaling.results import Answer, Caution, Estimate, Refusal, result
from lm.scaling.table_analysis import Allocation

LOST = 0.1  # share of draws that never reach a loss above which its interval is refused
_LOWER, _HIGHER = 7.0, 14.0  # how far below and above the sampled tokens, in log D, tokens are sought
_PLACES, _ZOOMS = 33, 6
_FURTHEST = 3 * REACH  # how far beyond the sampled sizes, in log N, the cheapest is sought: 27,000 times


@result
class IsoLoss:
    """The curve on which the fitted law has one loss: N (increasing), D and training FLOPs. Empty for a loss out of its reach."""

    loss: float
    n: tuple[float, ...]
    d: tuple[float, ...]
    flops: tuple[float, ...]


@result
class Serving:
    """The model that reaches `loss` and then reads `inference_tokens` for the fewest FLOPs in all.

    `training`, `inference` and `total` are FLOPs, `ratio` is D / N, and `premium` is the total of the model that
    trains cheapest over `total`.
    """

    loss: float
    inference_tokens: float
    n: Answer
    d: Answer
    ratio: Answer
    training: Answer
    inference: Answer
    total: Answer
    premium: Answer
    caution: Optional[Caution]


def splits(law: Law) -> None:
    """Raises a UserError unless the law says how compute is split between N and D."""
    if allocates(law):
        return
    others = [name for name in law.inputs if name not in ("N", "D", "C", "M")]
    what = f"{type(law).__name__} reads {', '.join(law.inputs)}"
    if others and len(law.inputs) - len(others) >= 2:
        raise UserError(f"{what}, of which compute splits N and D alone: fix the rest with --fix {' '.join(f'{x}=VALUE' for x in others)}")
    raise UserError(f"{what}: planning needs a law of N and D, such as --law=chinchilla")


def pinned(fitted: FittedLaw, at: Mapping[str, float]) -> FittedLaw:
    """Returns the fitted law at fixed values of some of its inputs; UserError for an input that it does not read."""
    return dataclasses.replace(fitted, fit=dataclasses.replace(fitted.fit, law=pinned_law(fitted.law, at)))


def pinned_law(law: Law, at: Mapping[str, float]) -> Law:
    """Returns the law at fixed values of some of its inputs, itself where none is fixed."""
    if missing := [name for name in at if name not in law.inputs or name in ("N", "D", "C", "M")]:
        others = [name for name in law.inputs if name not in ("N", "D", "C", "M")]
        can = f"only {', '.join(others)} can be fixed" if others else "it reads no further input"
        raise UserError(f"--fix {missing[0]}: {type(law).__name__} reads {', '.join(law.inputs)}; {can}")
    return Pinned(law, tuple(at.items())) if at else law


def best(fitted: FittedLaw, cost: Cost, flops: float, sampled: Optional[tuple[float, float]] = None, seed: int = 0) -> Allocation:
    """Returns N*, D*, loss and D / N at C = `flops`, each with its interval. `sampled` is the range of compute that was measured."""
    splits(fitted.law)
    path = fitted.path(cost, np.log([flops]))
    columns = (path.log_n, path.log_d, path.log_loss, path.log_d - path.log_n)
    n, d, loss, ratio = (fitted.answer_of(np.exp(column[:, 0])) for column in columns)
    (with_error,) = law_error.optima(law_error.inferred(fitted), cost, [flops], fitted.level, seed)
    return Allocation(flops, n, d, loss, ratio, None if sampled is None else diagnostics.extrapolation(flops, sampled), with_error)


def iso_loss(fitted: FittedLaw, cost: Cost, loss: float, count: int = 41) -> IsoLoss:
    """Returns the curve of one loss, at `count` sizes from 30 times below the sampled ones to 30 times above."""
    splits(fitted.law)
    log_n = np.linspace(cost.low - REACH, cost.high + REACH, count)[None]
    log_d = tokens_for(fitted, cost, fitted.values[None], log_n, loss)
    kept = np.isfinite(log_d[0])
    n, d = log_n[0, kept], log_d[0, kept]
    flops = np.exp(cost.log_flops_per_token(n) + d)
    return IsoLoss(loss, *(tuple(column.tolist()) for column in (np.exp(n), np.exp(d), flops)))


def tokens_for(fitted: FittedLaw, cost: Cost, natural: np.ndarray, log_n: np.ndarray, loss: float) -> np.ndarray:
    """Finds by bisection the log D [R, m] at which parameters [R, k] give the loss at log N [R, m]; inf where none does."""
    law = fitted.law
    origin = np.zeros(len(law.inputs))
    theta = law.coordinates(natural, origin)

    def above(log_d: np.ndarray) -> np.ndarray:
        x = log_inputs(law, cost, log_n, log_d)
        return solver.predict_each(law, theta, law.design(x, origin)) > np.log(loss)

    shortest, longest = np.log(fitted.sampled["D"][0]) - _LOWER, np.log(fitted.sampled["D"][1]) + _HIGHER
    low, high = np.full(log_n.shape, shortest), np.full(log_n.shape, longest)
    reached = above(low) & ~above(high)
    for _ in range(46):
        middle = 0.5 * (low + high)
        more = above(middle)
        low, high = np.where(more, middle, low), np.where(more, high, middle)
    return np.where(reached, 0.5 * (low + high), np.inf)


def cheapest(fitted: FittedLaw, cost: Cost, loss: float, inference_tokens: float = 0.0) -> Union[Serving, Refusal]:
    """Minimises the FLOPs of training and inference at a loss: under C = 6 N D, 6 N D + 2 N D_inf (Sardana et al. 2024).

    Reading a token costs a third of training on it: the forward pass. A Refusal where the fitted law does not reach the loss.
    """
    splits(fitted.law)
    stacked = fitted.stacked
    at, log_d = _lowest(fitted, stacked, cost, loss, inference_tokens)
    if not np.isfinite(log_d[0]):
        return Refusal("extrapolation", _unreachable(fitted, cost, loss))
    plain = (at, log_d) if inference_tokens == 0 else _lowest(fitted, stacked, cost, loss, 0.0)
    per_token = np.exp(cost.log_flops_per_token(at))
    training, inference = per_token * np.exp(log_d), per_token * inference_tokens / 3
    total = training + inference
    other = np.exp(cost.log_flops_per_token(plain[0])) * (np.exp(plain[1]) + inference_tokens / 3)
    lost = ~np.isfinite(log_d)
    columns = (np.exp(at), np.exp(log_d), np.exp(log_d - at), training, inference, total, other / np.where(lost, 1.0, total))
    answers = [_answer(fitted, np.where(lost, np.nan, column), loss) for column in columns]
    n, d, ratio, train, read, both, premium = answers
    caution = _beyond(fitted, float(np.exp(at[0])), float(np.exp(log_d[0])))
    return Serving(loss, inference_tokens, n, d, ratio, train, read, both, premium, caution)


def _lowest(fitted: FittedLaw, natural: np.ndarray, cost: Cost, loss: float, tokens: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns log N and log D [R] of the lowest total, by grids that close in on it; log D is inf where the loss is out of reach."""
    low = np.full(len(natural), cost.low - _FURTHEST)
    high = np.full(len(natural), cost.high + _FURTHEST)
    share = np.linspace(0, 1, _PLACES)
    for _ in range(_ZOOMS):
        log_n = low[:, None] + (high - low)[:, None] * share
        log_d = tokens_for(fitted, cost, natural, log_n, loss)
        with np.errstate(over="ignore"):
            total = cost.log_flops_per_token(log_n) + np.log(np.exp(log_d) + tokens / 3)
        pick = np.argmin(total, axis=1)
        rows = np.arange(len(natural))
        low, high = log_n[rows, np.maximum(pick - 1, 0)], log_n[rows, np.minimum(pick + 1, _PLACES - 1)]
    return log_n[rows, pick], log_d[rows, pick]


def _answer(fitted: FittedLaw, column: np.ndarray, loss: float) -> Answer:
    """Returns the interval over the draws that reach the loss; refused where more than LOST of them do not."""
    drawn = column[1 : 1 + len(fitted.draws)]
    share = float(np.mean(~np.isfinite(drawn)))
    if share == 0 and np.all(np.isfinite(column)):
        return fitted.answer_of(column)
    if share <= LOST:
        return fitted.answer(float(column[0]), drawn[np.isfinite(drawn)])
    reason = f"{share:.0%} of the draws never fall to a loss of {loss:g} (limit {LOST:.0%}): ask for a higher loss, or add larger runs"
    return Estimate(float(column[0]), None, None, fitted.level, fitted.method, Refusal("interval", reason))


def _unreachable(fitted: FittedLaw, cost: Cost, loss: float) -> str:
    """Returns why no (N, D) has the loss, with the losses that the law has."""
    log_n = np.array([cost.high + _FURTHEST, cost.low - _FURTHEST])
    log_d = np.log(fitted.sampled["D"])[::-1] + np.array([_HIGHER, -_LOWER])
    ends = solver.loss(fitted.law, fitted.values, np.exp(log_inputs(fitted.law, cost, log_n, log_d)))
    return f"no model within reach has a loss of {loss:g}: the fitted law runs from {ends[0]:.4g} to {ends[1]:.4g}; ask for one between"


def _beyond(fitted: FittedLaw, n: float, d: float) -> Optional[Caution]:
    """Returns a caution where the answer lies outside the sampled N or D."""
    outside = [
        f"{name} {value:.3g} ({low:.3g} to {high:.3g})"
        for name, value, (low, high) in (("N", n, fitted.sampled["N"]), ("D", d, fitted.sampled["D"]))
        if not low <= value <= high
    ]
    if not outside:
        return None
    return Caution("extrapolation", f"outside the sampled range: {', '.join(outside)}; add runs near there")
