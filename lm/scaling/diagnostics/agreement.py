"""Answers to one question that disagree: exponents by approaches 2 and 3, and by the curves that approach 2 may draw."""

import statistics
from collections.abc import Sequence
from typing import Optional

import numpy as np

from lm.scaling.approaches import curves as curve_lib
from lm.scaling.approaches.profiles import Profile
from lm.scaling.intervals import bootstrap
from lm.scaling.results import Answer, Caution, Estimate
from lm.scaling.runs import Runs

JOINT = 0.9  # level of the joint interval of two approaches; errors go together, and 1% of true laws' studies lie outside
CHANCE = 0.004  # two-sided probability of a difference of curves, were it noise
MATTERS = 0.02  # difference of exponents by two curves below which no reader would choose otherwise
_DRAWS = 300
_LEAST = 3  # budgets


def approaches(second: Answer, third: Answer) -> Optional[Caution]:
    """Warns of exponents a by IsoFLOP minima and by the law that differ by more than their joint interval.

    Both come from the same rows, so that their errors go together: the joint interval, made as if they did not, is the wider one.
    """
    if not (isinstance(second, Estimate) and isinstance(third, Estimate)):
        return None
    if second.sd is None or third.sd is None:
        return None
    apart = abs(second.value - third.value)
    joint = statistics.NormalDist().inv_cdf((1 + JOINT) / 2) * float(np.hypot(second.sd, third.sd))
    if apart <= joint:
        return None
    what = f"approaches disagree: a is {second.value:.3g} by IsoFLOP minima and {third.value:.3g} by the law"
    return Caution(
        "disagreement", f"{what}, {apart:.2g} apart where {joint:.2g} is noise: neither interval holds; try another law or curve"
    )


def curves(profiles: Sequence[Profile], cells: Runs, a: Answer, chosen: str, seed: int = 0) -> Optional[Caution]:
    """Warns of curves whose exponents differ by more than noise makes them differ, by more than the standard
    deviation of `a`, and by .02.

    The noise is that of the residuals about the cubic, which a bend of the profile does not enter, added to the parabola, through which
    each curve is drawn again.
    """
    if not isinstance(a, Estimate):
        return None
    kept = [p for p in profiles if len(p.log_n) >= 5]
    found = {kind: _minima(kept, cells, kind, seed) for kind in curve_lib.NAMES}
    inside = np.all([~lost for _, lost in found.values()], axis=0) if kept else np.zeros(0, bool)
    if inside.sum() < _LEAST:
        return None
    log_c = np.array([p.log_c for p in kept])[inside]
    slope = np.linalg.pinv(np.stack([np.ones_like(log_c), log_c], axis=1))[1]
    exponents = {kind: log_n[:, inside] @ slope for kind, (log_n, _) in found.items()}
    z = statistics.NormalDist().inv_cdf(1 - CHANCE / 2 / (len(exponents) - 1))
    base = exponents[chosen]
    apart = {kind: (abs(each[0] - base[0]), z * float(np.std((each - base)[1:]))) for kind, each in exponents.items() if kind != chosen}
    far = [kind for kind, (difference, noise) in apart.items() if difference > max(noise, float(np.std(base[1:])), MATTERS)]
    if not far:
        return None
    said = ", ".join(f"{each[0]:.3g} by {kind}" for kind, each in exponents.items())
    return Caution(
        "curves", f"curves disagree: a is {said}, more than noise makes of it: the profiles are no parabolas; narrow them, or add sizes"
    )


def _minima(profiles: list[Profile], cells: Runs, kind: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns log N* [1 + draws, budgets] of a curve, first of the losses themselves, and which of these are lost [budgets]."""
    columns, lost = [], []
    for profile in profiles:
        parabola = curve_lib.through(profile, cells.noise_weight)
        loss = np.exp(profile.log_loss)
        random = bootstrap.generator(seed, f"curves {profile.budget:.6e}")
        bent = curve_lib.through(profile, cells.noise_weight, "cubic")
        noise = bootstrap.within_budget(loss - bent.fitted, bent.leverage, _DRAWS, random)
        fit = curve_lib.through(profile, cells.noise_weight, kind)
        every = np.concatenate([loss[None], parabola.fitted + noise])
        drawn = curve_lib.lowest(fit, every @ fit.solver.T)
        columns.append(drawn.u + fit.centre)
        lost.append(bool(drawn.lost[0]))
    return np.stack(columns, axis=1), np.array(lost)
