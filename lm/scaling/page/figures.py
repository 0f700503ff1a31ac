"""Figures of a table of runs: the result of each approach, and the residuals of the law."""

import functools
import pathlib
from typing import Optional

import numpy as np

from lm.scaling.approaches.hull import Hull
from lm.scaling.approaches.isoflop import Isoflop
from lm.scaling.fits import solver
from lm.scaling.laws import catalogue
from lm.scaling.laws.formula import LogFormula
from lm.scaling.laws.law import Law
from lm.scaling.page import allocation, curve, forest, style
from lm.scaling.page.allocation import COMPUTE
from lm.scaling.page.document import Figure
from lm.scaling.page.profile import FEW, draw_profiles
from lm.scaling.results import Estimate
from lm.scaling.table_analysis import Fitted, LawFit, TableAnalysis

_COLUMNS = 3  # panels beside one another


def of(made: TableAnalysis, fitted: Optional[Fitted] = None) -> dict[str, Figure]:
    """Returns the figures of what the analysis holds, by name. `fitted` is the law with its draws, for lines and bands."""
    return {figure.name: figure for figure in [*_results(made, fitted), *_approaches(made), *_of_law(made, fitted)]}


def _results(made: TableAnalysis, fitted: Optional[Fitted]) -> list[Figure]:
    found = []
    if allocation.is_there(made, fitted):
        caption = (
            "Compute-optimal N and D against compute. Lines are fitted, with the band of their intervals, and dashed where no compute "
        )
        caption += "was sampled. "
        caption += "Dots are the IsoFLOP minima, black bars their intervals. " if isinstance(made.isoflop, Isoflop) else ""
        caption += "Squares are the rows on the hull. " if isinstance(made.hull, Hull) else ""
        found.append(Figure("allocation", caption.strip(), functools.partial(allocation.draw, made=made, fitted=fitted)))
    if isinstance(made.law, LawFit) and fitted is not None and len(fitted.law.law.inputs) == 1:
        caption = "The rows, and the fitted law with the interval of its parameters."
        found.append(Figure("curve", caption, functools.partial(curve.draw, made=made.law, fitted=fitted)))
    if made.sensitivity:
        caption = (
            "The exponent a under one change of the analysis at a time. The line and the band are a and its interval by the analysis as "
            "chosen; hollow marks lie outside of it."
        )
        found.append(Figure("sensitivity", caption, functools.partial(forest.draw, made=made.sensitivity)))
    return found


def _approaches(made: TableAnalysis) -> list[Figure]:
    found = []
    law = made.law if isinstance(made.law, LawFit) else None
    if isinstance(made.isoflop, Isoflop):
        caption = "Loss against N at each budget, with the fitted curves. Stars are the minima, the bars below them the intervals of N*."
        found.append(Figure("isoflop", caption, functools.partial(profiles, made=made.isoflop)))
    if isinstance(made.hull, Hull):
        caption = "The rows on the lower convex hull of loss against compute, and their N with the power law through it."
        found.append(Figure("hull", caption, functools.partial(hull, made=made.hull, law=law)))
    return found


def _of_law(made: TableAnalysis, fitted: Optional[Fitted]) -> list[Figure]:
    if not isinstance(made.law, LawFit):
        return []
    found = []
    law = _known(made.law) if fitted is None else fitted.law.law
    if law is not None and set(made.law.sampled) == {"N", "D"}:
        caption = "Contours of the fitted loss, the rows, and the compute-optimal path."
        found.append(Figure("surface", caption, functools.partial(surface, made=made.law, law=law)))
    difference = isinstance(law, LogFormula)
    what = "Measured less fitted" if difference else "Measured over fitted"
    caption = f"{what} {curve.quantity(made.law)} against each input of the law. A trend means that the law misses something."
    return [*found, Figure("residuals", caption, functools.partial(residuals, law=made.law, difference=difference))]


def hull(path: pathlib.Path, made: Hull, law: Optional[LawFit]) -> None:
    """Draws loss and N of the rows on the lower hull, over all rows where a law was fitted too."""
    with style.figure(path, 9.6, 4.2, columns=2) as (left, right):
        c = np.array([p.flops for p in made.points])
        if law is not None:
            many = len(law.points) > style.MANY
            every = np.array([[p.flops, p.loss, p.inputs.get("N", np.nan)] for p in law.points]).T
            for axes, y in ((left, every[1]), (right, every[2])):
                axes.plot(every[0], y, "o", ms=2.5, color=style.GREY, alpha=0.5, label="all rows", rasterized=many)
        colour = style.APPROACH_COLOURS[1]
        left.plot(c, [p.loss for p in made.points], "o-", ms=5, color=colour, label="lower hull")
        right.plot(c, [p.n for p in made.points], "o", ms=5, color=colour)
        right.plot(c, np.exp(made.log_n + made.a * np.log(c)), color=colour, label=f"N* ~ C^{made.a:.3f}")
        left.set(xscale="log", yscale="log", xlabel=COMPUTE, ylabel="loss")
        right.set(xscale="log", yscale="log", xlabel=COMPUTE, ylabel="parameters N")
        style.plain_axis(left.yaxis)
        for axes in (left, right):
            style.flops_axis(axes.xaxis)
            style.legend(axes, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
        style.counts(right.yaxis)


def profiles(path: pathlib.Path, made: Isoflop) -> None:
    """Draws the profile of each budget with its curve and minimum."""
    with style.figure(path, 7.2, 4.8 if len(made.budgets) <= FEW else 5.6) as (axes,):
        draw_profiles(axes, made.budgets)
        axes.set(xlabel="parameters N", ylabel="loss")


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
    with style.figure(path, 7.2, 4.8) as (axes,):
        axes.set(xscale="log", yscale="log", xlabel="parameters N", ylabel="tokens D")
        axes.set(xlim=(grid_n[0], grid_n[-1]), ylim=(grid_d[0], grid_d[-1]))  # before the labels, whose gaps are cut on the page
        drawn = axes.contour(grid_n, grid_d, loss, levels=np.geomspace(loss.min(), loss.max(), 14)[1:-1], cmap=style.SEQUENCE, linewidths=1)
        axes.clabel(drawn, fontsize=7.5, fmt="%.2f")
        axes.scatter(n, d, s=10, color=style.BLACK, zorder=4, label="rows", rasterized=len(n) > style.MANY)
        path_of = [(at.n.value, at.d.value) for at in made.allocations if isinstance(at.n, Estimate) and isinstance(at.d, Estimate)]
        if path_of:
            axes.plot(*zip(*path_of, strict=True), color=style.RED, lw=2, label="compute-optimal path")
        style.counts(axes.xaxis)
        style.counts(axes.yaxis)
        style.legend(axes, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)


def residuals(path: pathlib.Path, law: LawFit, difference: bool = False) -> None:
    """Draws measured over fitted loss, or their `difference`, against each input of the law."""
    names = list(law.sampled)
    columns = min(_COLUMNS, len(names))
    rows = -(-len(names) // columns)
    width = 6.0 if columns == 1 else 4.2 * columns
    many = len(law.points) > style.MANY
    with style.figure(path, width, 3.4 * rows, columns=columns, sharey=True, rows=rows) as axes:
        error = [p.error if difference else 100 * np.expm1(p.error) for p in law.points]
        name_of = curve.quantity(law)
        for i, (panel, name) in enumerate(zip(axes, names, strict=False)):
            x = np.array([p.inputs[name] for p in law.points])
            panel.plot(x, error, "o", ms=3.5, color=style.BLUE, alpha=0.8, mew=0, rasterized=many)
            panel.axhline(0, color=style.BLACK, lw=0.8)
            panel.set_xlabel(curve.input_label(name))
            curve.scale_axis("x", panel, name, x)
            if i % columns == 0:
                panel.set_ylabel(f"measured − fitted {name_of}" if difference else f"measured / fitted {name_of} − 1 (%)")
        for panel in axes[len(names) :]:
            panel.set_visible(False)
