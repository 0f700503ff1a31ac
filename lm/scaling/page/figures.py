"""Figures of a table of runs: the result of each approach, and the residuals of the law."""

import pathlib
from collections.abc import Iterator
from typing import Any, Optional

import numpy as np

from lm.scaling.approaches.hull import Hull
from lm.scaling.approaches.isoflop import Isoflop
from lm.scaling.fits import solver
from lm.scaling.laws import catalogue
from lm.scaling.laws.law import Law
from lm.scaling.page import style
from lm.scaling.page.profile import draw_profile
from lm.scaling.results import Estimate
from lm.scaling.table_analysis import LawFit, TableAnalysis

COMPUTE = "training compute C (FLOPs)"


def draw(folder: pathlib.Path, made: TableAnalysis) -> list[dict[str, str]]:
    """Draws what the analysis holds into `folder`; returns the name and caption of each figure."""
    drawn = []
    law = made.law if isinstance(made.law, LawFit) else None
    if isinstance(made.hull, Hull):
        hull(folder / "hull", made.hull, law)
        drawn.append({"name": "hull", "caption": "Approach 1: the runs on the lower convex hull of loss against compute, and their N."})
    if isinstance(made.isoflop, Isoflop):
        profiles(folder / "isoflop", made.isoflop)
        text = "Approach 2: loss against N at each budget. Stars are the minima, bars their intervals."
        drawn.append({"name": "isoflop", "caption": text})
    if any(True for _ in _paths(made)):
        allocation(folder / "allocation", made)
        drawn.append({"name": "allocation", "caption": "Compute-optimal N and D by each approach, with their intervals."})
    if law is not None:
        known = _known(law)
        if known is not None and set(law.sampled) == {"N", "D"}:
            surface(folder / "surface", law, known)
            drawn.append({"name": "surface", "caption": "Approach 3: contours of the fitted loss, the runs, and the compute-optimal path."})
        residuals(folder / "residuals", law)
        caption = "Approach 3: measured over fitted loss. A trend means that the law misses something."
        drawn.append({"name": "residuals", "caption": caption})
    return drawn


def hull(path: pathlib.Path, made: Hull, law: Optional[LawFit]) -> None:
    """Draws loss and N of the rows on the lower hull, over all rows where a law was fitted too."""
    with style.figure(path, 9.6, 4.0, columns=2) as (left, right):
        c = np.array([p.flops for p in made.points])
        if law is not None:
            every = np.array([[p.flops, p.loss, p.inputs.get("N", np.nan)] for p in law.points]).T
            left.plot(every[0], every[1], "o", ms=2.5, color=style.GREY, alpha=0.5, label="all rows")
            right.plot(every[0], every[2], "o", ms=2.5, color=style.GREY, alpha=0.5, label="all rows")
        colour = style.APPROACH_COLOURS[1]
        left.plot(c, [p.loss for p in made.points], "o-", ms=5, color=colour, label="lower hull")
        right.plot(c, [p.n for p in made.points], "o", ms=5, color=colour, label="lower hull")
        right.plot(c, np.exp(made.log_n + made.a * np.log(c)), color=colour, label=f"N* ~ C^{made.a:.3f}")
        left.set(xscale="log", yscale="log", xlabel=COMPUTE, ylabel="loss")
        right.set(xscale="log", yscale="log", xlabel=COMPUTE, ylabel="parameters N")
        style.plain_axis(left.yaxis)
        for axes in (left, right):
            style.flops_axis(axes.xaxis)
            axes.legend()
        _counts(right.yaxis)


def profiles(path: pathlib.Path, made: Isoflop) -> None:
    """Draws the profile of each budget with its curve and minimum."""
    with style.figure(path, 6.8, 4.6) as (axes,):
        for colour, budget in zip(style.colours(len(made.budgets)), made.budgets, strict=True):
            draw_profile(axes, budget, colour)
        axes.set(xscale="log", yscale="log", xlabel="parameters N", ylabel="loss")
        _counts(axes.xaxis)
        style.plain_axis(axes.yaxis)
        axes.legend(title="budget C (FLOPs)", loc="center left", bbox_to_anchor=(1.0, 0.5))


def _paths(made: TableAnalysis) -> Iterator[tuple[str, str, list[tuple[float, Any, Any]]]]:
    """Yields label, colour and (C, N*, D*) of each approach: Estimates, or numbers for the hull, which has no intervals."""
    if isinstance(made.hull, Hull):
        c = np.array([p.flops for p in made.hull.points])
        n, d = (np.exp(at + slope * np.log(c)) for at, slope in ((made.hull.log_n, made.hull.a), (made.hull.log_d, made.hull.b)))
        yield "approach 1 (lower hull)", style.APPROACH_COLOURS[1], list(zip(c, n, d, strict=True))
    if isinstance(made.isoflop, Isoflop):
        found = [(b.flops, b.n_star, b.d_star) for b in made.isoflop.budgets if isinstance(b.n_star, Estimate)]
        if found:
            yield "approach 2 (IsoFLOP minima)", style.APPROACH_COLOURS[2], found
    if isinstance(made.law, LawFit) and made.law.allocations:
        yield "approach 3 (law)", style.APPROACH_COLOURS[3], [(at.flops, at.n, at.d) for at in made.law.allocations]


def allocation(path: pathlib.Path, made: TableAnalysis) -> None:
    """Draws N* and D* against C by each approach."""
    with style.figure(path, 9.6, 4.4, columns=2) as axes:
        for label, colour, places in _paths(made):
            for panel, index in zip(axes, (1, 2), strict=True):
                _path(panel, [place[0] for place in places], [place[index] for place in places], colour, label)
        for panel, name in zip(axes, ("N", "D"), strict=True):
            panel.set(xscale="log", yscale="log", xlabel=COMPUTE, ylabel=f"compute-optimal {name}")
            style.flops_axis(panel.xaxis)
            _counts(panel.yaxis)
        axes[0].legend(loc="upper left")


def _path(axes: Any, flops: list[float], answers: list[Any], colour: str, label: str) -> None:
    """Draws a line through numbers, with error bars where they are Estimates with intervals."""
    kept = [(c, a) for c, a in zip(flops, answers, strict=True) if isinstance(a, (Estimate, float))]
    c = np.array([c for c, _ in kept])
    value = np.array([a.value if isinstance(a, Estimate) else a for _, a in kept])
    low = np.array([v if not isinstance(a, Estimate) or a.low is None else a.low for v, (_, a) in zip(value, kept, strict=True)])
    high = np.array([v if not isinstance(a, Estimate) or a.high is None else a.high for v, (_, a) in zip(value, kept, strict=True)])
    error = np.maximum([value - low, high - value], 0)
    axes.errorbar(c, value, yerr=error, fmt="o-", ms=4, lw=1.2, capsize=2, color=colour, label=label)


def _known(made: LawFit) -> Optional[Law]:
    """Returns the catalogue's law that was fitted; None for a law from elsewhere, or with fixed parameters."""
    laws = (catalogue.law(name) for name in catalogue.LAWS)
    return next((law for law in laws if type(law).__name__ == made.law and set(law.names) == set(made.values)), None)


def surface(path: pathlib.Path, made: LawFit, law: Law) -> None:
    """Draws contours of a fitted law of N and D, the rows, and the path of least loss at each C."""
    values = np.array([made.values[name] for name in law.names])
    n, d = (np.array([p.inputs[name] for p in made.points]) for name in ("N", "D"))
    grid_n, grid_d = (np.geomspace(x.min() / 1.5, x.max() * 1.5, 100) for x in (n, d))
    across, up = np.meshgrid(grid_n, grid_d)
    loss = solver.loss(law, values, np.stack([across.ravel(), up.ravel()], axis=1)).reshape(across.shape)
    with style.figure(path, 6.8, 4.6) as (axes,):
        axes.set(xscale="log", yscale="log", xlabel="parameters N", ylabel="tokens D")
        axes.set(xlim=(grid_n[0], grid_n[-1]), ylim=(grid_d[0], grid_d[-1]))  # before the labels, whose gaps are cut on the page
        drawn = axes.contour(grid_n, grid_d, loss, levels=np.geomspace(loss.min(), loss.max(), 14)[1:-1], cmap=style.SEQUENCE, linewidths=1)
        axes.clabel(drawn, fontsize=7.5, fmt="%.2f")
        axes.scatter(n, d, s=10, color=style.BLACK, zorder=4, label="rows")
        path_of = [(at.n.value, at.d.value) for at in made.allocations if isinstance(at.n, Estimate) and isinstance(at.d, Estimate)]
        if path_of:
            axes.plot(*zip(*path_of, strict=True), color=style.RED, lw=2, label="compute-optimal path")
        _counts(axes.xaxis)
        _counts(axes.yaxis)
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _counts(axis: Any) -> None:
    """Labels an axis of counts after the data are drawn: at powers of ten alone over more than two and a half decades."""
    style.count_axis(axis)
    low, high = axis.get_view_interval()
    if high > 300 * low:
        axis.set_major_locator(style.LogLocator(base=10, numticks=12))


def residuals(path: pathlib.Path, law: LawFit) -> None:
    """Draws measured over fitted loss against each input of the law."""
    names = list(law.sampled)
    with style.figure(path, 4.5 * len(names), 3.6, columns=len(names), sharey=True) as axes:
        for panel, name in zip(axes, names, strict=True):
            panel.plot([p.inputs[name] for p in law.points], [100 * np.expm1(p.error) for p in law.points], "o", ms=3.5, color=style.BLUE)
            panel.axhline(0, color=style.BLACK, lw=0.8)
            panel.set(xscale="log", xlabel=name)
            _counts(panel.xaxis)
        axes[0].set_ylabel("measured over fitted loss − 1 (%)")
