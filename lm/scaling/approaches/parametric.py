"""Approach 3: L(N, D) = E + A / N^alpha + B / D^beta through all decayed end points.

Hoffmann et al. 2022, section 3.3: Huber's cost of log loss, from the full grid of starts. Terms are weighted by 1 / sigma of their cell,
the scale of a cost that is nearly absolute. Intervals: parametric bootstrap (the fitted law plus seed noise sigma(C), itself drawn), or
without seeds the bootstrap over cells; beside them the residual bootstrap within budgets.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable
from typing import Optional, Union

import numpy as np

from lm.scaling import law_error
from lm.scaling.fits import fit, frontier
from lm.scaling.fits.objectives import HuberLog
from lm.scaling.fitted_law import FittedLaw, fit_runs, lack_of_fit, lost_draws, rising, spans
from lm.scaling.intervals import bootstrap, profile_likelihood
from lm.scaling.intervals.noise import NoiseModel
from lm.scaling.intervals.resampling import Measured, WithinBudget
from lm.scaling.laws.law import Chinchilla
from lm.scaling.results import Answer, Caution, Line, Refusal, result
from lm.scaling.runs import Runs
from lm.scaling.settings import AnalysisSettings

LACK = 1.5  # residuals over the seed noise above which a caution is given
_BEYOND = 110.0  # factor beyond the sampled compute up to which lines go
_CALIBRATION = 100  # simulated fits behind a profile's cut-off


@result
class Residual:
    """One cell under the fitted law; `error` is log measured - log fitted, `z` the same in seed standard deviations."""

    ids: tuple[str, ...]
    budget: float
    n: float
    tokens: float
    loss: float
    fitted: float
    error: float
    z: Optional[float]


@result
class Parametric:
    """The result of approach 3: the fitted law, and the exponents a and b of N* ~ C^a, D* ~ C^b that follow from it.

    `a` and `b` are beta / (alpha + beta) and its complement, as if C were k N D. `a_counted` and `b_counted` are the slopes of N* and D*
    over the sampled budgets with C as counted. Those `with_error` are the same with the law's own error.
    """

    n_convention: str
    c_convention: str
    objective: str
    values: dict[str, float]  # the optimum, to the last digit
    parameters: dict[str, Answer]
    a: Answer
    b: Answer
    a_counted: Answer
    b_counted: Answer
    a_residual: Answer  # a with the interval by residual bootstrap
    n_line: Optional[Line]
    d_line: Optional[Line]
    loss_line: Line
    profiles: tuple[profile_likelihood.ProfileCurve, ...]
    residuals: tuple[Residual, ...]
    lack_of_fit: Optional[float]  # rms residual in seed standard deviations, per degree of freedom
    objective_value: float
    gradient: float
    condition: float
    starts: int
    agreeing: int
    failed: float  # share of draws with an exponent of 0 or less
    cautions: tuple[Caution, ...]
    a_with_error: Optional[Answer] = None
    b_with_error: Optional[Answer] = None
    a_counted_with_error: Optional[Answer] = None
    b_counted_with_error: Optional[Answer] = None


def fit_law(
    cells: Runs, noise: Union[NoiseModel, Refusal], settings: AnalysisSettings, draws: int, stream: str, span: bool = True
) -> Union[FittedLaw, Refusal]:
    """Fits the law as the settings say; `span` asks that N and D span enough for the parameters to mean something."""
    law = Chinchilla()
    if span and (problems := spans(cells, law, settings.min_span)):
        return problems[0]
    return fit_runs(cells, law, HuberLog(settings.delta), Measured(stream=stream), draws, settings.level, settings.seed, noise)


def exponents(natural: np.ndarray) -> np.ndarray:
    """Returns a = beta / (alpha + beta) of parameters [R, 5]; an exponent of 0 or less counts as 0."""
    alpha, beta = np.maximum(natural[:, 3], 0.0), np.maximum(natural[:, 4], 0.0)
    return beta / np.maximum(alpha + beta, 1e-300)


def fit_parametric(
    cells: Runs,
    noise: Union[NoiseModel, Refusal],
    settings: AnalysisSettings,
    draws: Optional[int] = None,
    check: Callable[[FittedLaw, Answer], Iterable[Caution]] = lambda made, a: (),
) -> Union[Parametric, Refusal]:
    """Fits approach 3 with intervals, profiles and residuals. `check` returns cautions of the fitted law and its exponent a."""
    made = fit_law(cells, noise, settings, draws or settings.draws, "main")
    return made if isinstance(made, Refusal) else described(made, cells, noise, settings, check)


def described(
    made: FittedLaw,
    cells: Runs,
    noise: Union[NoiseModel, Refusal],
    settings: AnalysisSettings,
    check: Callable[[FittedLaw, Answer], Iterable[Caution]] = lambda made, a: (),
) -> Parametric:
    """Returns a fitted law as the result of approach 3."""
    profiles = _profiles(made, ("E", "alpha", "beta"), settings)
    flat = {curve.name: curve.refusal for curve in profiles if curve.flat}
    problem = _unidentified(made, flat, settings)
    parameters = made.parameters() | flat
    for coefficient, exponent in (("A", "alpha"), ("B", "beta")):
        if exponent in flat:
            parameters[coefficient] = flat[exponent]
    a_counted, b_counted = path_exponents(made, cells)
    furthest = _BEYOND * float(cells.c.max())
    n_line, d_line, loss_line = (line(made, cells, which, furthest) for which in ("log_n", "log_d", "log_loss"))
    own = {} if problem else _with_error(made, cells, settings)
    lack, value = lack_of_fit(made, cells, noise), made.fit
    return Parametric(
        n_convention=settings.n, c_convention=settings.c, objective=f"Huber({settings.delta:g}) on log loss", values=value.natural,
        parameters=parameters,
        a=problem or made.estimate(exponents), b=problem or made.estimate(lambda p: 1 - exponents(p)),
        a_counted=problem or a_counted, b_counted=problem or b_counted,
        a_residual=problem or _by_residuals(made, cells, settings),
        n_line=None if problem else n_line, d_line=None if problem else d_line, loss_line=loss_line, profiles=profiles,
        residuals=_residuals(value, cells, noise), lack_of_fit=lack, objective_value=value.value, gradient=value.gradient,
        condition=value.condition, starts=value.starts, agreeing=value.agreeing, failed=lost_draws(made),
        cautions=value.cautions + _cautions(flat, lack) + tuple(check(made, a_counted)),
        **own,
    )  # fmt: skip


def _with_error(made: FittedLaw, cells: Runs, settings: AnalysisSettings) -> dict[str, Answer]:
    """Returns the exponents with the law's own error, for C = k N D and for C as counted."""
    own, draws = law_error.inferred(made), min(law_error.DRAWS, settings.draws)
    plain = dataclasses.replace(cells, inputs=dict(cells.inputs) | {"C": 6 * cells.n * cells.d}, counted=False)
    found = {}
    for ending, runs in (("", plain), ("_counted", cells)):
        for name, answer in law_error.exponents(own, runs, settings.level, settings.seed, draws).items():
            found[f"{name}{ending}_with_error"] = answer
    return found


def path_exponents(made: Union[FittedLaw, Refusal], cells: Runs) -> tuple[Answer, Answer]:
    """Returns the slopes of log N* and log D* on log C as counted in `cells`, the runs of the fit in any convention of C.

    They are read at the sampled budgets, or at nine values over the sampled compute where none are planned.
    """
    if isinstance(made, Refusal):
        return made, made
    a, b = path_slopes(made, cells)
    return made.answer_of(a), made.answer_of(b)


def path_slopes(made: FittedLaw, cells: Runs) -> tuple[np.ndarray, np.ndarray]:
    """Returns the slopes of log N* and log D* on log C of `made.stacked`, of which `path_exponents` reads the intervals."""
    log_c = np.linspace(cells.log_c.min(), cells.log_c.max(), 9)
    if cells.budget is not None and len(budgets := sorted(set(cells.budget.tolist()))) > 1:
        log_c = np.array([cells.log_c[cells.budget == budget].mean() for budget in budgets])
    slope = np.linalg.pinv(np.stack([np.ones_like(log_c), log_c], axis=1))[1]
    path = made.path(frontier.cost_of(cells), log_c)
    return path.log_n @ slope, path.log_d @ slope


def unidentified(made: FittedLaw, settings: AnalysisSettings) -> Optional[Refusal]:
    """Says why the exponents of N* and D* mean nothing, if they do not."""
    profiles = _profiles(made, ("alpha", "beta"), settings)
    return _unidentified(made, {curve.name: curve.refusal for curve in profiles if curve.flat}, settings)


def _profiles(made: FittedLaw, names: tuple[str, ...], settings: AnalysisSettings) -> tuple[profile_likelihood.ProfileCurve, ...]:
    """Profiles the objective; cut-offs come from the draws, or where these are no losses from the wild bootstrap."""
    losses, minima = made.simulated, made.minima
    if losses is None or minima is None:
        losses = profile_likelihood.wild(made.fit, _CALIBRATION, settings.seed)
        minima = fit.refit(made.fit, losses).value
    return profile_likelihood.profiles(made.fit, names, losses[:_CALIBRATION], minima[:_CALIBRATION])


def _unidentified(made: FittedLaw, flat: dict[str, Refusal], settings: AnalysisSettings) -> Optional[Refusal]:
    """Says why the exponents of N* and D* mean nothing, if they do not; a flat E alone leaves them standing."""
    return rising(made, settings.max_lost) or flat.get("alpha") or flat.get("beta")


def _by_residuals(made: FittedLaw, cells: Runs, settings: AnalysisSettings) -> Answer:
    """Returns a with the interval of the residual bootstrap."""
    strategy = WithinBudget()
    log_loss, _ = strategy.draw(made.fit, cells, len(made.draws), settings.seed)
    ends = fit.refit(made.fit, log_loss)
    drawn = exponents(made.law.natural(ends.theta, made.fit.points.centre))
    return bootstrap.estimate(exponents(made.values[None])[0], drawn, settings.level, strategy.name, strategy.refusal(made.fit, cells))


def line(made: FittedLaw, cells: Runs, which: str, furthest: float = 0.0) -> Line:
    """Returns N*, D* or L* ("log_n", "log_d", "log_loss") over the sampled compute and a decade on either side, or up to `furthest`."""
    low_c, high_c = float(cells.log_c.min()), float(cells.log_c.max())
    log_c = np.linspace(low_c - math.log(10), max(high_c + math.log(10), math.log(furthest or 1.0)), 41)
    best, drawn = (getattr(found, which) for found in made.allocate(frontier.cost_of(cells), log_c))
    low, high = bootstrap.quantiles(drawn, made.level)
    band = ((), ()) if made.refused else (tuple(np.exp(low)), tuple(np.exp(high)))
    return Line(tuple(np.exp(log_c)), tuple(np.exp(best[0])), *band, (math.exp(low_c), math.exp(high_c)))


def _residuals(made: fit.Fit, cells: Runs, noise: Union[NoiseModel, Refusal]) -> tuple[Residual, ...]:
    fitted, error, log_c = np.exp(made.log_loss(made.points.log_x)), made.residuals, cells.log_planned_c
    z = error / (noise.sigma(log_c) * cells.noise_weight) if isinstance(noise, NoiseModel) else None
    budget = cells.c if cells.budget is None else cells.budget
    return tuple(
        Residual(
            ids=cells.ids[i], budget=float(budget[i]), n=float(cells.n[i]), tokens=float(cells.d[i]), loss=float(cells.loss[i]),
            fitted=float(fitted[i]), error=float(error[i]), z=None if z is None else float(z[i]),
        )
        for i in range(len(cells))
    )  # fmt: skip


def _cautions(flat: dict[str, Refusal], lack: Optional[float]) -> tuple[Caution, ...]:
    return tuple(Caution("unidentified", refusal.reason) for refusal in flat.values()) + lack_cautions(lack)


def lack_cautions(lack: Optional[float]) -> tuple[Caution, ...]:
    """Warns of residuals far larger than the seed noise."""
    if lack is None or lack <= LACK:
        return ()
    return (Caution("lack_of_fit", f"residuals are {lack:.1f} times the seed noise: the parametric interval is too narrow"),)
