"""Approach 1 by the lower envelope of loss curves, from points at constant learning rate only (numpy only).

Hoffmann et al. 2022, section 3.1: at log-spaced compute, the size whose curve is lowest. A curve is the longest run of a size; its points
lie after warm-up and before the decay, so that all of them have had the same treatment. With a handful of sizes the envelope is a
staircase, hence the refusal below.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Optional, Union

import numpy as np

from lm.analysis.runs import BRACKET
from lm.analysis.runs import size as size_of
from lm.errors import counted
from lm.scaling.intervals import bootstrap
from lm.scaling.intervals.noise import NoiseModel
from lm.scaling.results import Answer, Line, Refusal, result
from lm.scaling.runs import Size
from lm.scaling.settings import AnalysisSettings
from lm.study.rows import Row

_STEPS = 1500  # values of compute, as in the paper
_CONSTANT = 1e-6  # how far lr / peak may lie below 1
METHOD = "parametric bootstrap of whole curves"


@result
class EnvelopePoint:
    """A stretch of compute over which one size is lowest."""

    n: float
    flops_low: float
    flops_high: float
    interior: bool  # neither the smallest nor the largest size


@result
class Envelope:
    """The envelope and, where it holds enough sizes, N* ~ C^a and D* ~ C^b by least squares over its interior sizes."""

    n_convention: str
    c_convention: str
    stretches: tuple[EnvelopePoint, ...]
    interior_sizes: int
    curves: dict[str, tuple[tuple[float, float], ...]]  # run id -> (FLOPs, loss) of its constant-rate points
    a: Answer
    b: Answer
    n_line: Optional[Line]
    d_line: Optional[Line]


@dataclasses.dataclass(frozen=True)
class Curve:
    """The constant-rate points of one run by increasing compute."""

    id: str
    log_n: float
    log_c: np.ndarray
    log_d: np.ndarray
    log_loss: np.ndarray
    noise_log_c: float  # of the whole run, in the convention that sigma(C) is fitted in

    @property
    def log_flops_per_token(self) -> float:
        return float(self.log_c[0] - self.log_d[0])


def curves(rows: Sequence[Row], settings: AnalysisSettings) -> list[Curve]:
    """Returns the loss curve of each size's longest run (ties: the first planned), by increasing N, where it has two points or more."""
    longest: dict[Size, Row] = {}
    for row in rows:
        best = longest.get(size_of(row))
        if row.role != BRACKET and (best is None or row.tokens > best.tokens):
            longest[size_of(row)] = row
    found = []
    for row in longest.values():
        kept = [p for p in row.curve if not p["decayed"] and p["lr_ratio"] >= 1 - _CONSTANT and p[row.measure] > 0 and p["tokens"] > 0]
        if len(kept) >= 2:
            log_d = np.log([p["tokens"] for p in kept])
            log_c = log_d + math.log(row.flops[settings.c] / row.tokens)
            log_loss = np.log([p[row.measure] for p in kept])
            found.append(Curve(row.id, math.log(row.params[settings.n]), log_c, log_d, log_loss, math.log(row.flops[settings.planned_c])))
    return sorted(found, key=lambda curve: curve.log_n)


def _lowest(found: list[Curve], log_c: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Returns the index of the lowest curve at each C; -1 where fewer than two curves have points on both sides."""
    nan = np.nan
    losses = np.stack([np.interp(log_c, k.log_c, k.log_loss + s, left=nan, right=nan) for k, s in zip(found, shift, strict=True)])
    covered = np.sum(np.isfinite(losses), axis=0) >= 2
    return np.where(covered, np.argmin(np.where(np.isfinite(losses), losses, np.inf), axis=0), -1)


def _slopes(found: list[Curve], log_c: np.ndarray, lowest: np.ndarray) -> tuple[np.ndarray, int]:
    """Fits (intercept, slope) of log N and of log D on log C [2, 2] over the envelope's interior sizes; also returns their number."""
    inner = (lowest > 0) & (lowest < len(found) - 1)
    count = len(set(lowest[inner].tolist()))
    if count < 2:
        return np.full((2, 2), np.nan), count
    design = np.stack([np.ones(int(inner.sum())), log_c[inner]], axis=1)
    log_n = np.array([found[i].log_n for i in lowest[inner]])
    log_d = log_c[inner] - np.array([found[i].log_flops_per_token for i in lowest[inner]])
    return np.linalg.lstsq(design, np.stack([log_n, log_d], axis=1), rcond=None)[0].T, count


def fit_envelope(rows: Sequence[Row], noise: Union[NoiseModel, Refusal], settings: AnalysisSettings) -> Union[Envelope, Refusal]:
    """Fits approach 1 to the loss curves of usable rows, under the conventions of `settings`."""
    found = curves(rows, settings)
    if len(found) < 2:
        return Refusal(
            "too_few_points", f"{counted(len(found), 'size')} with constant-rate points; evaluate during the run, before the decay"
        )
    log_c = np.linspace(min(k.log_c[0] for k in found), max(k.log_c[-1] for k in found), _STEPS)
    lowest = _lowest(found, log_c, np.zeros(len(found)))
    best, count = _slopes(found, log_c, lowest)
    shown = {k.id: tuple(zip(np.exp(k.log_c).tolist(), np.exp(k.log_loss).tolist(), strict=True)) for k in found}
    stretches = _stretches(found, log_c, lowest)
    head = (settings.n, settings.c, stretches, count, shown)
    if count < settings.min_envelope_sizes:
        reason = f"{count} interior sizes on the envelope, a staircase: {settings.min_envelope_sizes} are needed; add sizes and compute"
        refusal = Refusal("too_few_points", reason)
        return Envelope(*head, refusal, refusal, None, None)
    drawn = _draws(found, log_c, noise, settings)
    problem = noise if isinstance(noise, Refusal) else None
    a, b = (bootstrap.estimate(best[i, 1], drawn[:, i, 1], settings.level, METHOD, problem) for i in range(2))
    n_line, d_line = (_line(best[i], drawn[:, i], log_c, problem, settings) for i in range(2))
    return Envelope(*head, a, b, n_line, d_line)


def _draws(found: list[Curve], log_c: np.ndarray, noise: Union[NoiseModel, Refusal], settings: AnalysisSettings) -> np.ndarray:
    """Fits lines to envelopes whose curves seed noise moves as wholes: the points of one run are not independent."""
    if isinstance(noise, Refusal):
        return np.zeros((1, 2, 2))
    ends = np.array([k.noise_log_c for k in found])
    sigma = noise.draws(ends, settings.table_draws, settings.seed)
    shift = sigma * bootstrap.generator(settings.seed, "envelope").standard_normal(sigma.shape)
    return np.stack([_slopes(found, log_c, _lowest(found, log_c, s))[0] for s in shift])


def _stretches(found: list[Curve], log_c: np.ndarray, lowest: np.ndarray) -> tuple[EnvelopePoint, ...]:
    made = []
    edges = np.flatnonzero(np.diff(lowest)) + 1
    for index in np.split(np.arange(len(lowest)), edges):
        i = int(lowest[index[0]])
        if i >= 0:
            interior = 0 < i < len(found) - 1
            made.append(EnvelopePoint(math.exp(found[i].log_n), math.exp(log_c[index[0]]), math.exp(log_c[index[-1]]), interior))
    return tuple(made)


def _line(line: np.ndarray, drawn: np.ndarray, log_c: np.ndarray, problem: Optional[Refusal], settings: AnalysisSettings) -> Line:
    x = np.linspace(log_c[0], log_c[-1], 41)
    low, high = bootstrap.quantiles(drawn @ np.stack([np.ones_like(x), x]), settings.level)
    band = ((), ()) if problem else (tuple(np.exp(low)), tuple(np.exp(high)))
    return Line(tuple(np.exp(x)), tuple(np.exp(line[0] + line[1] * x)), *band, (math.exp(log_c[0]), math.exp(log_c[-1])))
