"""Figures of the runs as they were measured: loss curves with their envelope, and the IsoFLOP profiles."""

import pathlib
from collections.abc import Sequence

import numpy as np

from lm.scaling.approaches.isoflop import Isoflop
from lm.scaling.page import style
from lm.scaling.page.profile import draw_profiles
from lm.study.rows import Row


def curves(rows: Sequence[Row]) -> list[Row]:
    """Returns the runs of the grid that have a loss curve."""
    return [row for row in rows if row.role == "grid" and row.completed and any(point["flops"] > 0 for point in row.curve)]


def loss_curves(path: pathlib.Path, rows: Sequence[Row]) -> None:
    """Draws held-out loss against training compute: a line for each run, coloured by N, and the lowest loss so far."""
    grid = curves(rows)
    with style.figure(path, 6.8, 4.2) as (axes,):
        sizes = [row.n() for row in grid]
        colours = style.colour_bar(axes, sizes, "parameters N (matmul)", style.count_axis)
        for _, row, colour in sorted(zip(sizes, grid, colours, strict=True), key=lambda one: one[0]):
            points = [(p["flops"], p[row.measure]) for p in row.curve if p["flops"] > 0]
            axes.plot(*zip(*points, strict=True), color=colour, lw=0.9, alpha=0.75)
            axes.plot(*points[-1], "o", ms=3.2, color=colour)
        everywhere = sorted((p["flops"], p[row.measure]) for row in grid for p in row.curve if p["flops"] > 0)
        lowest = np.minimum.accumulate([loss for _, loss in everywhere])
        axes.plot([c for c, _ in everywhere], lowest, color=style.BLACK, lw=1.6, label="lowest loss so far", drawstyle="steps-post")
        axes.set(xscale="log", yscale="log", xlabel="training compute C (FLOPs)", ylabel="held-out loss (nats per byte)")
        style.flops_axis(axes.xaxis)
        style.plain_axis(axes.yaxis)
        style.legend(axes, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)


def isoflop_profiles(path: pathlib.Path, isoflop: Isoflop) -> None:
    """Draws final losses against N, with a parabola and its minimum for each budget; filled points were run with several seeds."""
    with style.figure(path, 6.8, 4.6) as (axes,):
        draw_profiles(axes, isoflop.budgets)
        axes.set(xlabel="parameters N (matmul)", ylabel="held-out loss (nats per byte)")
