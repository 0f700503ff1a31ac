"""Approach 3: L(N, D) = E + A / N^alpha + B / D^beta through all decayed end points.

Hoffmann et al. 2022, section 3.3: Huber's cost of log loss, from the full grid of starts. Terms are weighted by 1 / sigma of their cell,
the scale of a cost that is nearly absolute. Intervals: parametric bootstrap (the fitted law plus seed noise sigma(C), itself drawn), and
residual bootstrap within budgets beside it.
"""

import math
from typing import NamedTuple, Optional, Union

import numpy as np

from lm.scaling.fits import fit, frontier
from lm.scaling.fits.objectives import HuberLog
from lm.scaling.intervals import bootstrap, profile_likelihood
from lm.scaling.intervals.noise import NoiseModel
from lm.scaling.laws.law import Chinchilla
from lm.scaling.points import Cells
from lm.scaling.results import Answer, Caution, Estimate, Line, Refusal, result
from lm.scaling.settings import AnalysisSettings

PARAMETRIC, RESIDUAL = "parametric bootstrap", "residual bootstrap within budgets"
_CALIBRATION = 100  # simulated fits behind a profile's cut-off
_PARAMETERS = 5


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
    """The fitted law. `a` and `b` are beta / (alpha + beta) and its complement (C = k N D); `a_counted` and `b_counted` are the slopes of
    N* and D* over the sampled budgets with C as counted."""

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


class Fitted(NamedTuple):
    """The optimum with its draws: natural parameters [R, 5] and coordinates [R, 5], parametric where noise is measured, else residual."""

    fit: fit.Fit
    natural: np.ndarray
    drawn: np.ndarray
    draws: np.ndarray
    residual_draws: np.ndarray
    method: str
    simulated: np.ndarray  # log losses behind the draws
    free_values: np.ndarray  # their minima


def spans(cells: Cells, settings: AnalysisSettings) -> Optional[Refusal]:
    """Refuses five parameters where N or D spans too little."""
    for name, column in (("N", cells.log_n), ("D", cells.log_d)):
        factor = math.exp(float(np.ptp(column)))
        if factor < settings.min_span * (1 - 1e-9):
            return Refusal("unidentified", f"{name} spans a factor {factor:.1f}; five parameters need {settings.min_span:g}")
    return None


def fit_law(
    cells: Cells, noise: Union[NoiseModel, Refusal], settings: AnalysisSettings, draws: int, name: str, span: bool = True
) -> Union[Fitted, Refusal]:
    """The optimum and its bootstrap draws; `span` asks that N and D span enough for the parameters to mean something."""
    if len(cells) <= _PARAMETERS:
        return Refusal("too_few_points", f"{len(cells)} cells for five parameters: six are the least")
    if span and (problem := spans(cells, settings)):
        return problem
    sigma = noise.sigma(cells.log_c) * cells.noise_weight if isinstance(noise, NoiseModel) else cells.noise_weight
    weights = (1 / sigma) / np.mean(1 / sigma)
    made = fit.fit(Chinchilla(), fit.Points(cells.x, cells.log_loss, weights), HuberLog(settings.delta))
    if isinstance(made, Refusal):
        return made
    fitted = made.log_loss(cells.x)
    resampled = fitted + _residual_noise(cells, made.residuals, draws, settings, name)
    residual_ends = fit.refit(made, resampled)
    shaken, ends, method = resampled, residual_ends, RESIDUAL
    if isinstance(noise, NoiseModel):
        scale = noise.draws(cells.log_c, draws, settings.seed) * cells.noise_weight
        shaken = fitted + scale * bootstrap.generator(settings.seed, f"parametric {name}").standard_normal((draws, len(cells)))
        ends, method = fit.refit(made, shaken), PARAMETRIC
    law, centre = made.law, made.points.centre
    natural = law.natural(made.theta[None], centre)
    both = (law.natural(ends.theta, centre), law.natural(residual_ends.theta, centre))
    return Fitted(made, natural, ends.theta, *both, method, shaken, ends.value)


def _residual_noise(cells: Cells, residuals: np.ndarray, draws: int, settings: AnalysisSettings, name: str) -> np.ndarray:
    """Residuals resampled within each budget, inflated for the five fitted parameters: [draws, n]."""
    noise = np.zeros((draws, len(cells)))
    leverage = min(_PARAMETERS / len(cells), 0.9)
    for budget in sorted(set(cells.budget.tolist())):
        index = np.flatnonzero(cells.budget == budget)
        random = bootstrap.generator(settings.seed, f"parametric residuals {name} {budget:.6e}")
        noise[:, index] = bootstrap.within_budget(residuals[index], np.full(len(index), leverage), draws, random)
    return noise


def exponents(natural: np.ndarray) -> np.ndarray:
    """a = beta / (alpha + beta) of parameters [R, 5]; an exponent of 0 or less counts as 0."""
    alpha, beta = np.maximum(natural[:, 3], 0.0), np.maximum(natural[:, 4], 0.0)
    return beta / np.maximum(alpha + beta, 1e-300)


def fit_parametric(
    planned: Cells, cells: Cells, noise: Union[NoiseModel, Refusal], settings: AnalysisSettings, draws: Optional[int] = None
) -> Union[Parametric, Refusal]:
    """Approach 3 with intervals, profiles and residuals. `planned` and `cells` are the same runs with C as planned, in which sigma(C) is
    read, and with C in the convention of the answer."""
    got = fit_law(planned, noise, settings, draws or settings.draws, "main")
    if isinstance(got, Refusal):
        return got
    profiles = _profiles(got, ("E", "alpha", "beta"))
    flat = {curve.name: curve.refusal for curve in profiles if curve.flat}
    unidentified = _unidentified(got, flat, settings)
    columns = zip(got.fit.law.names, got.natural[0], got.draws.T, strict=True)
    parameters = {name: flat.get(name) or bootstrap.estimate(value, drawn, settings.level, got.method) for name, value, drawn in columns}
    for coefficient, exponent in (("A", "alpha"), ("B", "beta")):
        if exponent in flat:
            parameters[coefficient] = flat[exponent]
    a, drawn = exponents(got.natural)[0], exponents(got.draws)
    counted = [_counted(got, cells, which, settings) for which in ("log_n", "log_d")]
    lines = [_line(got, cells, which, settings) for which in ("log_n", "log_d", "log_loss")]
    residuals, lack = _residuals(got.fit, planned, noise)
    value = {name: float(v) for name, v in zip(got.fit.law.names, got.natural[0], strict=True)}
    return Parametric(
        n_convention=settings.n, c_convention=settings.c, objective=f"Huber({settings.delta:g}) on log loss", values=value,
        parameters=parameters,
        a=unidentified or bootstrap.estimate(a, drawn, settings.level, got.method),
        b=unidentified or bootstrap.estimate(1 - a, 1 - drawn, settings.level, got.method),
        a_counted=unidentified or counted[0], b_counted=unidentified or counted[1],
        a_residual=unidentified or bootstrap.estimate(a, exponents(got.residual_draws), settings.level, RESIDUAL),
        n_line=None if unidentified else lines[0], d_line=None if unidentified else lines[1], loss_line=lines[2], profiles=profiles,
        residuals=residuals, lack_of_fit=lack, objective_value=got.fit.value, gradient=got.fit.gradient, condition=got.fit.condition,
        starts=got.fit.starts, agreeing=got.fit.agreeing, failed=_failed(got), cautions=got.fit.cautions + _cautions(flat, lack),
    )  # fmt: skip


def path_exponents(got: Union[Fitted, Refusal], cells: Cells, settings: AnalysisSettings) -> tuple[Answer, Answer]:
    """Slopes of N* and D* with C as counted in `cells`, the same runs as those of the fit in any convention of C."""
    if isinstance(got, Refusal):
        return got, got
    return _counted(got, cells, "log_n", settings), _counted(got, cells, "log_d", settings)


def unidentified(got: Fitted, settings: AnalysisSettings) -> Optional[Refusal]:
    """Why the exponents of N* and D* mean nothing, if they do not."""
    return _unidentified(got, {curve.name: curve.refusal for curve in _profiles(got, ("alpha", "beta")) if curve.flat}, settings)


def _profiles(got: Fitted, names: tuple[str, ...]) -> tuple[profile_likelihood.ProfileCurve, ...]:
    return profile_likelihood.profiles(got.fit, names, got.simulated[:_CALIBRATION], got.free_values[:_CALIBRATION])


def _failed(got: Fitted) -> float:
    """Share of the draws in which loss does not fall with N or with D."""
    return float(np.mean((got.draws[:, 3] <= 0) | (got.draws[:, 4] <= 0)))


def _unidentified(got: Fitted, flat: dict[str, Refusal], settings: AnalysisSettings) -> Optional[Refusal]:
    """Why the exponents of N* and D* mean nothing, if they do not; a flat E alone leaves them standing."""
    for name in ("alpha", "beta"):
        value = got.fit.natural[name]
        if value <= 0:
            what = "N" if name == "alpha" else "D"
            return Refusal("unidentified", f"the best fit has {name} = {value:.3g}: loss does not fall with {what}")
        if name in flat:
            return flat[name]
    failed = _failed(got)
    if failed > settings.max_lost:
        return Refusal("unidentified", f"{failed:.0%} of the draws have an exponent of 0 or less: widen N or D, or add seeds")
    return None


def _counted(got: Fitted, cells: Cells, which: str, settings: AnalysisSettings) -> Estimate:
    """The slope of log N* or log D* on log C over the sampled budgets."""
    log_c = np.array([cells.log_c[cells.budget == budget].mean() for budget in sorted(set(cells.budget.tolist()))])
    slope, cost = np.linalg.pinv(np.stack([np.ones_like(log_c), log_c], axis=1))[1], frontier.cost_of(cells)
    best, drawn = (getattr(frontier.optimum(p, cost, log_c), which) @ slope for p in (got.natural, got.draws))
    return bootstrap.estimate(best[0], drawn, settings.level, got.method)


def _line(got: Fitted, cells: Cells, which: str, settings: AnalysisSettings) -> Line:
    """N*, D* or L* over the sampled compute and a decade on either side."""
    low_c, high_c = float(cells.log_c.min()), float(cells.log_c.max())
    log_c = np.linspace(low_c - math.log(10), high_c + math.log(10), 41)
    cost = frontier.cost_of(cells)
    best, drawn = (getattr(frontier.optimum(p, cost, log_c), which) for p in (got.natural, got.draws))
    low, high = bootstrap.quantiles(drawn, settings.level)
    return Line(tuple(np.exp(log_c)), tuple(np.exp(best[0])), tuple(np.exp(low)), tuple(np.exp(high)), (math.exp(low_c), math.exp(high_c)))


def _residuals(made: fit.Fit, cells: Cells, noise: Union[NoiseModel, Refusal]) -> tuple[tuple[Residual, ...], Optional[float]]:
    fitted, error = np.exp(made.log_loss(cells.x)), made.residuals
    z = error / (noise.sigma(cells.log_c) * cells.noise_weight) if isinstance(noise, NoiseModel) else None
    found = tuple(
        Residual(
            cells.ids[i], float(cells.budget[i]), math.exp(cells.log_n[i]), math.exp(cells.log_d[i]), math.exp(cells.log_loss[i]),
            float(fitted[i]), float(error[i]), None if z is None else float(z[i]),
        )
        for i in range(len(cells))
    )  # fmt: skip
    return found, None if z is None else float(np.sqrt(np.sum(z**2) / (len(cells) - _PARAMETERS)))


def _cautions(flat: dict[str, Refusal], lack: Optional[float]) -> tuple[Caution, ...]:
    found = [Caution("unidentified", refusal.reason) for refusal in flat.values()]
    if lack is not None and lack > 1.5:
        found.append(Caution("lack_of_fit", f"residuals are {lack:.1f} times the seed noise: the parametric interval is too narrow"))
    return tuple(found)
