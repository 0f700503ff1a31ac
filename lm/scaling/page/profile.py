"""The drawing of IsoFLOP profiles."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.transforms import ScaledTranslation

from lm.scaling.approaches import curves
from lm.scaling.approaches.isoflop import IsoflopBudget
from lm.scaling.page import style
from lm.scaling.results import Estimate
from lm.scaling.words import scientific

FEW = 8  # budgets up to which a legend names each
_CROWDED = 60  # marks are half as large from half as many budgets
_BELOW = 10.0  # points between a minimum and its interval, so that the star hides no end of it


def draw_profiles(axes: Any, budgets: Sequence[IsoflopBudget]) -> None:
    """Draws the profile of each budget over log N, few in a legend and many along a colour bar."""
    count, label = len(budgets), "budget C (FLOPs)"
    size = 1.0 if count <= FEW else max(0.5, 1 - count / _CROWDED)
    colours = style.colours(count) if count <= FEW else style.colour_bar(axes, [b.budget for b in budgets], label)
    for colour, budget in zip(colours, budgets, strict=True):
        draw_profile(axes, budget, colour, size)
    axes.set(xscale="log", yscale="log")
    style.counts(axes.xaxis)
    style.plain_axis(axes.yaxis)
    if count <= FEW:
        style.legend(axes, title=label, loc="center left", bbox_to_anchor=(1.0, 0.5))


def draw_profile(axes: Any, budget: IsoflopBudget, colour: Any, size: float = 1.0) -> None:
    """Draws one budget: its points, its curve, and its minimum above its interval. `size` is that of the marks."""
    bars = budget.sd or None
    axes.errorbar(
        budget.n, budget.loss, yerr=bars, fmt="o", ms=4 * size, lw=0, elinewidth=0.9, capsize=2 if size == 1 else 0, color=colour,
        label=scientific(budget.budget),
    )  # fmt: skip
    u = np.linspace(np.log(min(budget.n)), np.log(max(budget.n)), 100)
    if any(budget.coefficients):
        axes.plot(np.exp(u), np.polynomial.polynomial.polyval(u - budget.centre, budget.coefficients), color=colour, lw=1.2 * size)
    elif not budget.coefficients and isinstance(budget.n_star, Estimate):
        axes.plot(np.exp(u), _akima(budget, u), color=colour, lw=1.2 * size)
    if isinstance(budget.n_star, Estimate) and isinstance(budget.loss_star, Estimate):
        height = budget.loss_star.value
        axes.plot(budget.n_star.value, height, marker="*", ms=5 + 7 * size, mec="white", mew=0.8 * size, color=colour, zorder=5)
        if budget.n_star.low is not None and budget.n_star.high is not None:
            below = axes.transData + ScaledTranslation(0, -_BELOW * size / 72, axes.figure.dpi_scale_trans)
            ends = [budget.n_star.low, budget.n_star.high]
            axes.plot(ends, [height] * 2, "|-", color=style.BLACK, lw=1.1, ms=5 * size, mew=1.1, zorder=6, transform=below)


def _akima(budget: IsoflopBudget, log_n: np.ndarray) -> np.ndarray:
    """Returns Akima's curve, which runs through every point."""
    x, loss = np.log(budget.n), np.array(budget.loss)
    centre = float(x.mean())
    fit = curves.Curve("akima", centre, x - centre, loss, loss, np.eye(len(x)), np.ones(len(x)))
    return curves.values(fit, log_n - centre)
