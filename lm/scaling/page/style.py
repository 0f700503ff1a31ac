"""The style of the figures: sizes, fonts, colours that colour-blind readers can tell apart, axes, and files."""

import contextlib
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Optional

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from lm.scaling.words import scientific, si

# Okabe and Ito (2008): distinct for all common forms of colour blindness.
BLACK, ORANGE, GREEN, BLUE, RED = "#000000", "#E69F00", "#009E73", "#0072B2", "#D55E00"
GREY = "#8a8a8a"
APPROACH_COLOURS = {1: ORANGE, 2: BLUE, 3: GREEN}
SEQUENCE = "viridis"
MANY = 2000  # points above which a figure's SVG holds them as pixels
_LIGHTEST = 0.9  # of the scale: its lightest end cannot be told from white

_RC: Any = {
    "figure.dpi": 100,
    "savefig.dpi": 200,
    "font.size": 10,
    "font.family": "DejaVu Sans",
    "axes.titlesize": 10,
    "axes.labelsize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.7,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "lines.linewidth": 1.5,
    "svg.hashsalt": "lm",  # the same data gives the same bytes
}


@contextlib.contextmanager
def figure(path: pathlib.Path, width: float, height: float, columns: int = 1, sharey: bool = False, rows: int = 1) -> Iterator[list[Axes]]:
    """Opens a figure of `width` x `height` inches with `rows` of `columns` axes side by side, and writes PATH.png and PATH.svg at the end.

    The files carry no dates, so the same data gives the same bytes.
    """
    with matplotlib.rc_context(_RC):
        engine = ConstrainedLayoutEngine(w_pad=0.1 if columns > 1 else None)  # keeps labels of neighbouring axes apart
        made, axes = plt.subplots(rows, columns, figsize=(width, height), layout=engine, squeeze=False, sharey=sharey)
        try:
            yield list(axes.ravel())
            path.parent.mkdir(parents=True, exist_ok=True)
            made.savefig(path.with_suffix(".png"), metadata={"Software": None})
            made.set_layout_engine("none")  # both files have one layout, which takes as long as drawing
            made.savefig(path.with_suffix(".svg"), metadata={"Date": None, "Creator": None})
        finally:
            plt.close(made)


def legend(axes: Axes, **places: Any) -> None:
    """Draws the legend of what has a label; nothing where nothing has one, of which matplotlib would warn on the terminal."""
    if axes.get_legend_handles_labels()[1]:
        axes.legend(**places)


def colours(count: int) -> list:
    """Returns `count` colours along a perceptually even scale, without its lightest end."""
    scale = matplotlib.colormaps[SEQUENCE]
    return [scale(_LIGHTEST * i / max(count - 1, 1)) for i in range(count)]


def colour_bar(axes: Axes, values: Sequence[float], label: str, labelled: Optional[Callable[[Any], None]] = None) -> list:
    """Draws a colour bar beside the axes, logarithmic in the values, and returns the colour of each value.

    `labelled` labels its axis (default: `flops_axis`).
    """
    scale: Any = ScalarMappable(LogNorm(min(values), max(values)), ListedColormap(colours(256)))
    bar = axes.figure.colorbar(scale, ax=axes, label=label, aspect=30, pad=0.02)
    (labelled or flops_axis)(bar.ax.yaxis)
    bar.outline.set_visible(False)
    return [scale.to_rgba(value) for value in values]


def count_axis(axis) -> None:
    """Labels a logarithmic axis of parameters or tokens; minor ticks stay without labels."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: si(value)))
    axis.set_minor_formatter(NullFormatter())
    axis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5), numticks=12))


def counts(axis) -> None:
    """Labels an axis of counts after the data are drawn: at powers of ten alone over more than two and a half decades."""
    count_axis(axis)
    low, high = axis.get_view_interval()
    if high > 300 * low:
        axis.set_major_locator(LogLocator(base=10, numticks=12))


def flops_axis(axis) -> None:
    """Labels a logarithmic axis of compute after the data are drawn: at 1, 2 and 5 over less than two decades, else at powers of ten."""
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5) if high < 100 * low else (1,), numticks=12))
    axis.set_major_formatter(FuncFormatter(lambda value, _: scientific(value)))
    axis.set_minor_formatter(NullFormatter())


def plain_axis(axis, digits: int = 3) -> None:
    """Labels a logarithmic axis over less than two decades with ordinary numbers at round places."""
    axis.set_major_locator(MaxNLocator(7, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.{digits}g}"))
    axis.set_minor_locator(NullLocator())
