"""Figures of the runs as they were measured: loss curves with their envelope, and the IsoFLOP profiles."""

import pathlib
from collections.abc import Sequence

import numpy as np
from matplotlib.colors import LogNorm

from lm.scaling.approaches.isoflop import Isoflop
from lm.scaling.page import style
from lm.scaling.page.profile import draw_profile
from lm.study.rows import Row


def loss_curves(path: pathlib.Path, rows: Sequence[Row]) -> None:
    """Draws held-out loss against training compute: a line for each run, coloured by N, and the lowest loss so far."""
    grid = [row for row in rows if row.role == "grid" and row.completed and row.curve]
    with style.figure(path, 6.8, 4.2) as (axes,):
        sizes = [row.n() for row in grid]
        norm = LogNorm(min(sizes), max(sizes))
        scale = style.matplotlib.colormaps[style.SEQUENCE]
        for row in sorted(grid, key=lambda r: r.n()):
            points = [(p["flops"], p[row.measure]) for p in row.curve if p["flops"] > 0]
            axes.plot(*zip(*points, strict=True), color=scale(0.9 * norm(row.n())), lw=0.9, alpha=0.75)
            axes.plot(*points[-1], "o", ms=3.2, color=scale(0.9 * norm(row.n())))
        everywhere = sorted((p["flops"], p[row.measure]) for row in grid for p in row.curve if p["flops"] > 0)
        lowest = np.minimum.accumulate([loss for _, loss in everywhere])
        axes.plot([c for c, _ in everywhere], lowest, color=style.BLACK, lw=1.6, label="lowest loss so far", drawstyle="steps-post")
        axes.set(xscale="log", yscale="log", xlabel="training compute C (FLOPs)", ylabel="held-out loss (nats per byte)")
        style.flops_axis(axes.xaxis)
        style.plain_axis(axes.yaxis)
        axes.legend(loc="lower left")
        bar = axes.figure.colorbar(style.matplotlib.cm.ScalarMappable(LogNorm(min(sizes), max(sizes)), _truncated(scale)), ax=axes)
        bar.set_label("parameters N (matmul)")
        style.count_axis(bar.ax.yaxis)


def _truncated(scale):
    return style.matplotlib.colors.ListedColormap([scale(0.9 * i / 255) for i in range(256)])


def isoflop_profiles(path: pathlib.Path, isoflop: Isoflop) -> None:
    """Draws final losses against N, with a parabola and its minimum for each budget; filled points were run with several seeds."""
    with style.figure(path, 6.8, 4.6) as (axes,):
        for colour, budget in zip(style.colours(len(isoflop.budgets)), isoflop.budgets, strict=True):
            draw_profile(axes, budget, colour)
        axes.set(xscale="log", yscale="log", xlabel="parameters N (matmul)", ylabel="held-out loss (nats per byte)")
        style.count_axis(axes.xaxis)
        style.plain_axis(axes.yaxis)
        axes.legend(title="budget C (FLOPs)", loc="center left", bbox_to_anchor=(1.0, 0.5))
