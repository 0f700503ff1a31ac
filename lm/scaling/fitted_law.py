"""A law fitted to a table of runs, with the draws behind its intervals: what planning, comparison and the report start from."""

import dataclasses
from collections.abc import Callable
from typing import Optional, Union

import numpy as np

from lm.errors import UserError, counted
from lm.scaling.fits import fit, frontier, solver
from lm.scaling.fits.objectives import HuberLog, Objective
from lm.scaling.fits.projection import Projected, project
from lm.scaling.intervals import bootstrap, resampling
from lm.scaling.intervals.noise import NoiseModel, fit_noise
from lm.scaling.intervals.resampling import Resampling, Rows
from lm.scaling.laws.formula import Formula
from lm.scaling.laws.law import Chinchilla, Law
from lm.scaling.results import Answer, Refusal
from lm.scaling.runs import Runs


@dataclasses.dataclass(frozen=True)
class FittedLaw:
    """The optimum and its draws, in the law's own parameters. `sampled` is the range of each input that was measured.

    `left_out` holds the fits without one row, or run, each, where intervals are BCa's; `refused` says why there are no intervals.
    `simulated` are the log losses behind the draws and `minima` the objectives there, where the strategy draws losses and not weights.
    """

    fit: fit.Fit
    values: np.ndarray  # [k]
    draws: np.ndarray  # [R, k]
    method: str
    level: float
    sampled: dict[str, tuple[float, float]]
    projected: Optional[Projected] = None  # where variable projection ended
    left_out: Optional[np.ndarray] = None  # [J, k]
    refused: Optional[Refusal] = None
    simulated: Optional[np.ndarray] = None  # [R, n]
    minima: Optional[np.ndarray] = None  # [R]

    @property
    def law(self) -> Law:
        return self.fit.law

    @property
    def stacked(self) -> np.ndarray:
        """The parameters [1 + R + J, k] of the optimum, the draws and the fits that leave out a unit, as `answer_of` expects them."""
        parts = (self.values[None], self.draws) if self.left_out is None else (self.values[None], self.draws, self.left_out)
        return np.concatenate(parts)

    def estimate(self, of: Callable[[np.ndarray], np.ndarray]) -> Answer:
        """Returns the interval of a function of the parameters: `of` takes [m, k] and returns [m]."""
        return self.answer_of(of(self.stacked))

    def answer_of(self, column: np.ndarray) -> Answer:
        """Returns the interval of a function's values at `stacked` [1 + R + J]."""
        end = 1 + len(self.draws)
        return self.answer(float(column[0]), column[1:end], None if self.left_out is None else column[end:])

    def answer(self, value: float, drawn: np.ndarray, left_out: Optional[np.ndarray] = None) -> Answer:
        """Returns a number with the interval of its draws [R]: percentiles, or BCa's where values with a unit left out [J] are given."""
        if left_out is None or self.refused is not None:
            return bootstrap.estimate(value, drawn, self.level, self.method, self.refused)
        return resampling.bca(value, drawn, left_out, self.level, self.method)

    def allocate(self, cost: frontier.Cost, log_c: np.ndarray) -> tuple[frontier.Optimum, frontier.Optimum]:
        """Returns log N*, log D*, log L* at each C [m]: of the optimum [1, m], of the draws [R, m]."""
        return _allocated(self.law, self.values[None], cost, log_c), _allocated(self.law, self.draws, cost, log_c)

    def path(self, cost: frontier.Cost, log_c: np.ndarray) -> frontier.Optimum:
        """Returns log N*, log D*, log L* at each C [m] of `stacked`: [1 + R + J, m], columns of which `answer_of` reads."""
        return _allocated(self.law, self.stacked, cost, log_c)

    def parameters(self) -> dict[str, Answer]:
        """Returns every parameter with its interval."""
        return {name: self.answer_of(column) for name, column in zip(self.law.names, self.stacked.T, strict=True)}

    def derived(self) -> dict[str, Answer]:
        """Returns what the law derives from its parameters, with intervals; empty for most laws."""
        found = self.law.derive(self.stacked, self.sampled) if isinstance(self.law, Formula) else {}
        undefined = Refusal("unidentified", "the best fit has parameters that give none")
        return {name: self.answer_of(column) if np.isfinite(column[0]) else undefined for name, column in found.items()}


def _allocated(law: Law, values: np.ndarray, cost: frontier.Cost, log_c: np.ndarray) -> frontier.Optimum:
    """Finds the optimum at each C, to rounding for Hoffmann's law."""
    return frontier.optimum(values, cost, log_c) if isinstance(law, Chinchilla) else frontier.allocate(law, values, cost, log_c)


def points_of(runs: Runs, law: Law, weights: Optional[np.ndarray] = None) -> fit.Points:
    """Returns the points that a law is fitted to, each point with weight 1 unless `weights` [n] are given."""
    return fit.Points(runs.log_x(law.inputs), np.log(runs.loss), np.ones(len(runs)) if weights is None else weights)


def weights_of(cells: Runs, noise: Union[NoiseModel, Refusal], objective: Objective) -> np.ndarray:
    """Returns weights [n] of mean 1: by the noise of each cell, sigma(C) / sqrt(seeds), in the objective's power."""
    weights = _relative(cells, noise) ** -objective.power
    return weights / weights.mean()


def unit_of(cells: Runs, noise: Union[NoiseModel, Refusal], objective: Objective) -> float:
    """Returns the factor from a relative standard deviation to the scale weight^(-1 / power) of a row with it: see `weights_of`."""
    return float(np.mean(_relative(cells, noise) ** -objective.power) ** (1 / objective.power))


def scale_of_run(log_c: np.ndarray, noise: Union[NoiseModel, Refusal], unit: float) -> np.ndarray:
    """Returns the scale [n] of single runs at log FLOPs. A cell that is the mean of several seeds has less noise than a run."""
    return unit * (noise.sigma(log_c) if isinstance(noise, NoiseModel) else np.ones(np.shape(log_c)))


def _relative(cells: Runs, noise: Union[NoiseModel, Refusal]) -> np.ndarray:
    """Returns the noise of each cell [n] up to a constant: sigma(C) / sqrt(seeds), or 1 / sqrt(seeds) where nothing measures sigma."""
    return noise.sigma(cells.log_planned_c) * cells.noise_weight if isinstance(noise, NoiseModel) else cells.noise_weight


def cell_points(runs: Runs, law: Law, objective: Objective, noise: Union[NoiseModel, Refusal, None] = None) -> fit.Points:
    """Returns the cells of a table as the points of a fit, replicas merged, with the weights of their noise."""
    cells = runs.cells()
    return points_of(cells, law, weights_of(cells, fit_noise(runs) if noise is None else noise, objective))


def fit_runs(
    runs: Runs,
    law: Law = Chinchilla(),
    objective: Objective = HuberLog(),
    resampling: Resampling = Rows(),
    draws: int = 1000,
    level: float = 0.8,
    seed: int = 0,
    noise: Union[NoiseModel, Refusal, None] = None,
) -> Union[FittedLaw, Refusal]:
    """Fits a law to the cells of a table, from all of the law's starts and from where variable projection ends: approach 3.

    Replicas are merged and cells weigh by their noise. The law is fitted again to `draws` resamples from three places each.

    Args:
        runs: rows of a CSV file or of a study, replicas merged or not.
        noise: seed noise (default: what the seeds of `runs` measure).
    """
    noise = fit_noise(runs) if noise is None else noise
    cells, resampling = runs.cells(), resampling.resolve(runs, noise)
    if len(cells) <= len(law.names):
        return Refusal(
            "too_few_points", f"{counted(len(cells), 'row')} for {counted(len(law.names), 'parameter')}: {len(law.names) + 1} are the least"
        )
    if resampling.bca and len(cells) > solver.LARGE:
        raise UserError(f"{resampling.name} fits the law once for each of {counted(len(cells), 'row')}: use --interval=rows, or runs")
    points = cell_points(cells, law, objective, noise)
    projected = project(law, points, objective)
    made = fit.fit(law, points, objective, None if projected is None else projected.theta[None])
    if isinstance(made, Refusal):
        return made
    log_loss, weights = resampling.draw(made, cells, draws, seed)
    ends = fit.refit(made, log_loss, weights)
    centre = made.points.centre
    return FittedLaw(
        fit=made,
        values=law.natural(made.theta, centre),
        draws=law.natural(ends.theta, centre),
        method=resampling.name,
        level=level,
        sampled={name: (float(cells.inputs[name].min()), float(cells.inputs[name].max())) for name in law.inputs},
        projected=projected,
        left_out=law.natural(_left_out(made, resampling.units(cells)), centre) if resampling.bca else None,
        refused=resampling.refusal(made, cells),
        simulated=log_loss if weights is None else None,
        minima=ends.value if weights is None else None,
    )


SPAN = 8.0  # factor that N and D each have to span for five parameters
LOST = 0.1  # share of draws without a positive exponent above which there is none


def spans(runs: Runs, law: Law, least: float = SPAN) -> list[Refusal]:
    """Refuses five parameters or more where N or D spans too little."""
    if len(law.names) < 5 or not {"N", "D"} <= set(law.inputs):
        return []
    found = []
    for name in ("N", "D"):
        factor = float(runs.inputs[name].max() / runs.inputs[name].min())
        if factor < least * (1 - 1e-9):
            what = f"{name} spans a factor {factor:.1f}; {counted(len(law.names), 'parameter')} need {least:g}"
            found.append(Refusal("unidentified", f"{what}: add runs with other {name}, or fit a law of fewer parameters"))
    return found


def lost_draws(made: FittedLaw) -> float:
    """Returns the share of the draws in which loss does not fall with N or with D."""
    columns = [made.law.names.index(name) for name, _ in _falling(made.law)]
    return float(np.mean(np.any(made.draws[:, columns] <= 0, axis=1))) if columns else 0.0


def rising(made: FittedLaw, most: float = LOST) -> Optional[Refusal]:
    """Refuses exponents where loss does not fall with N or with D, in the optimum or in too many draws."""
    for name, symbol in _falling(made.law):
        value = made.fit.natural[name]
        if value <= 0:
            return Refusal("unidentified", f"the best fit has {name} = {value:.3g}: loss does not fall with {symbol}; widen {symbol}")
    if (lost := lost_draws(made)) > most:
        return Refusal("unidentified", f"{lost:.0%} of the draws have an exponent of 0 or less: widen N or D, or add seeds")
    return None


def _falling(law: Law) -> list[tuple[str, str]]:
    """Returns the exponents by which a law of N and D says that loss falls, each with its input."""
    return [(name, symbol) for name, symbol in (("alpha", "N"), ("beta", "D")) if name in law.names and symbol in law.inputs]


def lack_of_fit(made: FittedLaw, cells: Runs, noise: Union[NoiseModel, Refusal]) -> Optional[float]:
    """Returns the root mean square residual in seed standard deviations, per degree of freedom; None without a noise model."""
    if isinstance(noise, Refusal):
        return None
    z = made.fit.residuals / (noise.sigma(cells.log_planned_c) * cells.noise_weight)
    return float(np.sqrt(np.sum(z**2) / (len(z) - len(made.law.names))))


def _left_out(made: fit.Fit, units: np.ndarray) -> np.ndarray:
    """Fits the law without each unit: [J, k]."""
    return fit.refit(made, made.points.log_loss, (units != np.arange(units.max() + 1)[:, None]) * made.points.weights).theta
