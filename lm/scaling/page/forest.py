"""The figure of the sensitivity table: the exponent a under one change of the analysis at a time."""

import pathlib
from collections.abc import Sequence

from lm.scaling.page import style
from lm.scaling.results import Estimate
from lm.scaling.sensitivity import Variant

_SHAPES = {2: "o", 3: "s"}


def said(one: Variant) -> str:
    """Returns the change in a few words."""
    return one.what if not one.choice else f"{one.what}: {one.choice}"


def draw(path: pathlib.Path, made: Sequence[Variant]) -> None:
    """Draws a of each variant with its interval, over the interval of the analysis as chosen; what lies outside is filled with white."""
    count = len(made)
    with style.figure(path, 8.2, 0.27 * count + 1.5) as (axes,):
        base = None
        for y, one in zip(range(count - 1, -1, -1), made, strict=True):
            colour = style.APPROACH_COLOURS[one.approach]
            if not one.choice and isinstance(one.a, Estimate):
                base = one.a
                last = sum(other.approach == one.approach for other in made)
                if base.low is not None and base.high is not None:
                    axes.fill_betweenx([y - last + 0.5, y + 0.5], base.low, base.high, color=colour, alpha=0.13, lw=0)
                axes.plot([base.value] * 2, [y - last + 0.5, y + 0.5], color=colour, lw=0.8)
            if not isinstance(one.a, Estimate):
                place = 0.5 if base is None else base.value
                axes.text(place, y, f" refused ({one.a.kind})", fontsize=7.5, color=style.GREY, va="center")
                continue
            face = "white" if one.outside else colour
            label = f"approach {one.approach}" if not one.choice else None
            axes.plot(one.a.value, y, _SHAPES.get(one.approach, "o"), ms=5, color=colour, mfc=face, label=label, zorder=4)
            if one.a.low is not None and one.a.high is not None:
                axes.plot([one.a.low, one.a.high], [y, y], color=colour, lw=1.1, zorder=3)
        axes.set_yticks(range(count), [said(one) for one in reversed(made)])
        axes.tick_params(axis="y", labelsize=8.5, length=0)
        axes.grid(visible=False, axis="y")
        axes.set(ylim=(-0.6, count - 0.4), xlabel="exponent a of N* ~ C$^a$")
        style.legend(axes, loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2)
