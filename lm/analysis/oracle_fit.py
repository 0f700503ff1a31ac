"""Compares approach 3's fit with the oracle: E with the least loss possible, and the exponents of what lies above it."""

from typing import Optional, Union

import numpy as np

from lm.analysis.oracle import LeastLoss, ideal
from lm.errors import counted
from lm.scaling.approaches.isoflop import PARAMETRIC
from lm.scaling.approaches.parametric import Parametric
from lm.scaling.fits import fit
from lm.scaling.fits.objectives import HuberLog
from lm.scaling.intervals import bootstrap
from lm.scaling.intervals.noise import NoiseModel
from lm.scaling.laws.loss_laws import NoIrreducible
from lm.scaling.results import Answer, Estimate, Refusal, result
from lm.scaling.runs import Runs
from lm.scaling.settings import AnalysisSettings

WIDEST = 0.15  # width of an interval of E that says something, over the oracle's loss


@result
class OracleComparison:
    """A fit set against the oracle.

    `floor`, `alpha` and `beta` are those of approach 3's fit to the losses, `reducible` those of A / N^alpha + B / D^beta fitted to the
    losses less the oracle's; `ideal` what a learner limited by nothing else would have."""

    least: LeastLoss
    floor: Answer
    width: Optional[float]  # of E's interval, over the oracle's loss
    covered: bool
    identified: bool
    verdict: str
    alpha: Answer
    beta: Answer
    reducible: dict[str, Answer]
    ideal: dict[str, float]


def compare(
    least: LeastLoss, cells: Runs, parametric: Union[Parametric, Refusal], noise: Union[NoiseModel, Refusal], settings: AnalysisSettings
) -> OracleComparison:
    """Compares `parametric`, the fit of approach 3 to the losses of `cells`, with the oracle."""
    floor, alpha, beta = (parametric if isinstance(parametric, Refusal) else parametric.parameters[name] for name in ("E", "alpha", "beta"))
    width = None
    if isinstance(floor, Estimate) and floor.low is not None and floor.high is not None:
        width = (floor.high - floor.low) / least.nats_per_byte
    covered = isinstance(floor, Estimate) and floor.covers(least.nats_per_byte)
    identified = covered and width is not None and width <= WIDEST
    above = fit_above(least.nats_per_byte, cells, noise, settings)
    said = verdict(floor, least.nats_per_byte, width, covered)
    return OracleComparison(least, floor, width, covered, identified, said, alpha, beta, above, ideal(least))


def verdict(floor: Answer, truth: float, width: Optional[float], covered: bool) -> str:
    """Says in a sentence what the fit's E is worth."""
    if isinstance(floor, Refusal):
        return f"E is unidentified: {floor.reason}"
    if width is None:
        return f"E is unidentified: it has no interval ({floor.refused.reason if floor.refused else 'none was made'})"
    found = "identified" if covered and width <= WIDEST else "unidentified"
    bounds = f"the {floor.level:.0%} interval of E, {floor.low:.3f} to {floor.high:.3f}"
    wide = f"is {width:.1%} of it wide ({WIDEST:.0%} is the most)"
    return f"E is {found}: {bounds}, {'covers' if covered else 'misses'} the truth, {truth:.4f}, and {wide}"


def fit_above(least: float, cells: Runs, noise: Union[NoiseModel, Refusal], settings: AnalysisSettings) -> dict[str, Answer]:
    """Fits A / N^alpha + B / D^beta to the losses less the least one, whose noise grows, relative to them, towards it."""
    loss = np.exp(cells.log_loss)
    if low := int((loss <= least).sum()):
        reason = (
            f"{counted(low, 'run')} with a loss of {loss.min():.4f} or less, at or below the "
            "least that is possible: data or oracle are wrong"
        )
        return dict.fromkeys(("alpha", "beta"), Refusal("unidentified", reason))
    stretch = loss / (loss - least)  # of a relative error
    sigma = (noise.sigma(cells.log_planned_c) if isinstance(noise, NoiseModel) else 1.0) * cells.noise_weight * stretch
    points = fit.Points(cells.log_x(("N", "D")), np.log(loss - least), (1 / sigma) / np.mean(1 / sigma))
    made = fit.fit(NoIrreducible(), points, HuberLog(settings.delta))
    if isinstance(made, Refusal):
        return dict.fromkeys(("alpha", "beta"), made)
    if isinstance(noise, Refusal):
        return {name: Estimate(made.natural[name], None, None, settings.level, PARAMETRIC, noise) for name in ("alpha", "beta")}
    scale = noise.draws(cells.log_planned_c, settings.draws, settings.seed) * cells.noise_weight * stretch
    normal = bootstrap.generator(settings.seed, "above the truth").standard_normal((settings.draws, len(cells)))
    ends = fit.refit(made, made.log_loss(points.log_x) + scale * normal)
    drawn = made.law.natural(ends.theta, points.centre)
    columns = {name: made.law.names.index(name) for name in ("alpha", "beta")}
    return {name: bootstrap.estimate(made.natural[name], drawn[:, at], settings.level, PARAMETRIC) for name, at in columns.items()}
