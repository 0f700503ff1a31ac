"""Approach 2: parabolas through the end losses of each budget, in log N and in log D, and power laws through their minima (numpy only).

Hoffmann et al. 2022, section 3.2. The parabola is fitted to the loss in nats by least squares, weighted by the number of seeds. N* is the
minimum along log N and D* that along log D: where the sizes of a budget differ in C / (N D) one does not follow from the other. Two
intervals stand side by side: parametric (the fitted parabola plus seed noise sigma(C), itself drawn from its own uncertainty) and
residual (the parabola plus resampled residuals of the same budget, inflated for the fitted coefficients). Without seeds the residual one
stands alone: it covers 79% of simulated studies at a nominal 80%, 91% at 95% (`python -m tests.nightly.coverage`). Both suppose a power
law; beside them stand exponents and optima by the sizes about each minimum alone (`near`), whose power law has an error of its own
(`intervals.drift`): that is what the backtest measures.

Cells are not resampled: a budget of seven loses its minimum in 37-50% of such draws. A draw whose parabola opens downwards, or has its
minimum outside the sampled sizes, counts as lost, and its minimum stands at the end of the grid towards which its parabola falls.
"""

import dataclasses
import math
import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple, Optional, Union

import numpy as np

from lm.errors import counted
from lm.scaling.approaches import curves, near
from lm.scaling.approaches.curves import Curve
from lm.scaling.approaches.profiles import Profile
from lm.scaling.intervals import bootstrap, drift
from lm.scaling.intervals.noise import NoiseModel
from lm.scaling.results import Answer, Estimate, Line, Refusal, result
from lm.scaling.runs import Runs
from lm.scaling.settings import AnalysisSettings

PARAMETRIC, RESIDUAL = "parametric bootstrap", "residual bootstrap"
DRIFTING = "the optimum near the lowest loss of each budget, with a drifting exponent"
MIN_BUDGETS = 3
NEAR = 0.01  # relative distance of two sizes below which no curve runs through both
ROUNDING = 1e-9  # of log loss: sizes whose losses differ by less differ by rounding alone
_LEAST_SD = 1e-3  # of log N*: a budget whose draws agree better weighs no more than this


@result
class IsoflopBudget:
    """One profile, its curve (loss = c0 + c1 u + c2 u^2 with u = log N - centre for the parabola), and where it is lowest."""

    budget: float
    flops: float
    ids: tuple[tuple[str, ...], ...]
    n: tuple[float, ...]
    tokens: tuple[float, ...]
    loss: tuple[float, ...]
    seeds: tuple[int, ...]
    sd: tuple[float, ...]  # of each point's loss by seed noise, nats; empty where it is not measured
    centre: float
    coefficients: tuple[float, ...]  # constant first; empty for Akima's curve
    n_star: Answer
    d_star: Answer
    loss_star: Answer
    n_star_residual: Answer  # the same value with the interval by residual bootstrap
    lost: Optional[float]  # share of parametric draws without an interior minimum
    lost_residual: Optional[float]


@result
class Isoflop:
    """The result of approach 2: N* ~ C^a and D* ~ C^b, by ordinary least squares of the minima's logarithms on log C."""

    n_convention: str
    c_convention: str
    budgets: tuple[IsoflopBudget, ...]
    a: Answer
    b: Answer
    a_residual: Answer
    b_residual: Answer
    n_line: Optional[Line]
    d_line: Optional[Line]
    a_with_error: Optional[Answer] = None  # with an exponent that may drift, read over the budgets' compute
    b_with_error: Optional[Answer] = None


class Draws(NamedTuple):
    """Minima of the draws of one budget: log N and the loss along the sizes, log D along the tokens [R], and which were lost [R]."""

    log_n: np.ndarray
    log_d: np.ndarray
    loss: np.ndarray
    lost: np.ndarray
    lost_d: np.ndarray


class Minimum(NamedTuple):
    """The minimum of one budget: the typed result, and the draws behind it (None where there are none)."""

    result: IsoflopBudget
    parametric: Optional[Draws]
    residual: Optional[Draws]


class Curves(NamedTuple):
    """The curves through the losses of one profile, along log N and along log D."""

    n: Curve
    d: Curve

    def lowest(self, along_n: np.ndarray, along_d: np.ndarray) -> Draws:
        """Finds where curves of coefficients [R, c] are lowest within what was sampled."""
        n, d = curves.lowest(self.n, along_n), curves.lowest(self.d, along_d)
        return Draws(n.u + self.n.centre, d.u + self.d.centre, n.loss, n.lost, d.lost)

    def shaken(self, noise: np.ndarray) -> Draws:
        """Finds the minima of the curves' own losses with relative noise [R, k]."""
        return self.lowest(*((fit.fitted * (1 + noise)) @ fit.solver.T for fit in self))

    def resampled(self, loss: np.ndarray, draws: int, seed: int, name: str) -> Draws:
        """Finds the minima of the curves' own losses with residuals drawn again, the same points for both curves."""
        noise = [bootstrap.within_budget(loss - fit.fitted, fit.leverage, draws, bootstrap.generator(seed, name)) for fit in self]
        return self.lowest(*((fit.fitted + error) @ fit.solver.T for fit, error in zip(self, noise, strict=True)))


def fit_budget(
    profile: Profile, noise_weight: np.ndarray, cell_sigma: Optional[np.ndarray], settings: AnalysisSettings, draws: int
) -> Minimum:
    """Finds the minimum of one profile, with its intervals.

    `cell_sigma` [draws + 1, cells] is the relative seed standard deviation of the table's cells: first the estimate, then draws of it.
    """
    if len(profile.log_n) < settings.min_points:
        reason = f"{counted(len(profile.log_n), 'size')} at {profile.budget:.3g} FLOPs; a parabola and its noise need {settings.min_points}"
        return _refused(profile, Refusal("too_few_points", reason))
    if settings.curve == "akima" and _nearest(profile) < NEAR:
        what = f"two sizes at {profile.budget:.3g} FLOPs all but coincide, in N or in D, and a curve through both swings"
        return _refused(profile, Refusal("too_few_points", f"{what}: use --quality duplicates, or --curve=parabola"))
    if np.ptp(profile.log_loss) < ROUNDING:
        what = f"the losses at {profile.budget:.3g} FLOPs are all {math.exp(profile.log_loss[0]):.6g}, so that no size is the lowest"
        return _refused(profile, Refusal("unidentified", f"{what}: check the column of losses"))
    fits = Curves(*(curves.through(profile, noise_weight, settings.curve, along) for along in ("log_n", "log_d")))
    name = f"isoflop {profile.budget:.6e}"
    sd: tuple[float, ...] = ()
    parametric = None
    if cell_sigma is not None:
        relative = cell_sigma * noise_weight
        sd = tuple(np.sqrt((profile.mix**2) @ relative[0] ** 2) * np.exp(profile.log_loss))
        z = bootstrap.generator(settings.seed, name).standard_normal((draws, profile.mix.shape[1]))
        parametric = fits.shaken((relative[1:] * z) @ profile.mix.T)
    residual = fits.resampled(np.exp(profile.log_loss), draws, settings.seed, name + " residuals")
    return Minimum(
        _budget(profile, fits, sd, _answers(profile, fits, parametric, residual, settings), parametric, residual), parametric, residual
    )


def _nearest(profile: Profile) -> float:
    """Returns the least relative distance of two sizes, or of their tokens."""
    return float(np.exp(min(np.diff(np.sort(column)).min() for column in (profile.log_n, profile.log_d))) - 1)


def _answers(
    profile: Profile, fits: Curves, parametric: Optional[Draws], residual: Draws, settings: AnalysisSettings
) -> tuple[Answer, ...]:
    """Returns N*, D*, L*, and N* with the interval of residuals: a refusal where the curve has no minimum."""
    where = f"{profile.budget:.3g} FLOPs"
    best = fits.lowest(*(fit.coefficients[None] for fit in fits))
    along_n = _no_minimum(fits.n, bool(best.lost[0]), float(best.log_n[0]), where, "sizes")
    along_d = _no_minimum(fits.d, bool(best.lost_d[0]), float(best.log_d[0]), where, "tokens")
    main, method = (parametric, PARAMETRIC) if parametric is not None else (residual, RESIDUAL)

    def answer(which: str, draws: Draws, how: str) -> Answer:
        if problem := along_d if which == "log_d" else along_n:
            return problem
        lost = draws.lost_d if which == "log_d" else draws.lost
        refused = bootstrap.lost_share(float(lost.mean()), settings.max_lost, where)
        value, drawn = (getattr(d, which) if which == "loss" else np.exp(getattr(d, which)) for d in (best, draws))
        made = bootstrap.estimate(value[0], drawn, settings.level, how, refused)
        return _without_residuals(made) if draws is residual and fits.n.kind == "akima" else made

    return (*(answer(which, main, method) for which in ("log_n", "log_d", "loss")), answer("log_n", residual, RESIDUAL))


def _without_residuals(answer: Estimate) -> Estimate:
    """Returns the number without an interval: a curve through every point leaves no residuals to draw from."""
    refused = Refusal("interval", "a curve through every point leaves no residuals: add seeds, or choose the parabola or the cubic")
    return dataclasses.replace(answer, low=None, high=None, refused=refused)


def _no_minimum(fit: Curve, lost: bool, at: float, where: str, sampled: str) -> Optional[Refusal]:
    """Says why the curve along N ("sizes") or D ("tokens") has no minimum within what was sampled, if it has none."""
    if fit.kind == "parabola" and fit.coefficients[2] <= 0:
        return Refusal("concave", f"the profile at {where} opens downwards: add sizes on both sides, or seeds")
    if lost:
        side = "below" if at < fit.centre else "above"
        return Refusal("edge", f"the minimum at {where} lies {side} the sampled {sampled}: add sizes there")
    return None


def _budget(
    profile: Profile, fits: Curves, sd: tuple[float, ...], answers: tuple[Answer, ...], drawn: Optional[Draws], residual: Draws
) -> IsoflopBudget:
    n_star, d_star, loss_star, n_star_residual = answers
    lost = None if drawn is None else float(drawn.lost.mean())
    coefficients = () if fits.n.kind == "akima" else tuple(float(c) for c in fits.n.coefficients)
    return IsoflopBudget(
        **_common_fields(profile), sd=sd, centre=fits.n.centre, coefficients=coefficients, n_star=n_star, d_star=d_star,
        loss_star=loss_star, n_star_residual=n_star_residual, lost=lost, lost_residual=float(residual.lost.mean()),
    )  # fmt: skip


def _refused(profile: Profile, problem: Refusal) -> Minimum:
    made = IsoflopBudget(
        **_common_fields(profile), sd=(), centre=0.0, coefficients=(0.0, 0.0, 0.0), n_star=problem, d_star=problem, loss_star=problem,
        n_star_residual=problem, lost=None, lost_residual=None,
    )  # fmt: skip
    return Minimum(made, None, None)


def _common_fields(profile: Profile) -> dict[str, Any]:
    logs = {"n": profile.log_n, "tokens": profile.log_d, "loss": profile.log_loss}
    columns: dict[str, Any] = {name: tuple(np.exp(column).tolist()) for name, column in logs.items()}
    seeds = tuple(int(s) for s in profile.seeds)
    return columns | {"budget": profile.budget, "flops": float(np.exp(profile.log_c)), "ids": profile.ids, "seeds": seeds}


def fit_isoflop(
    profiles: Sequence[Profile],
    cells: Runs,
    noise: Union[NoiseModel, Refusal],
    settings: AnalysisSettings,
    draws: Optional[int] = None,
    sigma: Optional[np.ndarray] = None,
) -> tuple[Isoflop, list[Minimum]]:
    """Fits approach 2: finds the minimum of every profile, and the exponents with their intervals.

    Args:
        profiles: of `cells`, by planned budget or interpolated.
        cells: the table whose rows the profiles mix.
        noise: relative seed standard deviation sigma(C); intervals come from residuals where it is refused.
        settings: how curves are fitted and intervals are read.
        draws: bootstrap draws (default: settings.draws).
        sigma: [draws + 1, cells] another model's relative standard deviation instead of `noise`: the estimate, then draws of it.

    Returns:
        The result, and the minimum of each profile with its draws.
    """
    draws, log_c = draws or settings.draws, cells.log_planned_c
    if sigma is None and isinstance(noise, NoiseModel):
        sigma = np.concatenate([noise.sigma(log_c)[None], noise.draws(log_c, draws, settings.seed)])
    fitted = [fit_budget(profile, cells.noise_weight, sigma, settings, draws) for profile in profiles]
    budgets = tuple(m.result for m in fitted)
    a, b = (_exponent(fitted, which, False, settings) for which in ("n_star", "d_star"))
    a_residual, b_residual = (_exponent(fitted, which, True, settings) for which in ("n_star", "d_star"))
    lines = [_line(fitted, which, settings) for which in ("n_star", "d_star")]
    own = [
        value if isinstance(value, Refusal) else _exponent_with_error(fitted, which, settings)
        for value, which in ((a, "n_star"), (b, "d_star"))
    ]
    head = (settings.n, settings.c, budgets, a, b, a_residual, b_residual)
    return Isoflop(*head, lines[0], lines[1], own[0], own[1]), fitted


def with_minimum(fitted: Sequence[Minimum], which: str) -> list[Minimum]:
    """Returns the budgets whose N* ("n_star") or D* ("d_star") is a number."""
    return [m for m in fitted if isinstance(getattr(m.result, which), Estimate)]


def regress(
    good: Sequence[Minimum], which: str, residual: bool = False, regression: str = "plain"
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Regresses log N* or log D* on log C.

    Returns log C [B], and (intercept, slope) of the line: of the estimate [2], of the draws [R, 2].

    "weighted" (Porian et al. 2024) regresses the medians of the draws, each budget by the inverse variance of its draws; "plain" the
    estimates, all alike.
    """
    log_c = np.log([m.result.flops for m in good])
    best = np.log([getattr(m.result, which).value for m in good])
    column = {"n_star": "log_n", "d_star": "log_d"}[which]
    drawn = np.stack([getattr(draws_of(m, residual), column) for m in good], axis=1)
    design = np.stack([np.ones_like(log_c), log_c], axis=1)
    if regression == "plain":
        solver = np.linalg.pinv(design)
        return log_c, solver @ best, drawn @ solver.T
    root = 1 / np.maximum(drawn.std(axis=0), _LEAST_SD)
    solver = np.linalg.pinv(design * root[:, None]) * root
    return log_c, solver @ np.median(drawn, axis=0), drawn @ solver.T


def draws_of(minimum: Minimum, residual: bool = False) -> Draws:
    """Returns the draws of a budget with a minimum: by seed noise, or by residuals where seeds measure none or `residual` asks for it."""
    made = minimum.residual if residual or minimum.parametric is None else minimum.parametric
    assert made is not None  # a budget with a minimum has draws
    return made


def interval_problem(good: Sequence[Minimum], which: str, residual: bool, settings: AnalysisSettings) -> Optional[Refusal]:
    """Returns the reason why the minimum of some budget has no interval, or None; the exponents then have none either."""
    for m in good:
        answer = m.result.n_star_residual if residual else getattr(m.result, which)
        problem = answer.refused if isinstance(answer, Estimate) else None
        if problem is None and which == "d_star" and residual:
            problem = bootstrap.lost_share(float(draws_of(m, True).lost_d.mean()), settings.max_lost, f"{m.result.budget:.3g} FLOPs")
        if problem is not None:
            return problem
    return None


def _exponent(fitted: Sequence[Minimum], which: str, residual: bool, settings: AnalysisSettings) -> Answer:
    """Returns the slope of the regression with the interval of its draws: a for "n_star", b for "d_star"."""
    good = with_minimum(fitted, which)
    if len(good) < MIN_BUDGETS:
        return Refusal("too_few_points", f"{counted(len(good), 'budget')} with an interior minimum; a power law needs {MIN_BUDGETS}")
    _, best, drawn = regress(good, which, residual, settings.regression)
    method = RESIDUAL if residual or good[0].parametric is None else PARAMETRIC
    return bootstrap.estimate(best[1], drawn[:, 1], settings.level, method, interval_problem(good, which, residual, settings))


def _exponent_with_error(fitted: Sequence[Minimum], which: str, settings: AnalysisSettings) -> Answer:
    """Returns the slope over the budgets where the exponent may drift (`intervals.drift`)."""
    shown = _shown(fitted, which)
    if isinstance(shown, Refusal):
        return shown
    value, sd = drift.exponent(*shown)
    reach = _reach(settings.level) * sd
    return Estimate(value, value - reach, value + reach, settings.level, DRIFTING)


def extrapolate_with_error(fitted: Sequence[Minimum], which: str, log_c: np.ndarray, settings: AnalysisSettings) -> list[Answer]:
    """Extrapolates N* ("n_star"), D* ("d_star") or D* / N* ("ratio") to log C [m] where the exponent may drift."""
    shown = _shown(fitted, which)
    if isinstance(shown, Refusal):
        return [shown] * len(log_c)
    mean, sd = drift.extrapolate(*shown, log_c)
    reach = np.exp(_reach(settings.level) * sd)
    ends = zip(np.exp(mean).tolist(), reach.tolist(), strict=True)
    return [Estimate(value, value / factor, value * factor, settings.level, DRIFTING) for value, factor in ends]


def _shown(fitted: Sequence[Minimum], which: str) -> Union[tuple[np.ndarray, np.ndarray, np.ndarray], Refusal]:
    """Returns log C of the budgets that show an optimum near their lowest loss, its logarithm, and the standard deviation of that."""
    found = []
    for budget in (m.result for m in fitted):
        log_loss = np.log(budget.loss)
        columns = {"n_star": budget.n, "d_star": budget.tokens}
        parts = [near.lowest(np.log(columns[name]), log_loss) for name in (("d_star", "n_star") if which == "ratio" else (which,))]
        known = [part for part in parts if part is not None]
        if len(known) == len(parts):  # the errors of N* and D* are opposite where C is fixed
            centre = known[0][0] - known[1][0] if which == "ratio" else known[0][0]
            found.append((np.log(budget.flops), centre, sum(sd for _, sd in known)))
    if len(found) < MIN_BUDGETS:
        return Refusal(
            "too_few_points", f"optima show in {counted(len(found), 'budget')} near their lowest loss; a power law needs {MIN_BUDGETS}"
        )
    log_c, at, sd = np.array(found).T
    return log_c, at, sd


def _reach(level: float) -> float:
    """Returns how many standard deviations an interval of a normal distribution extends either way."""
    return statistics.NormalDist().inv_cdf((1 + level) / 2)


def extrapolate(good: Sequence[Minimum], which: str, log_c: np.ndarray, regression: str = "plain") -> tuple[np.ndarray, np.ndarray]:
    """Extrapolates log N* or log D* to log C [m]: the line [m] and its draws [R, m]."""
    _, best, drawn = regress(good, which, regression=regression)
    design = np.stack([np.ones_like(log_c), log_c])
    return best @ design, drawn @ design


def _line(fitted: Sequence[Minimum], which: str, settings: AnalysisSettings) -> Optional[Line]:
    """Returns the power law over the sampled compute and a decade on either side."""
    good = with_minimum(fitted, which)
    if len(good) < MIN_BUDGETS:
        return None
    sampled = np.log([m.result.flops for m in good])
    log_c = np.linspace(sampled.min() - np.log(10), sampled.max() + np.log(10), 41)
    best, drawn = extrapolate(good, which, log_c, settings.regression)
    low, high = bootstrap.quantiles(drawn, settings.level)
    band = ((), ()) if interval_problem(good, which, False, settings) else (tuple(np.exp(low)), tuple(np.exp(high)))
    return Line(tuple(np.exp(log_c)), tuple(np.exp(best)), *band, (float(np.exp(sampled.min())), float(np.exp(sampled.max()))))
