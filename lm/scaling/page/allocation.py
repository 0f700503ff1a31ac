"""The figure of compute-optimal N and D: measured minima, fitted lines with their bands, and the targets."""

import pathlib
from collections.abc import Sequence
from typing import Any, Optional

import numpy as np

from lm.scaling.approaches import parametric
from lm.scaling.approaches.hull import Hull
from lm.scaling.approaches.isoflop import Isoflop
from lm.scaling.page import style
from lm.scaling.page.lines import draw_line
from lm.scaling.results import Answer, Estimate, Line
from lm.scaling.table_analysis import Allocation, Fitted, LawFit, TableAnalysis

COMPUTE = "training compute C (FLOPs)"
LABELS = {1: "approach 1, lower hull", 2: "approach 2, IsoFLOP minima", 3: "approach 3, law"}

OWN = {2: "approach 2 with the law's own error", 3: "approach 3 with the law's own error"}
_WIDTHS = {2: 8.0, 3: 4.0}  # of their bars, in points


def is_there(made: TableAnalysis, fitted: Optional[Fitted]) -> bool:
    """Says whether any approach gives compute-optimal N and D."""
    minima = isinstance(made.isoflop, Isoflop) and any(isinstance(b.n_star, Estimate) for b in made.isoflop.budgets)
    return minima or isinstance(made.hull, Hull) or _allocates(made, fitted) or _has_law(made)


def _has_law(made: TableAnalysis) -> bool:
    return isinstance(made.law, LawFit) and bool(made.law.allocations)


def _allocates(made: TableAnalysis, fitted: Optional[Fitted]) -> bool:
    return fitted is not None and isinstance(made.law, LawFit) and isinstance(made.law.exponents.get("a"), Estimate)


def draw(path: pathlib.Path, made: TableAnalysis, fitted: Optional[Fitted] = None) -> None:
    """Draws N* and D* against C by each approach. `fitted` is the law with its draws, from which its line and band follow."""
    furthest = max([0.0, *(at.flops for at in (*made.isoflop_targets, *(made.law.allocations if isinstance(made.law, LawFit) else ())))])
    with style.figure(path, 9.6, 4.7, columns=2) as axes:
        for panel, name in zip(axes, ("n", "d"), strict=True):
            if isinstance(made.hull, Hull):
                _hull(panel, made.hull, name)
            if isinstance(made.isoflop, Isoflop):
                draw_minima(panel, made.isoflop, name, furthest)
                _places(panel, made.isoflop_targets, name, 2, "", beyond=True)
            if fitted is not None and _allocates(made, fitted):
                line = parametric.line(fitted.law, fitted.cells, f"log_{name}", furthest)
                draw_line(panel, line, LABELS[3], style.APPROACH_COLOURS[3], furthest=furthest)
            if isinstance(made.law, LawFit):
                known = _allocates(made, fitted)
                _places(panel, made.law.allocations, name, 3, "" if known else LABELS[3], beyond=known)
            panel.set(xscale="log", yscale="log", xlabel=COMPUTE, ylabel=f"compute-optimal {name.upper()}")
            style.flops_axis(panel.xaxis)
            style.counts(panel.yaxis)
        handles, labels = axes[0].get_legend_handles_labels()
        axes[0].figure.legend(handles, labels, loc="outside lower center", ncols=4)


def _hull(axes: Any, made: Hull, name: str) -> None:
    c = np.array([p.flops for p in made.points])
    at, slope = (made.log_n, made.a) if name == "n" else (made.log_d, made.b)
    ends = np.array([c.min(), c.max()])
    axes.plot(c, [p.n if name == "n" else p.tokens for p in made.points], "s", ms=3, color=style.APPROACH_COLOURS[1], alpha=0.6)
    axes.plot(ends, np.exp(at + slope * np.log(ends)), color=style.APPROACH_COLOURS[1], label=LABELS[1])


def draw_minima(axes: Any, made: Isoflop, name: str, furthest: float) -> None:
    """Draws the minimum of each budget, and a wide line through them; where there is none the minima carry the label."""
    line: Optional[Line] = getattr(made, f"{name}_line")
    draw_line(axes, line, LABELS[2], style.APPROACH_COLOURS[2], width=3.0, furthest=furthest, alpha=0.45)
    if line is not None and furthest > line.flops[-1]:  # a power law goes on as a straight line
        slope = np.log(line.value[-1] / line.value[-2]) / np.log(line.flops[-1] / line.flops[-2])
        end = line.value[-1] * (furthest / line.flops[-1]) ** slope
        axes.plot([line.flops[-1], furthest], [line.value[-1], end], color=style.APPROACH_COLOURS[2], lw=1.8, alpha=0.45, ls=(0, (4, 2)))
    found = [(b.flops, getattr(b, f"{name}_star")) for b in made.budgets]
    _bars(axes, found, "o", style.APPROACH_COLOURS[2], LABELS[2] if line is None else "")


def _places(axes: Any, found: Sequence[Allocation], name: str, approach: int, label: str, beyond: bool) -> None:
    """Draws the answers at single C, those outside the sampled compute alone where `beyond`, over intervals with the law's own error."""
    own = [(at.flops, getattr(at.with_error, name)) for at in found if at.with_error is not None]
    spans = [(c, a.low, a.high) for c, a in own if isinstance(a, Estimate) and a.low is not None and a.high is not None]
    for i, (c, low, high) in enumerate(spans):
        wide = {"color": style.APPROACH_COLOURS[approach], "lw": _WIDTHS[approach], "alpha": 0.35, "solid_capstyle": "butt", "zorder": 2}
        axes.plot([c] * 2, [low, high], label=OWN[approach] if i == 0 else None, **wide)
    places = [(at.flops, getattr(at, name)) for at in found if at.caution is not None or not beyond]
    _bars(axes, places, "D", style.APPROACH_COLOURS[approach], label, face="white")


def _bars(axes: Any, found: Sequence[tuple[float, Answer]], mark: str, colour: Any, label: str, face: Optional[str] = None) -> None:
    """Draws numbers with their intervals. The bars lie over the marks, so that short ones show."""
    kept = [(c, a, a.low, a.high) for c, a in found if isinstance(a, Estimate)]
    if not kept:
        return
    c, value = [one[0] for one in kept], np.array([one[1].value for one in kept])
    axes.plot(c, value, mark, ms=4.5, color=colour, mfc=face or colour, label=label or None, zorder=4)
    ends = np.array([[v if low is None else low, v if high is None else high] for v, (_, _, low, high) in zip(value, kept, strict=True)])
    error = np.maximum([value - ends[:, 0], ends[:, 1] - value], 0)
    axes.errorbar(c, value, yerr=error, fmt="none", ecolor=style.BLACK, elinewidth=0.9, capsize=2.2, capthick=0.9, zorder=5)
