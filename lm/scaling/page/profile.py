"""The drawing of one IsoFLOP profile."""

import numpy as np

from lm.scaling.approaches.isoflop import IsoflopBudget
from lm.scaling.page import style
from lm.scaling.results import Estimate


def draw_profile(axes, budget: IsoflopBudget, colour) -> None:
    """Draws one budget: its points, its polynomial if it has one (Akima's curve is not drawn), and its minimum."""
    bars = budget.sd or None
    label = style.scientific(budget.budget)
    axes.errorbar(budget.n, budget.loss, yerr=bars, fmt="o", ms=4, lw=0, elinewidth=0.9, capsize=2, color=colour, label=label)
    if any(budget.coefficients):
        u = np.linspace(np.log(budget.n[0]), np.log(budget.n[-1]), 100) - budget.centre
        axes.plot(np.exp(u + budget.centre), np.polynomial.polynomial.polyval(u, budget.coefficients), color=colour, lw=1.2)
    if isinstance(budget.n_star, Estimate) and isinstance(budget.loss_star, Estimate):
        height = budget.loss_star.value
        axes.plot(budget.n_star.value, height, marker="*", ms=12, mec="white", mew=0.8, color=colour, zorder=5)
        if budget.n_star.low is not None and budget.n_star.high is not None:
            axes.plot([budget.n_star.low, budget.n_star.high], [height, height], color=colour, lw=4, alpha=0.35, solid_capstyle="butt")
