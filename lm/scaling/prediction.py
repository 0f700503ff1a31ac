"""The loss of a run that was not made, from a fitted law, with an interval of three parts that are shown apart.

- noise: the run's own, by the seeds of the table where they measure it, else by the residuals of the fit.
- parameters: the draws of the fitted law.
- discrepancy: how far the law itself is off (`predict_with_error`; `intervals.discrepancy` infers it from the residuals).

Each part is a set of draws of log loss about 0. The parts are independent, so that their sum is a draw of the whole.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Optional, Protocol, Union

import numpy as np

from lm.errors import UserError
from lm.scaling.diagnostics.extrapolation import kind_of
from lm.scaling.fits import solver
from lm.scaling.fits.frontier import Cost
from lm.scaling.fitted_law import FittedLaw, scale_of_run
from lm.scaling.intervals import bootstrap
from lm.scaling.intervals.discrepancy import Discrepancy
from lm.scaling.intervals.noise import NoiseModel
from lm.scaling.intervals.resampling import LEAST_DEGREES
from lm.scaling.laws.law import Law
from lm.scaling.results import Answer, Caution, Estimate, Refusal, result

NOISE, PARAMETERS, DISCREPANCY = "noise", "parameters", "discrepancy"
DRAWS = 4000  # of a forecast with the law's own error
_ORDER = ("N", "D", "C", "M")


class Part(Protocol):
    """A part of a forecast's error."""

    @property
    def name(self) -> str: ...

    def draws(self, fitted: FittedLaw, log_x: np.ndarray, log_c: np.ndarray, count: int, seed: int) -> np.ndarray:
        """Returns draws [count, n] of log loss about 0, at log inputs [n, p] of the law and log FLOPs [n]."""


@dataclasses.dataclass(frozen=True)
class Predicted:
    """Forecasts of n runs: inputs by name [n], log loss [n], and the draws [R, n] about it of each part."""

    inputs: dict[str, np.ndarray]
    log_loss: np.ndarray
    parts: dict[str, np.ndarray]

    @functools.cached_property
    def draws(self) -> np.ndarray:
        """The draws [R, n] of log loss, all parts together."""
        return self.log_loss + sum(self.parts.values())

    def failed(self, i: int) -> Optional[Refusal]:
        """Refuses the interval of a run where draws of the law have no loss."""
        share = float(np.mean(~np.isfinite(self.draws[:, i])))
        return Refusal("interval", f"{share:.0%} of the draws of the law have no loss here") if share else None


@result
class RunForecast:
    """The loss of a run with these inputs.

    `parts` holds the standard deviation of log loss by each part of the interval alone, `beyond` the factors by which inputs lie outside
    the sampled range.
    """

    inputs: dict[str, float]
    loss: Answer
    parts: dict[str, float]
    beyond: dict[str, float]
    caution: Optional[Caution]


@dataclasses.dataclass(frozen=True)
class Noise:
    """The noise of a run to come: sigma(C) of the table's seeds, else Student's t with the scale of the residuals."""

    model: Union[NoiseModel, Refusal, None] = None
    name: str = NOISE

    @property
    def measured(self) -> bool:
        return isinstance(self.model, NoiseModel) and self.model.dof >= LEAST_DEGREES

    def draws(self, fitted: FittedLaw, log_x: np.ndarray, log_c: np.ndarray, count: int, seed: int) -> np.ndarray:
        """Returns the same draws for a run whatever stands beside it: all runs share their normal deviates."""
        random = bootstrap.generator(seed, "noise of a run to come")
        z = random.standard_normal((count, 1))
        if isinstance(self.model, NoiseModel) and self.measured:
            return self.model.draws(log_c, count, seed) * z
        r, k = fitted.fit.residuals, len(fitted.values)
        degrees = len(r) - k
        scale = math.sqrt(float(r @ r) / degrees)
        return np.broadcast_to(scale * z * np.sqrt(degrees / random.chisquare(degrees, (count, 1))), (count, len(log_x)))


def predict(
    fitted: FittedLaw, cost: Cost, inputs: Mapping[str, np.ndarray], noise: Union[NoiseModel, Refusal, None] = None,
    further: Sequence[Part] = (), seed: int = 0,
) -> Predicted:  # fmt: skip
    """Forecasts runs with these inputs.

    Args:
      inputs: of the law, by name [n]; N, D, C and M = D / N follow from one another (`completed`).
      noise: seed noise of the table (default: the noise of the residuals).
      further: parts of the error beyond the noise and the parameters.
    """
    law, known = fitted.law, completed(inputs, cost)
    log_x = np.log(np.stack([_needed(law, known, name) for name in law.inputs], axis=1))
    log_c = np.log(known["C"]) if "C" in known else np.full(len(log_x), math.log(cost.sampled[1]))
    origin = np.zeros(log_x.shape[1])
    theta = law.coordinates(np.concatenate([fitted.values[None], fitted.draws]), origin)
    every = solver.predict(law, theta, law.design(log_x, origin))
    parts = {NOISE: Noise(noise).draws(fitted, log_x, log_c, len(fitted.draws), seed), PARAMETERS: every[1:] - every[0]}
    parts |= {part.name: part.draws(fitted, log_x, log_c, len(fitted.draws), seed) for part in further}
    return Predicted(known, every[0], parts)


def predict_with_error(
    fitted: FittedLaw, cost: Cost, inputs: Mapping[str, np.ndarray], own: Discrepancy, noise: Union[NoiseModel, Refusal], unit: float,
    seed: int = 0,
) -> Predicted:  # fmt: skip
    """Forecasts runs by the law and its own error, as the backtest does: Student's t about the law moved by what it is off by nearby.

    `unit` is that of the fitted table (`fitted_law.unit_of`), by which a run has the noise of one seed.
    """
    known = completed(inputs, cost)
    log_x = np.log(np.stack([_needed(fitted.law, known, name) for name in fitted.law.inputs], axis=1))
    log_c = np.log(known["C"]) if "C" in known else np.full(len(log_x), math.log(cost.sampled[1]))
    spread = own.predict(log_x, scale_of_run(log_c, noise, unit))
    random = bootstrap.generator(seed, "forecast with the law's own error")
    heavy = np.sqrt(spread.degrees / random.chisquare(spread.degrees, (DRAWS, 1)))
    columns = {NOISE: spread.noise, PARAMETERS: spread.parameters, DISCREPANCY: spread.discrepancy}
    parts = {name: heavy * random.standard_normal((DRAWS, 1)) * sd for name, sd in columns.items()}
    return Predicted(known, fitted.fit.log_loss(log_x) + spread.shift, parts)


def completed(given: Mapping[str, np.ndarray], cost: Cost) -> dict[str, np.ndarray]:
    """Returns the inputs with those of N, D, C and M = D / N that follow from N or D and another, C in the convention of the table."""
    known = {name: np.atleast_1d(np.asarray(value, float)) for name, value in given.items()}
    if "D" in known and "N" not in known:
        if "M" in known:
            known["N"] = known["D"] / known["M"]
        elif "C" in known:
            known["N"] = cost.size(known["C"] / known["D"])
    if "N" in known and "D" not in known:
        if "M" in known:
            known["D"] = known["M"] * known["N"]
        elif "C" in known:
            known["D"] = known["C"] / np.exp(cost.log_flops_per_token(np.log(known["N"])))
    if {"N", "D"} <= set(known):
        per_token = np.exp(cost.log_flops_per_token(np.log(known["N"])))
        known = {"C": per_token * known["D"], "M": known["D"] / known["N"]} | known
    return {name: known[name] for name in sorted(known, key=lambda name: _ORDER.index(name) if name in _ORDER else len(_ORDER))}


def _needed(law: Law, known: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    if name not in known:
        raise UserError(f"the law reads {', '.join(law.inputs)}: give {name} too")
    return known[name]


def forecasts(fitted: FittedLaw, made: Predicted, level: float) -> tuple[RunForecast, ...]:
    """Returns the forecast of each run with its interval, which is refused where the fit's own intervals are."""
    method = " + ".join(made.parts)
    low, high = bootstrap.quantiles(np.exp(made.draws), level)
    found = []
    for i, value in enumerate(np.exp(made.log_loss).tolist()):
        inputs = {name: float(column[i]) for name, column in made.inputs.items()}
        beyond = outside(inputs, fitted.sampled)
        if not np.isfinite(value):
            why = Refusal("extrapolation", "the law has no loss at these inputs: ask for a run nearer to the sampled ones")
            found.append(RunForecast(inputs, why, dict.fromkeys(made.parts, 0.0), beyond, caution_of(beyond)))
            continue
        refused = fitted.refused or made.failed(i)
        first, last = (float(low[i]), float(high[i])) if refused is None else (None, None)
        loss = Estimate(value, first, last, level, method, refused)
        parts = {name: float(np.std(column[np.isfinite(column)])) for name, drawn in made.parts.items() for column in [drawn[:, i]]}
        found.append(RunForecast(inputs, loss, parts, beyond, caution_of(beyond)))
    return tuple(found)


def outside(inputs: Mapping[str, float], sampled: Mapping[str, tuple[float, float]]) -> dict[str, float]:
    """Returns the factors by which inputs lie outside the sampled range, the largest first."""
    factors = {name: max(inputs[name] / high, low / inputs[name]) for name, (low, high) in sampled.items() if name in inputs}
    return {name: factor for name, factor in sorted(factors.items(), key=lambda item: -item[1]) if factor > 1 + 1e-9}


def caution_of(beyond: Mapping[str, float]) -> Optional[Caution]:
    """Returns a caution for a run outside the sampled range, of a kind that grows with the largest factor; None within."""
    if not beyond:
        return None
    far = ", ".join(f"{name} by a factor {factor:.3g}" for name, factor in beyond.items())
    return Caution(
        kind_of(max(beyond.values())), f"outside the sampled range: {far}; the interval holds only if the law does: add runs nearer to it"
    )
