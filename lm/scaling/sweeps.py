"""Sweeps of learning rate, batch size or any other setting: its best value at each (N, D), and how that moves with N and D (numpy only).

A cell is one (N, D) at several values of the settings. A quadratic of log loss in the log settings gives the values of the lowest loss: the
vertex where it lies within what was tried, else a refusal. The law x* = c N^a D^b is a regression of log x* over the cells.
"""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Optional, Union

import numpy as np

from lm.errors import UserError, counted
from lm.scaling.intervals import bootstrap
from lm.scaling.results import Answer, Caution, Estimate, Refusal, result
from lm.scaling.runs import Runs

TOGETHER = 0.01  # rows whose N and D differ by less than this share are one cell
_INPUTS = ("N", "D", "C", "M")
LEAST_DEGREES = 4  # of freedom, over all cells, for the residuals to measure the noise
MAX_LOST = 0.1  # share of draws without a best value inside the sweep above which an interval is refused
METHOD = "parametric bootstrap, residuals of all quadratics"
REGRESSION = "Student's t, scatter of the cells"


class Best(NamedTuple):
    """The lowest points of R quadratics: u [R, p], value there [R], and which have none inside the sweep [R]."""

    u: np.ndarray
    value: np.ndarray
    lost: np.ndarray


def design(u: np.ndarray) -> np.ndarray:
    """Returns the terms [k, q] of a quadratic in u [k, p]: 1, each u, and each product of two."""
    pairs = list(itertools.combinations_with_replacement(range(u.shape[1]), 2))
    return np.concatenate([np.ones((len(u), 1)), u, *(u[:, [i]] * u[:, [j]] for i, j in pairs)], axis=1)


def lowest(coefficients: np.ndarray, u: np.ndarray) -> Best:
    """Finds the lowest points of quadratics [R, q] within the box of the points u [k, p].

    One that opens downwards, or whose vertex lies outside, is lost: the lowest of the points stands in.
    """
    vertex, upwards = _vertex(coefficients, u.shape[1])
    inside = upwards & np.all((vertex >= u.min(axis=0)) & (vertex <= u.max(axis=0)), axis=1)
    tried = coefficients @ design(u).T
    best = np.where(inside[:, None], vertex, u[np.argmin(tried, axis=1)])
    return Best(best, np.einsum("rq,rq->r", coefficients, design(best)), ~inside)


def _vertex(coefficients: np.ndarray, p: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the vertices [R, p] of quadratics, and which open upwards [R]."""
    hessian = np.zeros((len(coefficients), p, p))
    for at, (i, j) in enumerate(itertools.combinations_with_replacement(range(p), 2)):
        hessian[:, i, j] += coefficients[:, 1 + p + at]
        hessian[:, j, i] += coefficients[:, 1 + p + at]
    upwards = np.linalg.eigvalsh(hessian)[:, 0] > 0
    safe = np.where(upwards[:, None, None], hessian, np.eye(p))
    return -np.linalg.solve(safe, coefficients[:, 1 : 1 + p, None])[:, :, 0], upwards


def problem(coefficients: np.ndarray, u: np.ndarray, names: Sequence[str], where: str) -> Optional[Refusal]:
    """Says why a quadratic [q] has no lowest point inside the sweep u [k, p], and what would suffice; None where it has."""
    vertex, upwards = _vertex(coefficients[None], u.shape[1])
    if not upwards[0]:
        return Refusal("concave", f"{where}: the quadratic opens downwards; add values of {' and '.join(names)}, or seeds")
    low, high = vertex[0] < u.min(axis=0), vertex[0] > u.max(axis=0)
    sides = [f"{'lower' if below else 'higher'} {name}" for name, below, above in zip(names, low, high, strict=True) if below or above]
    return Refusal("edge", f"{where}: the loss still falls at the end of the sweep; add {' and '.join(sides)}") if sides else None


@result
class SweepCell:
    """One (N, D). `best` holds the value of each setting at the lowest loss, `lowest` those of the row with the lowest loss.

    `loss` is the loss at the vertex; `used` counts the rows near the lowest that the quadratic is fitted to.
    """

    n: float
    d: float
    rows: int
    used: int
    best: dict[str, Answer]
    lowest: dict[str, float]
    loss: Optional[float]


@result
class SettingLaw:
    """x* = c N^a D^b for one setting. `scatter` is the standard deviation of log x* about it over `cells`.

    `windows` holds the exponents where the quadratics are fitted to rows within half and twice the share of the lowest loss.
    """

    name: str
    c: Answer
    exponents: dict[str, Answer]
    scatter: float
    cells: int
    windows: dict[str, dict[str, float]]
    caution: Optional[Caution]


@result
class SettingAt:
    """The best value of a setting at given N and D, by its law."""

    name: str
    inputs: dict[str, float]
    value: Answer


@result
class SweepAnalysis:
    """The cells of a table of sweeps, the law of each setting, and its values at the inputs that were asked for.

    `noise` is the residual standard deviation of log loss about the quadratics, None where too few rows measure it.
    """

    source: str
    count: int
    within: float
    level: float
    noise: Optional[float]
    cells: tuple[SweepCell, ...]
    laws: dict[str, Union[SettingLaw, Refusal]]
    at: tuple[SettingAt, ...]


@dataclasses.dataclass(frozen=True)
class SweepSettings:
    """Settings of the analysis.

    `within` is how far above the lowest loss of its cell a row may lie to be fitted, relative. `terms` names the inputs of a setting's law
    where these are not N and D.
    """

    within: float = 0.02
    terms: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    level: float = 0.8
    draws: int = 1000
    seed: int = 0


class _Fitted(NamedTuple):
    """A cell's rows near the lowest, its quadratic, and the map from log losses to coefficients."""

    rows: np.ndarray  # of the table
    kept: np.ndarray
    centre: np.ndarray
    u: np.ndarray
    y: np.ndarray
    coefficients: np.ndarray
    solver: np.ndarray
    refused: Optional[Refusal]

    @property
    def residuals(self) -> np.ndarray:
        return self.y - design(self.u) @ self.coefficients

    @property
    def dof(self) -> int:
        return max(len(self.y) - len(self.coefficients), 0)


def cells_of(runs: Runs) -> list[np.ndarray]:
    """Returns the rows of each cell, those of one N and D within 1%, in order of N and D."""

    def label(column: np.ndarray) -> np.ndarray:
        order = np.argsort(column)
        steps = np.diff(np.log(column[order]), prepend=-np.inf) > TOGETHER
        found = np.empty(len(column), int)
        found[order] = np.cumsum(steps)
        return found

    groups: dict[tuple[int, int], list[int]] = {}
    for i, key in enumerate(zip(label(runs.n).tolist(), label(runs.d).tolist(), strict=True)):
        groups.setdefault(key, []).append(i)
    return [np.array(groups[key]) for key in sorted(groups)]


def near_lowest(log_x: np.ndarray, log_loss: np.ndarray, within: float) -> np.ndarray:
    """Returns which rows [k] lie within a share of the lowest loss, or beside it: the next value of one setting, the others equal."""
    kept = log_loss <= log_loss.min() + math.log1p(within)
    best = log_x[np.argmin(log_loss)]
    for axis in range(log_x.shape[1]):
        line = np.all(np.isclose(np.delete(log_x, axis, 1), np.delete(best, axis), rtol=0, atol=1e-9), axis=1)
        for side in (-1, 1):
            beyond = line & (side * (log_x[:, axis] - best[axis]) > 1e-9)
            if np.any(beyond):
                step = np.min(np.abs(log_x[beyond, axis] - best[axis]))
                kept |= beyond & (np.abs(log_x[:, axis] - best[axis]) <= step + 1e-9)
    return kept


def _fitted(runs: Runs, rows: np.ndarray, names: Sequence[str], within: float) -> _Fitted:
    log_x, log_loss = runs.log_x(names)[rows], runs.log_loss[rows]
    kept = near_lowest(log_x, log_loss, within)
    centre = log_x[kept].mean(axis=0)
    u, y = log_x[kept] - centre, log_loss[kept]
    terms = design(u)
    where = f"N {runs.n[rows[0]]:.3g}, D {runs.d[rows[0]]:.3g}"
    solver = np.linalg.pinv(terms)
    coefficients = solver @ y
    if np.linalg.matrix_rank(terms / np.maximum(np.abs(terms).max(axis=0), 1e-300)) == terms.shape[1]:
        return _Fitted(rows, kept, centre, u, y, coefficients, solver, problem(coefficients, u, names, where))
    ends = _ends(log_x, log_loss, names)
    need = f"a quadratic in {' and '.join(names)} needs {counted(terms.shape[1], 'row')} that vary each"
    few = f"{len(y)} of {len(rows)} lie within {within:.1%} of the lowest loss, or beside it: add some, or widen --within"
    edge = f"{where}: the lowest loss stands at the end of the sweep; add {' and '.join(ends)}"
    refused = Refusal("edge", edge) if ends else Refusal("too_few_points", f"{where}: {need}; {few}")
    return _Fitted(rows, kept, centre, u, y, coefficients, solver, refused)


def _ends(log_x: np.ndarray, log_loss: np.ndarray, names: Sequence[str]) -> list[str]:
    """Returns the settings at whose end the lowest row stands, each with the side."""
    best, low, high = log_x[np.argmin(log_loss)], log_x.min(axis=0), log_x.max(axis=0)
    swept = [i for i in range(len(names)) if low[i] < high[i]]
    return [f"{side} {names[i]}" for side, end in (("lower", low), ("higher", high)) for i in swept if best[i] == end[i]]


def analyse(
    runs: Runs, names: Sequence[str], settings: SweepSettings = SweepSettings(), at: Sequence[Mapping[str, float]] = ()
) -> SweepAnalysis:
    """Finds the best value of the settings `names` in each cell of a table, and the law of each.

    Args:
      runs: rows with an input for each setting.
      at: inputs, such as N and D, at which to give the best values.
    """
    groups = cells_of(runs)
    for name in names:
        if name in _INPUTS:
            raise UserError(f"--sweep {name}: {name} tells the cells apart; name a setting that was swept, such as lr")
        if all(np.ptp(runs.log_x([name])[rows]) < 1e-9 for rows in groups):
            raise UserError(f"{name} takes one value at each N and D of {runs.source}: a sweep needs several")
    for name, terms in settings.terms.items():
        if name not in names:
            raise UserError(f"--terms {name}: the sweep is of {', '.join(names)}")
        runs.log_x(terms)
    fitted = [_fitted(runs, rows, names, settings.within) for rows in groups]
    dof = sum(one.dof for one in fitted)
    noise = math.sqrt(sum(float(np.sum(one.residuals**2)) for one in fitted if one.dof) / dof) if dof >= LEAST_DEGREES else None
    cells = tuple(_cell(runs, one, names, noise, settings) for one in fitted)
    by_window = {settings.within: fitted}
    by_window |= {within: [_fitted(runs, rows, names, within) for rows in groups] for within in (settings.within / 2, 2 * settings.within)}
    regressions = {name: {w: _regression(runs, made, names, name, settings) for w, made in by_window.items()} for name in names}
    laws = {name: _law(found, settings) for name, found in regressions.items()}
    good = [one for found in regressions.values() if not isinstance(one := found[settings.within], Refusal)]
    wanted = tuple(one.at(where, settings.level) for where in at for one in good)
    return SweepAnalysis(runs.source, len(runs), settings.within, settings.level, noise, cells, laws, wanted)


def _cell(runs: Runs, one: _Fitted, names: Sequence[str], noise: Optional[float], settings: SweepSettings) -> SweepCell:
    n, d = (float(np.exp(np.mean(column[one.rows]))) for column in (runs.log_n, runs.log_d))
    lowest_row = one.rows[np.argmin(runs.loss[one.rows])]
    shown = {name: float(runs.inputs[name][lowest_row]) for name in names}
    head = (n, d, len(one.rows), int(one.kept.sum()))
    if one.refused is not None:
        return SweepCell(*head, dict.fromkeys(names, one.refused), shown, None)
    best = lowest(one.coefficients[None], one.u)
    where = f"N {n:.3g}, D {d:.3g}"
    why: Optional[Refusal] = Refusal("interval", "too few rows measure the noise: add values, or seeds")
    drawn = best
    if noise is not None:
        z = bootstrap.generator(settings.seed, f"sweep {where}").standard_normal((settings.draws, len(one.y)))
        drawn = lowest((one.y + noise * z) @ one.solver.T, one.u)
        why = bootstrap.lost_share(float(drawn.lost.mean()), MAX_LOST, where)
    values, draws = np.exp(best.u[0] + one.centre), np.exp(drawn.u + one.centre)
    answers: dict[str, Answer] = {
        name: bootstrap.estimate(values[i], draws[:, i], settings.level, METHOD, why) for i, name in enumerate(names)
    }
    return SweepCell(*head, answers, shown, float(np.exp(best.value[0])))


@dataclasses.dataclass(frozen=True)
class _Regression:
    """log x* = coefficients . (1, log of each term), with the covariance of the coefficients; None without a degree of freedom."""

    name: str
    terms: tuple[str, ...]
    coefficients: np.ndarray
    inverse: np.ndarray
    scatter: float
    dof: int

    def answer(self, row: np.ndarray, level: float, exp: bool = False) -> Answer:
        """Returns row . coefficients with its interval, or the exponential of both."""
        from scipy.special import stdtrit

        value, change = float(row @ self.coefficients), np.exp if exp else np.asarray
        if self.dof < 1:
            why = Refusal("interval", "as many cells as coefficients: one cell more is needed")
            return Estimate(float(change(value)), None, None, level, REGRESSION, why)
        half = stdtrit(self.dof, (1 + level) / 2) * self.scatter * math.sqrt(float(row @ self.inverse @ row))
        return Estimate(float(change(value)), float(change(value - half)), float(change(value + half)), level, REGRESSION)

    def at(self, inputs: Mapping[str, float], level: float) -> SettingAt:
        if missing := [term for term in self.terms if term not in inputs]:
            raise UserError(f"--at: the law of {self.name} needs {' and '.join(missing)} too")
        row = np.array([1.0, *(math.log(inputs[term]) for term in self.terms)])
        return SettingAt(self.name, dict(inputs), self.answer(row, level, exp=True))


def _law(found: Mapping[float, Union[_Regression, Refusal]], settings: SweepSettings) -> Union[SettingLaw, Refusal]:
    """Returns the law at the window that was asked for, and its exponents at the others: a caution where these leave its intervals."""
    made = found[settings.within]
    if isinstance(made, Refusal):
        return made
    unit = np.eye(len(made.coefficients))
    exponents = {term: made.answer(unit[1 + i], settings.level) for i, term in enumerate(made.terms)}
    windows = {
        f"{within:g}": dict(zip(one.terms, one.coefficients[1:].tolist(), strict=True))
        for within, one in found.items()
        if within != settings.within and not isinstance(one, Refusal)
    }
    moved = [term for term, answer in exponents.items() if any(not _covers(answer, at[term]) for at in windows.values())]
    caution = None
    if moved:
        what = f"the exponent of {' and '.join(moved)} leaves its interval at half or twice --within={settings.within:g}"
        caution = Caution("curve_matters", f"{what}: the loss is no quadratic over the rows that are fitted; add values near the best ones")
    c = made.answer(unit[0], settings.level, exp=True)
    return SettingLaw(made.name, c, exponents, made.scatter, made.dof + len(unit), windows, caution)


def _covers(answer: Answer, value: float) -> bool:
    return isinstance(answer, Estimate) and (answer.low is None or answer.covers(value))


def _regression(runs: Runs, cells: list[_Fitted], names: Sequence[str], name: str, settings: SweepSettings) -> Union[_Regression, Refusal]:
    good = [one for one in cells if one.refused is None]
    terms = tuple(settings.terms.get(name, ("N", "D")))
    need = 1 + len(terms)
    if len(good) < need:
        return Refusal(
            "too_few_points", f"{counted(len(good), 'cell')} with a best {name}; its law in {' and '.join(terms)} needs {need} at least"
        )
    x = np.array([[1.0, *np.mean(runs.log_x(terms)[one.rows], axis=0)] for one in good])
    spread = np.linalg.svd(x[:, 1:] - x[:, 1:].mean(axis=0), compute_uv=False)
    if spread[-1] < 0.1 * math.sqrt(len(good)):
        text = f"{' and '.join(terms)} do not vary apart over the {counted(len(good), 'cell')} with a best {name}"
        return Refusal("unidentified", f"{text}: add cells, or name fewer inputs with --terms {name}={terms[-1]}")
    index = list(names).index(name)
    y = np.array([lowest(one.coefficients[None], one.u).u[0, index] + one.centre[index] for one in good])
    inverse = np.linalg.inv(x.T @ x)
    coefficients = inverse @ x.T @ y
    dof = len(good) - need
    scatter = math.sqrt(float(np.sum((y - x @ coefficients) ** 2)) / dof) if dof else 0.0
    return _Regression(name, terms, coefficients, inverse, scatter, dof)
