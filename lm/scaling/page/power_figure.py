"""The figure of a design's power: its runs, and how well N* is expected to be known within and beyond it."""

import pathlib
from typing import Any

import numpy as np

from lm.scaling.coverage import Design
from lm.scaling.page import style
from lm.scaling.page.allocation import COMPUTE
from lm.scaling.planning.power import IsoflopPower, Power

LAW, MINIMA = style.APPROACH_COLOURS[3], style.APPROACH_COLOURS[2]
_APART = 1.12  # factor of C between two bars at one C


def draw(path: pathlib.Path, made: Power, design: Design) -> None:
    """Draws the planned runs with N* and its standard deviation, and the standard deviations alone."""
    with style.figure(path, 9.6, 4.6, columns=2) as (left, right):
        left.plot(design.runs.c, design.runs.n, "o", ms=3, color=style.GREY, mew=0, label="planned runs")
        if isinstance(made.isoflop, IsoflopPower):
            rows = [(b.budget, b.n_star, b.sd) for b in made.isoflop.budgets]
            _bars(left, rows, "o", MINIMA, MINIMA)
            right.plot([c for c, _, _ in rows], [100 * sd for _, _, sd in rows], "o-", ms=4.5, color=MINIMA, label="IsoFLOP minima")
        for which, colour, label, shift in (("sd", LAW, "fitted law", 1 / _APART), ("isoflop_sd", MINIMA, "IsoFLOP minima", _APART)):
            rows = [(at.flops, at.n_star, sd) for at in made.targets if isinstance(sd := getattr(at, which), float)]
            _bars(left, [(c * shift, n, sd) for c, n, sd in rows], "D", colour, "white")
            label = f"{label}, beyond the design"
            right.plot([c for c, _, _ in rows], [100 * sd for _, _, sd in rows], "D", ms=5, color=colour, mfc="white", label=label)
        left.set(xscale="log", yscale="log", xlabel=COMPUTE, ylabel="parameters N")
        right.set(xscale="log", xlabel=COMPUTE, ylabel="standard deviation of log N* (%)")
        right.set_ylim(bottom=0)
        right.set_xlim(left.get_xlim())
        for axes in (left, right):
            style.flops_axis(axes.xaxis)
        style.counts(left.yaxis)
        handles, labels = (a + b for a, b in zip(left.get_legend_handles_labels(), right.get_legend_handles_labels(), strict=True))
        left.figure.legend(handles, labels, loc="outside lower center", ncols=4)


def _bars(axes: Any, rows: list[tuple[float, float, float]], mark: str, colour: Any, face: Any) -> None:
    """Draws N* with one standard deviation of its logarithm either way."""
    if not rows:
        return
    c, n, sd = (np.array(column) for column in zip(*rows, strict=True))
    error = [n - n * np.exp(-sd), n * np.exp(sd) - n]
    axes.errorbar(c, n, yerr=error, fmt=mark, ms=5, color=colour, mfc=face, elinewidth=1.1, capsize=2.5, zorder=4)
