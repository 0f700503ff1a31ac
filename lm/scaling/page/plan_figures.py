"""Figures of a plan: the plane of N and D with everything that was asked for, and how runs to add narrow an interval."""

import pathlib
from typing import Any

import numpy as np
from matplotlib.patheffects import withStroke
from scipy.interpolate import PchipInterpolator

from lm.scaling.page import style
from lm.scaling.planning.cells import NextCells
from lm.scaling.planning.optimum import IsoLoss, Serving
from lm.scaling.planning.table_plan import TablePlan
from lm.scaling.results import Answer, Estimate
from lm.scaling.runs import Runs
from lm.scaling.words import scientific

_MARGIN = 3.0  # factor around the rows and the answers that the plane shows


def plane(path: pathlib.Path, made: TablePlan, runs: Runs) -> None:
    """Draws the rows, the optima, the models that reach a loss, the curves of one loss and the runs to add over N and D."""
    with style.figure(path, 7.6, 5.0) as (axes,):
        axes.plot(runs.n, runs.d, "o", ms=3, color=style.GREY, alpha=0.6, mew=0, label="rows", rasterized=len(runs) > style.MANY)
        n, d = list(runs.n), list(runs.d)
        for i, at in enumerate(made.allocations):
            if isinstance(at.n, Estimate) and isinstance(at.d, Estimate):
                _cross(axes, at.n, at.d, "D", style.RED, "compute-optimal" if i == 0 else "")
                _note(axes, at.n, at.d, f"C {scientific(at.flops)}", right=True)
                n, d = [*n, at.n.value], [*d, at.d.value]
        found = [one for one in made.servings if isinstance(one, Serving)]
        for i, one in enumerate(found):
            if isinstance(one.n, Estimate) and isinstance(one.d, Estimate):
                _cross(axes, one.n, one.d, "*", style.BLUE, "cheapest for a loss" if i == 0 else "")
                _note(axes, one.n, one.d, f"loss {one.loss:g}", right=False)
                n, d = [*n, one.n.value], [*d, one.d.value]
        if isinstance(made.next_cells, NextCells):
            _numbered(axes, made.next_cells)
            n, d = n + [one.n for one in made.next_cells.cells], d + [one.d for one in made.next_cells.cells]
        drawn = [curve for curve in made.curves if curve.n]
        for colour, curve in zip(style.colours(len(drawn)), drawn, strict=True):
            axes.plot(*_smooth(curve), color=colour, lw=1.3, label=f"loss {curve.loss:g}")
        axes.set(xscale="log", yscale="log", xlabel="parameters N", ylabel="tokens D")
        axes.set(xlim=(min(n) / _MARGIN, max(n) * _MARGIN), ylim=(min(d) / _MARGIN, max(d) * _MARGIN))
        style.counts(axes.xaxis)
        style.counts(axes.yaxis)
        style.legend(axes, loc="center left", bbox_to_anchor=(1.0, 0.5))


def _smooth(curve: IsoLoss) -> tuple[np.ndarray, np.ndarray]:
    """Returns N and D along a curve of one loss, its points joined without kinks."""
    log_n, log_d = np.log(curve.n), np.log(curve.d)
    if len(log_n) < 3:
        return np.exp(log_n), np.exp(log_d)
    between = np.linspace(log_n[0], log_n[-1], 10 * len(log_n))
    return np.exp(between), np.exp(PchipInterpolator(log_n, log_d)(between))


def _cross(axes: Any, n: Estimate, d: Estimate, mark: str, colour: Any, label: str) -> None:
    axes.plot(n.value, d.value, mark, ms=12 if mark == "*" else 7, color=colour, mec="white", mew=0.6, label=label or None, zorder=4)
    axes.errorbar(
        n.value, d.value, xerr=_ends(n), yerr=_ends(d), fmt="none", ecolor=style.BLACK, elinewidth=0.8, capsize=2, capthick=0.8, zorder=5
    )


def _note(axes: Any, n: Estimate, d: Estimate, text: str, right: bool) -> None:
    """Writes beside an answer: to the right and below, or to the left and above."""
    shift, side = ((7, -12), "left") if right else ((-7, 6), "right")
    halo = [withStroke(linewidth=2.5, foreground="white")]
    axes.annotate(
        text, (n.value, d.value), xytext=shift, textcoords="offset points", fontsize=8, ha=side, path_effects=halo, zorder=6
    )  # fmt: skip


def _ends(answer: Answer) -> Any:
    if not isinstance(answer, Estimate) or answer.low is None or answer.high is None:
        return None
    return [[max(answer.value - answer.low, 0)], [max(answer.high - answer.value, 0)]]


def _numbered(axes: Any, made: NextCells) -> None:
    """Draws the runs to add, each place once with the numbers of its runs."""
    places: dict[tuple[float, float], list[int]] = {}
    for i, one in enumerate(made.cells, 1):
        places.setdefault((one.n, one.d), []).append(i)
    for i, ((n, d), numbers) in enumerate(places.items()):
        axes.plot(n, d, "s", ms=6, color=style.GREEN, mfc="white", label="runs to add" if i == 0 else None, zorder=3)
        text = ", ".join(map(str, numbers))
        axes.annotate(text, (n, d), xytext=(0, 6), textcoords="offset points", fontsize=7.5, color=style.GREEN, ha="center")


def shrinking(path: pathlib.Path, made: NextCells) -> None:
    """Draws the width of the interval of N* after each run, against the compute that was spent."""
    spent = np.concatenate([[0.0], np.cumsum([one.flops for one in made.cells])])
    width = [100.0, *(100 * one.shrinks_to for one in made.cells)]
    power = int(np.floor(np.log10(spent[-1])))
    with style.figure(path, 6.4, 3.4) as (axes,):
        axes.plot(spent / 10.0**power, width, "o-", ms=4, color=style.GREEN)
        axes.set(xlabel=f"compute added ({scientific(10.0**power)} FLOPs)", ylabel="width of the interval\nof N* (% of today's)")
        axes.set_ylim(bottom=0)
