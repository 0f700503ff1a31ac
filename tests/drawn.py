"""These functions find the places of texts and legends in a drawn figure."""

import contextlib
import itertools

import pytest
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from lm.scaling.page import style


@contextlib.contextmanager
def kept():
    """Yields a list that every figure drawn within goes to, instead of being closed."""
    found = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(style.plt, "close", found.append)
        yield found
    for figure in found:
        figure.canvas.draw()
        style.plt.close(figure)


def overlaps(figure):
    """Returns the pairs of texts of a drawn figure whose boxes share more than two pixels either way."""
    beyond = set()  # labels of ticks outside the axes, which are not drawn
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        low, high = sorted(axis.get_view_interval())
        beyond |= {tick.label1 for tick in axis.get_major_ticks() if not low <= tick.get_loc() <= high}
    texts = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip() and text not in beyond]
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts]
    return [(a, b) for (a, x), (b, y) in itertools.combinations(boxes, 2) if shared(x, y)]


def shared(one, other, pixels=2):
    """Says whether two boxes share more than so many pixels either way."""
    common = Bbox.intersection(one, other)
    return common is not None and common.width > pixels and common.height > pixels


def legends_inside(figure):
    """Returns the legends of a figure that lie over the data of its axes."""
    legends = [*figure.legends, *(axes.get_legend() for axes in figure.axes if axes.get_legend())]
    return [one for one in legends if any(shared(one.get_window_extent(), axes.get_window_extent()) for axes in figure.axes)]
