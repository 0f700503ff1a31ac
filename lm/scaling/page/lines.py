"""The drawing of a fitted line with its band."""

from typing import Any, Optional

import numpy as np

from lm.scaling.results import Line

BEYOND = 3.0  # factor of compute, either way, over which a line is drawn beyond the data


def draw_line(
    axes: Any, line: Optional[Line], label: str, colour: Any, width: float = 1.5, furthest: float = 0.0, alpha: float = 1.0
) -> None:
    """Draws a line with its band: solid where compute was sampled, dashed up to `BEYOND` times below and above it, or to `furthest`."""
    if line is None:
        return
    flops, value = np.array(line.flops), np.array(line.value)
    low, high = line.sampled
    shown = (flops >= low / BEYOND) & (flops <= max(high * BEYOND, 1.001 * furthest))
    inside = (flops >= low * 0.999) & (flops <= high * 1.001)
    axes.plot(flops[inside], value[inside], color=colour, lw=width, alpha=alpha, label=label)
    axes.plot(flops[shown], value[shown], color=colour, lw=0.6 * width, alpha=alpha, ls=(0, (4, 2)))
    if line.low:
        axes.fill_between(flops[shown], np.array(line.low)[shown], np.array(line.high)[shown], color=colour, alpha=0.15, lw=0)
