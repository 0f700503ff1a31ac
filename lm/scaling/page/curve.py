"""The figure of a law of one input: the rows with the fitted curve and its band."""

import pathlib

import numpy as np

from lm.scaling.fits import solver
from lm.scaling.intervals import bootstrap
from lm.scaling.laws.formula import LogFormula
from lm.scaling.page import style
from lm.scaling.table_analysis import Fitted, LawFit

NAMED = {
    "N": "parameters N", "D": "tokens D", "C": "training compute C (FLOPs)", "L": "loss", "S": "steps S", "U": "unique tokens U",
    "M": "tokens per parameter D/N", "E": "experts E",
}  # fmt: skip
_WIDE = 3.0  # factor that an input spans, from which its axis is logarithmic
_PLACES = 120
_OUTSIDE = 1.3  # factor by which the curve goes on beyond the rows


def input_label(name: str) -> str:
    """Returns the label of an axis of an input."""
    return NAMED.get(name, name)


def quantity(made: LawFit) -> str:
    """Returns the label of what a law is of: the left-hand side of its equation."""
    left = made.equation.partition("=")[0].strip()
    return "loss" if left in ("", "L") or len(left) > 12 else left


def scale_axis(axis_of: str, axes, name: str, values: np.ndarray) -> None:
    """Labels the axis of an input after the data are drawn: logarithmic where the input spans a factor of three."""
    axis = getattr(axes, f"{axis_of}axis")
    if values.max() < _WIDE * values.min():
        return
    axes.set(**{f"{axis_of}scale": "log"})
    if name == "C":
        style.flops_axis(axis)
    else:
        style.counts(axis)


def draw(path: pathlib.Path, made: LawFit, fitted: Fitted) -> None:
    """Draws loss against the law's one input: rows, the curve, and the band of its draws."""
    (name,) = fitted.law.law.inputs
    x, loss = (np.array(column) for column in zip(*((p.inputs[name], p.loss) for p in made.points), strict=True))
    wide = x.max() >= _WIDE * x.min()
    edge = _OUTSIDE if wide else 1.0
    grid = np.geomspace(x.min() / edge, x.max() * edge, _PLACES) if wide else np.linspace(x.min(), x.max(), _PLACES)
    every = solver.loss(fitted.law.law, fitted.law.stacked[: 1 + len(fitted.law.draws)], grid[:, None])
    value = np.log if isinstance(fitted.law.law, LogFormula) else np.asarray
    with style.figure(path, 6.8, 4.4) as (axes,):
        axes.plot(x, value(loss), "o", ms=4, color=style.BLACK, label="rows", zorder=3, rasterized=len(x) > style.MANY)
        axes.plot(grid, value(every[0]), color=style.APPROACH_COLOURS[3], label="fitted law")
        if fitted.law.refused is None:
            low, high = bootstrap.quantiles(every[1:], fitted.law.level)
            label = f"{fitted.law.level:.0%} interval"
            axes.fill_between(grid, value(low), value(high), color=style.APPROACH_COLOURS[3], alpha=0.25, lw=0, label=label)
        axes.set(xlabel=input_label(name), ylabel=quantity(made))
        scale_axis("x", axes, name, x)
        if value is not np.log and np.all(loss > 0):
            axes.set_yscale("log")
            style.plain_axis(axes.yaxis)
        style.legend(axes, loc="center left", bbox_to_anchor=(1.0, 0.5))
