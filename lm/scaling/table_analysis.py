"""Analyses a table of runs for `python -m lm.scaling fit`: typed results that print, travel as JSON, and are drawn on the page."""

import dataclasses
from typing import Any, NamedTuple, Optional, Union

import jax
import numpy as np

from lm.errors import UserError
from lm.scaling import diagnostics, law_error
from lm.scaling.allocation import Allocation, by_minima
from lm.scaling.approaches import isoflop, parametric, profiles
from lm.scaling.approaches.hull import Hull, fit_hull
from lm.scaling.approaches.isoflop import Isoflop
from lm.scaling.filters import Filter, FilterStep, apply, before_after
from lm.scaling.fits import constrained, frontier
from lm.scaling.fits.objectives import HuberLog, Objective
from lm.scaling.fitted_law import FittedLaw, fit_runs, lack_of_fit
from lm.scaling.intervals import likelihood, noise, profile_likelihood
from lm.scaling.intervals.discrepancy import Discrepancy
from lm.scaling.intervals.likelihood import Likelihood, LikelihoodFit
from lm.scaling.intervals.noise import NoiseModel
from lm.scaling.intervals.profile_likelihood import ProfileInterval
from lm.scaling.intervals.resampling import Measured, Resampling
from lm.scaling.laws.law import Chinchilla, Law
from lm.scaling.results import Answer, Caution, Refusal, result
from lm.scaling.rolling import RollingOrigin, rolling_origin
from lm.scaling.runs import Runs
from lm.scaling.sensitivity import Chosen, Variant, sensitivity
from lm.scaling.settings import AnalysisSettings

SCHEMA = 1
CALIBRATION = 200  # simulated fits behind the cut-off of a profile


@dataclasses.dataclass(frozen=True)
class TableSettings:
    """Settings of a table's fits.

    `targets` are FLOPs to allocate beyond the table's own. `filters` apply before every fit, in order. `profiles` names the parameters and
    derived quantities that get intervals by profile; `likelihood` is None, "gaussian" or "student"; `rolling` asks for a rolling origin,
    `sensitivity` for the exponent under other choices.
    """

    approaches: tuple[int, ...] = (3,)
    law: Law = Chinchilla()
    objective: Objective = HuberLog()
    resampling: Resampling = Measured()
    targets: tuple[float, ...] = ()
    curve: str = "parabola"
    regression: str = "plain"
    draws: int = 1000
    level: float = 0.8
    seed: int = 0
    filters: tuple[Filter, ...] = ()
    profiles: tuple[str, ...] = ()
    likelihood: Optional[str] = None
    rolling: bool = False
    sensitivity: bool = False


@result
class FittedPoint:
    """One row under the fitted law; `error` is log measured - log fitted."""

    run: str
    inputs: dict[str, float]
    flops: float
    loss: float
    fitted: float
    error: float


@result
class LawFit:
    """A law fitted to a table, with the numbers that show whether its optimum is one.

    `exponents` are a and b of N* ~ C^a, D* ~ C^b over the table's compute (empty for laws without N and D),
    `exponents_with_error` the same with the law's own error in their intervals. `derived` is what the law says
    of itself beside its parameters, by name. `projected` is the objective that variable projection reaches.
    """

    law: str
    equation: str
    source: str
    objective: str
    values: dict[str, float]
    parameters: dict[str, Answer]
    exponents: dict[str, Answer]
    allocations: tuple[Allocation, ...]
    resampling: str
    objective_value: float
    projected: Optional[float]
    gradient: float
    condition: float
    starts: int
    agreeing: int
    sampled: dict[str, tuple[float, float]]
    points: tuple[FittedPoint, ...]
    cautions: tuple[Caution, ...]
    profiles: tuple[ProfileInterval, ...] = ()
    likelihood: Union[LikelihoodFit, Refusal, None] = None
    derived: dict[str, Answer] = dataclasses.field(default_factory=dict)
    exponents_with_error: dict[str, Answer] = dataclasses.field(default_factory=dict)


@result
class TableAnalysis:
    """A table's results; None where an approach was not asked for."""

    schema: int
    source: str
    settings: dict[str, Any]
    count: int
    law: Union[LawFit, Refusal, None]  # approach 3
    isoflop: Union[Isoflop, Refusal, None]  # approach 2
    hull: Union[Hull, Refusal, None]  # approach 1
    cautions: tuple[Caution, ...]
    versions: dict[str, str]
    filters: tuple[FilterStep, ...] = ()
    rolling: Union[RollingOrigin, Refusal, None] = None
    isoflop_targets: tuple[Allocation, ...] = ()  # by the minima of approach 2, at the targets
    sensitivity: tuple[Variant, ...] = ()


class Fitted(NamedTuple):
    """A table's law with its draws, the cells it was fitted to, and the noise of their seeds."""

    law: FittedLaw
    cells: Runs
    noise: Union[NoiseModel, Refusal]


def analyse_runs(runs: Runs, settings: TableSettings = TableSettings()) -> TableAnalysis:
    """Fits what the settings ask for; numbers that the table does not support are Refusals."""
    return analyse_and_keep(runs, settings)[0]


def analyse_and_keep(runs: Runs, settings: TableSettings) -> tuple[TableAnalysis, Optional[Fitted]]:
    """Returns the analysis and the fitted law behind it, for those who go on from there; None where no law was fitted."""
    asked = settings.approaches
    _check(settings)
    law_of, curve = settings.law if 3 in asked else None, settings.curve if 2 in asked else None
    steps = before_after(runs, settings.filters, law_of, settings.objective, curve) if settings.filters else ()
    every, runs = runs, apply(runs, settings.filters)
    minima, targets = profiles_and_targets(runs, settings) if 2 in asked else (None, ())
    law, kept = _law_and_draws(runs, settings) if 3 in asked else (None, None)
    made = TableAnalysis(
        schema=SCHEMA, source=runs.source, settings=_described(settings), count=len(runs),
        law=law, isoflop=minima, hull=fit_hull(runs) if 1 in asked else None,
        cautions=_cautions(runs, minima, law, settings), versions={"jax": jax.__version__, "numpy": np.__version__},
        filters=steps, rolling=rolling_origin(runs, settings.law, settings.objective) if settings.rolling else None,
        isoflop_targets=targets, sensitivity=_sensitivity(every, law, minima, settings) if settings.sensitivity else (),
    )  # fmt: skip
    return made, kept


def _check(settings: TableSettings) -> None:
    """Raises a UserError, before anything is fitted, for a question that the law cannot answer."""
    law = settings.law
    known = law.names + (constrained.KINDS if frontier.allocates(law) else ())
    if unknown := [name for name in settings.profiles if name not in known]:
        raise UserError(f"no profile of {unknown[0]!r} under this law: there are {', '.join(known)}")
    if settings.sensitivity and 2 not in settings.approaches and not (3 in settings.approaches and frontier.allocates(law)):
        raise UserError("--sensitivity shows how a of N* ~ C^a moves: ask for approach 2 (with --budget), or for 3 with a law of N and D")


def _sensitivity(
    every: Runs, law: Union[LawFit, Refusal, None], minima: Union[Isoflop, Refusal, None], settings: TableSettings
) -> tuple[Variant, ...]:
    """Returns a under other choices, by the approaches that were asked for."""
    chosen = Chosen(settings.law, settings.objective, settings.resampling, settings.filters, _isoflop_settings(every, settings))
    third = law.exponents.get("a") if isinstance(law, LawFit) else law
    return sensitivity(every, chosen, third, minima.a if isinstance(minima, Isoflop) else minima)


def _cautions(
    runs: Runs,
    minima: Union[Isoflop, Refusal, None],
    law: Union[LawFit, Refusal, None],
    settings: TableSettings,
) -> tuple[Caution, ...]:
    """Returns what concerns approach 2 and the table as a whole; a law's cautions stand with it."""
    found: list[diagnostics.Found] = [] if isinstance(law, LawFit) else list(diagnostics.suspect(runs, settings.law))
    found += [] if minima is None else diagnostics.off_budget(runs)
    if isinstance(minima, Isoflop):
        found += diagnostics.minima(minima)
        third = law.exponents.get("a") if isinstance(law, LawFit) else None
        cells = runs.cells()
        found += diagnostics.exponents(minima, profiles.by_budget(cells), third, cells, settings.curve, settings.seed)
    return tuple(one for one in found if isinstance(one, Caution))


def fit_profiles(runs: Runs, settings: TableSettings) -> Union[Isoflop, Refusal]:
    """Fits approach 2 over the table's planned budgets, the replicas of a cell merged."""
    return profiles_and_targets(runs, settings)[0]


def profiles_and_targets(runs: Runs, settings: TableSettings) -> tuple[Union[Isoflop, Refusal], tuple[Allocation, ...]]:
    """Returns approach 2, and N*, D* and loss at the targets by its minima."""
    if refused := next((one for one in diagnostics.suspect(runs, settings.law) if isinstance(one, Refusal)), None):
        return refused, ()
    cells = runs.cells()
    found = profiles.by_budget(cells)
    chosen = _isoflop_settings(runs, settings)
    made, minima = isoflop.fit_isoflop(found, cells, noise.fit_noise(runs), chosen)
    return made, by_minima(minima, settings.targets, chosen)


def _isoflop_settings(runs: Runs, settings: TableSettings) -> AnalysisSettings:
    return AnalysisSettings(
        n="params", c="counted" if runs.counted else "6nd", planned_c="table", level=settings.level, draws=settings.draws,
        seed=settings.seed, curve=settings.curve, regression=settings.regression,
    )  # fmt: skip


def _described(settings: TableSettings) -> dict[str, Any]:
    made: dict[str, Any] = {f.name: getattr(settings, f.name) for f in dataclasses.fields(settings)}
    made |= {name: repr(made[name]) for name in ("law", "objective", "resampling")}
    return made | {"filters": tuple(one.name for one in settings.filters)}


def fit_law(runs: Runs, settings: TableSettings) -> Union[LawFit, Refusal]:
    """Fits approach 3 with any law; a Refusal where the rows cannot hold the answer, whatever the fit."""
    return _law_and_draws(runs, settings)[0]


def _law_and_draws(runs: Runs, settings: TableSettings) -> tuple[Union[LawFit, Refusal], Optional[Fitted]]:
    law, objective = settings.law, settings.objective
    found = diagnostics.before(runs, law)
    if refused := next((one for one in found if isinstance(one, Refusal)), None):
        return refused, None
    seeds, cells = noise.fit_noise(runs), runs.cells()
    made = fit_runs(runs, law, objective, settings.resampling, settings.draws, settings.level, settings.seed, seeds)
    if isinstance(made, Refusal):
        return made, None
    lack = parametric.lack_cautions(lack_of_fit(made, cells, seeds))
    density = fit_likelihood(made, settings)
    profiled = profile_intervals(made, cells, settings, density)
    fitted = described(cells, made, settings, found + diagnostics.after(made, cells, profiled) + lack)
    ratios = {at.flops: at.ratio for at in fitted.allocations}
    more = diagnostics.answers(made, cells, fitted.parameters, fitted.exponents.get("a"), ratios)
    fitted = dataclasses.replace(fitted, cautions=fitted.cautions + more)
    summary = density.summary() if isinstance(density, Likelihood) else density
    return dataclasses.replace(fitted, profiles=profiled, likelihood=summary), Fitted(made, cells, seeds)


def fit_likelihood(made: FittedLaw, settings: TableSettings) -> Union[Likelihood, Refusal, None]:
    """Fits the density of log loss that the settings name."""
    if settings.likelihood is None:
        return None
    return likelihood.student(made.fit) if settings.likelihood == "student" else likelihood.gaussian(made.fit)


def profile_intervals(
    made: FittedLaw, cells: Runs, settings: TableSettings, density: Union[Likelihood, Refusal, None] = None
) -> tuple[ProfileInterval, ...]:
    """Returns intervals by the profile of a likelihood, or without one by that of the objective, whose cut-off is simulated."""
    targets = {name: profile_target(name, made.law, cells, settings.targets) for name in settings.profiles}
    if isinstance(density, Likelihood):
        return tuple(likelihood.interval(density, name, target, settings.level) for name, target in targets.items())
    if not targets:
        return ()
    losses = profile_likelihood.wild(made.fit, CALIBRATION, settings.seed) if made.simulated is None else made.simulated[:CALIBRATION]
    return tuple(profile_likelihood.intervals(made.fit, targets, losses, settings.level).values())


def profile_target(name: str, law: Law, cells: Runs, targets: tuple[float, ...]) -> constrained.Target:
    """Returns the parameter of the law, or the quantity of its optimum, that `name` means.

    Exponents are read over the compute of the table, the rest at the last of `targets`, or at the table's largest compute.
    """
    if name in law.names:
        return constrained.parameter(law, name)
    low, high = float(cells.c.min()), float(cells.c.max())
    last = targets[-1] if targets and name not in ("a", "b") else high
    return constrained.Derived(name, (low, last), frontier.cost_of(cells))


def described(runs: Runs, made: FittedLaw, settings: TableSettings, found: tuple[diagnostics.Found, ...] = ()) -> LawFit:
    """Returns a fitted law as a typed result; a Refusal among `found` takes the place of exponents and allocations."""
    law = made.law
    refused = next((one for one in found if isinstance(one, Refusal)), None)
    cautions = tuple(Caution(one.kind, one.reason) if isinstance(one, Refusal) else one for one in found)
    fitted = np.exp(made.fit.log_loss(made.fit.points.log_x))
    points = tuple(
        FittedPoint(
            runs.run[i], {name: float(runs.inputs[name][i]) for name in law.inputs}, float(runs.c[i]), float(runs.loss[i]),
            float(fitted[i]), float(np.log(runs.loss[i] / fitted[i])),
        )
        for i in range(len(runs))
    )  # fmt: skip
    own = None if refused else law_error.inferred(made)
    return LawFit(
        law=type(law).__name__, equation=getattr(law, "equation", "") or type(law).__name__, source=getattr(law, "source", ""),
        objective=repr(made.fit.objective),
        values=made.fit.natural, parameters=made.parameters(), exponents=exponents(made, runs, refused),
        allocations=() if refused else allocations(made, runs, settings.targets, own, settings.seed),
        exponents_with_error=law_error.exponents(own, runs, made.level, settings.seed),
        resampling=made.method, objective_value=made.fit.value, projected=None if made.projected is None else made.projected.value,
        gradient=made.fit.gradient, condition=made.fit.condition, starts=made.fit.starts, agreeing=made.fit.agreeing,
        sampled=made.sampled, points=points, cautions=cautions, derived=made.derived(),
    )  # fmt: skip


def exponents(made: FittedLaw, runs: Runs, refused: Optional[Refusal] = None) -> dict[str, Answer]:
    """Returns a and b of N* ~ C^a, D* ~ C^b; empty for a law that allocates nothing."""
    if not frontier.allocates(made.law):
        return {}
    a, b = (refused, refused) if refused else parametric.path_exponents(made, runs)
    return {"a": a, "b": b}


def allocations(
    made: FittedLaw, runs: Runs, targets: tuple[float, ...], own: Union[Discrepancy, Refusal, None] = None, seed: int = 0
) -> tuple[Allocation, ...]:
    """Returns N*, D* and the loss at each power of ten within the table's compute, and at the targets."""
    if not frontier.allocates(made.law):
        return ()
    decades = 10.0 ** np.arange(np.ceil(np.log10(runs.c.min())), np.floor(np.log10(runs.c.max())) + 1)
    flops = sorted({*decades.tolist(), *targets})
    cost = frontier.cost_of(runs)
    path, with_error = made.path(cost, np.log(flops)), law_error.optima(own, cost, flops, made.level, seed)
    found = []
    for i, c in enumerate(flops):
        columns = (path.log_n[:, i], path.log_d[:, i], path.log_loss[:, i], (path.log_d - path.log_n)[:, i])
        n, d, loss, ratio = (made.answer_of(np.exp(column)) for column in columns)
        caution = diagnostics.extrapolation(c, (float(runs.c.min()), float(runs.c.max())))
        found.append(Allocation(c, n, d, loss, ratio, caution, with_error[i]))
    return tuple(found)
