"""Bootstraps: how the draws behind an interval are made, and how an interval is read off them (numpy only).

Each strategy resamples what a law was fitted to; the fits to its resamples are the draws. An interval is the equal-tailed percentiles of
the draws, or, with `bca`, Efron's bias-corrected and accelerated percentiles (1987), whose acceleration comes from fits that leave out one
row or one run at a time. `lm.scaling.coverage` measures which of them cover.
"""

import dataclasses
import math
import statistics
from typing import TYPE_CHECKING, Any, ClassVar, Optional, Protocol, Union

import numpy as np

from lm.errors import UserError, counted
from lm.scaling.fits.picks import Picks, Weights
from lm.scaling.intervals import bootstrap
from lm.scaling.results import Estimate, Refusal
from lm.scaling.runs import Runs

if TYPE_CHECKING:
    from lm.scaling.fits.fit import Fit
    from lm.scaling.intervals.noise import NoiseModel

PER_PARAMETER = 4  # rows, or runs, that a bootstrap over them needs for each parameter
LEAST_DEGREES = 4  # of freedom, over all cells with seeds, for a noise model to be the default
_NORMAL = statistics.NormalDist()


class Resampling(Protocol):
    """A bootstrap: log losses [R, n] or [n], and weights [R, n] or None, as `fit.refit` takes them."""

    @property
    def name(self) -> str: ...

    @property
    def bca(self) -> bool: ...

    def draw(self, made: "Fit", runs: Runs, count: int, seed: int) -> tuple[np.ndarray, Optional[Weights]]: ...

    def refusal(self, made: "Fit", runs: Runs) -> Optional[Refusal]:
        """Says why no interval can be read off the draws, and what would suffice."""

    def units(self, runs: Runs) -> np.ndarray:
        """Returns the index [n] of what the acceleration of BCa leaves out together."""

    def resolve(self, runs: Runs, noise: "Union[NoiseModel, Refusal]") -> "Resampling":
        """Returns the strategy for this table, whose seeds measure `noise`."""


class Strategy:
    """A strategy that is used as it stands."""

    def resolve(self, runs: Runs, noise: "Union[NoiseModel, Refusal]") -> Any:  # a Resampling: itself, or what Measured chooses
        return self


@dataclasses.dataclass(frozen=True)
class Rows(Strategy):
    """Bootstrap over rows: each draw weighs a point by how often it was picked. It is right where points are independent."""

    name: str = "bootstrap over rows"
    bca: bool = False

    def draw(self, made: "Fit", runs: Runs, count: int, seed: int) -> tuple[np.ndarray, Optional[Weights]]:
        return made.points.log_loss, _picks(self.units(runs), made.points.weights, count, seed, self.name)

    def refusal(self, made: "Fit", runs: Runs) -> Optional[Refusal]:
        return _too_few("rows", len(runs), len(made.law.names))

    def units(self, runs: Runs) -> np.ndarray:
        return np.arange(len(runs))


@dataclasses.dataclass(frozen=True)
class ByRun(Strategy):
    """Bootstrap over training runs: all points of a run are picked together, for points of one curve are not independent."""

    name: str = "bootstrap over runs"
    bca: bool = False

    def draw(self, made: "Fit", runs: Runs, count: int, seed: int) -> tuple[np.ndarray, Optional[Weights]]:
        return made.points.log_loss, _picks(self.units(runs), made.points.weights, count, seed, self.name)

    def refusal(self, made: "Fit", runs: Runs) -> Optional[Refusal]:
        return _too_few("runs", len(set(runs.run)), len(made.law.names))

    def units(self, runs: Runs) -> np.ndarray:
        return runs.groups


@dataclasses.dataclass(frozen=True)
class ByCell(ByRun):
    """Bootstrap over cells: rows of equal inputs and budget are picked together, for one row that is there twice says nothing new."""

    name: str = "bootstrap over cells"

    def refusal(self, made: "Fit", runs: Runs) -> Optional[Refusal]:
        return _too_few("cells", int(self.units(runs).max()) + 1, len(made.law.names))

    def units(self, runs: Runs) -> np.ndarray:
        return np.unique(runs.repeats(), return_inverse=True)[1].reshape(-1)


@dataclasses.dataclass(frozen=True)
class WithinBudget(Strategy):
    """Residual bootstrap within planned budgets: the fitted law plus residuals of the same budget, inflated for the fitted parameters.

    Each residual is divided by sqrt(1 - leverage) (Davison and Hinkley 1997, 6.3) and by sqrt(1 - 1/m) for the mean of m that is taken off.
    """

    name: str = "residual bootstrap within budgets"
    stream: str = "main"
    bca: ClassVar[bool] = False
    least: ClassVar[int] = 4  # rows of a budget

    def draw(self, made: "Fit", runs: Runs, count: int, seed: int) -> tuple[np.ndarray, Optional[Weights]]:
        budget = _budgets(runs)
        noise, leverage = np.zeros((count, len(runs))), np.full(len(runs), min(len(made.law.names) / len(runs), 0.9))
        for value in sorted(set(budget.tolist())):
            index = np.flatnonzero(budget == value)
            random = bootstrap.generator(seed, f"parametric residuals {self.stream} {value:.6e}")
            drawn = bootstrap.within_budget(made.residuals[index], leverage[index], count, random)
            noise[:, index] = drawn / math.sqrt(max(1 - 1 / len(index), 0.5))
        return made.log_loss(made.points.log_x) + noise, None

    def refusal(self, made: "Fit", runs: Runs) -> Optional[Refusal]:
        values, counts = np.unique(_budgets(runs), return_counts=True)
        few = int(np.sum(counts < self.least))
        if not few:
            return None
        what = f"{few} of {counted(len(values), 'budget')} have fewer than {counted(self.least, 'row')}"
        return Refusal(
            "interval", f"{what}, too few residuals to draw from: add sizes to them, or draw rows (`lm.scaling fit --interval=rows`)"
        )

    def units(self, runs: Runs) -> np.ndarray:
        return np.arange(len(runs))


class Sigma(Protocol):
    """A noise model: the relative standard deviation of a loss over seeds."""

    def sigma(self, log_c: np.ndarray, log_loss: np.ndarray) -> np.ndarray: ...


@dataclasses.dataclass(frozen=True)
class Noise(Strategy):
    """Parametric bootstrap: the fitted law plus normal noise of log loss with the model's standard deviation.

    Without a model it is fitted to the seeds of the table. A model with `draws(log_c, count, seed)` gives each draw a sigma of its own,
    from the model's own uncertainty.
    """

    model: Optional[Sigma] = None
    name: str = "parametric bootstrap"
    stream: str = "main"
    bca: ClassVar[bool] = False

    def draw(self, made: "Fit", runs: Runs, count: int, seed: int) -> tuple[np.ndarray, Optional[Weights]]:
        model, log_c = self._known(), runs.log_planned_c
        fitted = made.log_loss(made.points.log_x)
        own = getattr(model, "draws", None)
        scale = (model.sigma(log_c, fitted) if own is None else own(log_c, count, seed)) * runs.noise_weight
        return fitted + scale * bootstrap.generator(seed, f"parametric {self.stream}").standard_normal((count, len(runs))), None

    def refusal(self, made: "Fit", runs: Runs) -> Optional[Refusal]:
        """Refuses where the residuals are far larger than the noise: the law, not the seeds, then limits what is known."""
        scale = self._known().sigma(runs.log_planned_c, made.log_loss(made.points.log_x)) * runs.noise_weight
        degrees = len(runs) - len(made.law.names)
        lack = math.sqrt(float(np.sum((made.residuals / scale) ** 2)) / degrees)
        if lack <= 2:
            return None
        what = f"residuals are {lack:.1f} times the noise model's"
        return Refusal(
            "interval", f"{what}: the law misses more than seeds do; take another law, or draw rows (`lm.scaling fit --interval=rows`)"
        )

    def units(self, runs: Runs) -> np.ndarray:
        return np.arange(len(runs))

    def resolve(self, runs: Runs, noise: "Union[NoiseModel, Refusal]") -> Resampling:
        if self.model is not None:
            return self
        if isinstance(noise, Refusal):
            raise UserError(f"--interval=noise: {noise.reason}")
        return dataclasses.replace(self, model=SigmaOfC(noise))

    def _known(self) -> Sigma:
        if self.model is None:
            raise ValueError("no noise model: `resolve` takes that of the table")
        return self.model


@dataclasses.dataclass(frozen=True)
class SigmaOfC:
    """The seed noise sigma(C) as `noise.fit_noise` measures it from seeds, with its own uncertainty."""

    model: "NoiseModel"

    def sigma(self, log_c: np.ndarray, log_loss: np.ndarray) -> np.ndarray:
        return self.model.sigma(log_c)

    def draws(self, log_c: np.ndarray, count: int, seed: int) -> np.ndarray:
        return self.model.draws(log_c, count, seed)


@dataclasses.dataclass(frozen=True)
class SigmaOfLoss:
    """The seed noise sigma(L) through points (loss, relative sd): log sigma is linear in log loss between them and constant beyond."""

    points: tuple[tuple[float, float], ...]

    def sigma(self, log_c: np.ndarray, log_loss: np.ndarray) -> np.ndarray:
        loss, sd = np.log(np.array(self.points)).T
        return np.exp(np.interp(log_loss, loss, sd))


PORIAN = SigmaOfLoss(((3.0, 0.002), (7.0, 0.05)))  # Porian et al. 2024, RefinedWeb: seeds differ by .2% at a loss of 3, by 5% at 7


@dataclasses.dataclass(frozen=True)
class RowsBCa(Rows):
    """Bootstrap over rows, read by BCa."""

    name: str = "bootstrap over rows, BCa"
    bca: bool = True


@dataclasses.dataclass(frozen=True)
class PorianNoise(Noise):
    """Parametric bootstrap with Porian's sigma(L)."""

    model: Optional[Sigma] = PORIAN
    name: str = "parametric bootstrap, sigma(L) of Porian et al. 2024"


@dataclasses.dataclass(frozen=True)
class Measured(Rows):
    """The default: the parametric bootstrap with the noise that seeds measure; without seeds, the bootstrap over runs where rows share
    them, over cells where rows have equal inputs, else over rows. The first covers at its level, the others at it or above
    (`python -m tests.nightly.coverage`)."""

    stream: str = "main"

    def resolve(self, runs: Runs, noise: "Union[NoiseModel, Refusal]") -> Resampling:
        if not isinstance(noise, Refusal) and noise.dof >= LEAST_DEGREES:
            return Noise(SigmaOfC(noise), stream=self.stream)
        if len(set(runs.run)) < len(runs):
            return ByRun()
        cells = runs if runs.seed is None else runs.cells()
        return ByCell() if ByCell().units(cells).max() + 1 < len(cells) else Rows()


RESAMPLINGS = {
    "measured": Measured,
    "rows": Rows,
    "rows_bca": RowsBCa,
    "runs": ByRun,
    "residual": WithinBudget,
    "noise": Noise,
    "porian": PorianNoise,
}


def _picks(units: np.ndarray, weights: np.ndarray, count: int, seed: int, name: str) -> Picks:
    """Returns weights [count, n]: how often the unit of each row was picked, times the weight of the row."""
    size = int(units.max()) + 1
    random = bootstrap.generator(seed, name.removesuffix(", BCa"))
    counts = [np.bincount(random.integers(0, size, size), minlength=size).astype(np.int32) for _ in range(count)]
    return Picks(np.stack(counts), units, weights)


def _too_few(what: str, count: int, parameters: int) -> Optional[Refusal]:
    needed = PER_PARAMETER * parameters
    if count >= needed:
        return None
    needs = f"{needed} suffice, or measure seeds and draw their noise (`lm.scaling fit --interval=noise`)"
    return Refusal("interval", f"{count} {what} are too few to resample for {counted(parameters, 'parameter')}: {needs}")


def _budgets(runs: Runs) -> np.ndarray:
    if runs.budget is None:
        raise UserError("--interval=residual needs a column of planned budgets: name it with --budget=COLUMN, or use --interval=rows")
    return runs.budget


def bca(value: float, draws: np.ndarray, left_out: np.ndarray, level: float, method: str) -> Estimate:
    """Returns the BCa interval (Efron 1987) of draws [R] and the values [J] with one unit left out."""
    if not (np.all(np.isfinite(draws)) and np.all(np.isfinite(left_out))):
        return bootstrap.estimate(value, np.append(draws, np.nan), level, method)
    share = (np.sum(draws < value) + 0.5 * np.sum(draws == value)) / len(draws)
    bias = _NORMAL.inv_cdf(float(np.clip(share, 0.5 / len(draws), 1 - 0.5 / len(draws))))
    departure = left_out.mean() - left_out
    scale = float(np.sum(departure**2)) ** 1.5
    acceleration = float(np.sum(departure**3)) / (6 * scale) if scale > 0 else 0.0
    ends = []
    for tail in ((1 - level) / 2, (1 + level) / 2):
        z = bias + _NORMAL.inv_cdf(tail)
        ends.append(_NORMAL.cdf(bias + z / max(1 - acceleration * z, 1e-3)))
    low, high = np.quantile(draws, ends, method="weibull")
    return Estimate(float(value), float(low), float(high), level, method)
