"""Figures of the fitted laws: allocation by the three approaches, the fitted surface, residuals, and the table of conventions."""

import pathlib
from collections.abc import Sequence
from typing import Any, Optional

import numpy as np

from lm.analysis.conventions import ConventionRow
from lm.analysis.envelope import Envelope
from lm.analysis.recommend import Recommendation
from lm.report.tables import C_NAMES, N_NAMES
from lm.scaling.approaches.isoflop import Isoflop
from lm.scaling.approaches.parametric import Parametric
from lm.scaling.page import style
from lm.scaling.page.allocation import COMPUTE, LABELS, draw_minima
from lm.scaling.page.lines import BEYOND, draw_line
from lm.scaling.results import Answer, Estimate, Line, Refusal

# N* ~ C^a with a = beta / (alpha + beta): the published values of (alpha, beta).
PUBLISHED = {"Hoffmann et al. 2022, approach 3": (0.33917, 0.28491), "Besiroglu et al. 2024, refit": (0.3478, 0.3658)}
PUBLISHED_STYLES = ("--", ":")


def published_slope(name: str, star: str) -> float:
    """Returns the exponent of N* ("n") or D* ("d") of a published fit."""
    alpha, beta = PUBLISHED[name]
    return (beta if star == "n" else alpha) / (alpha + beta)


def allocation(
    path: pathlib.Path,
    envelope: Optional[Envelope],
    isoflop: Isoflop,
    parametric: Optional[Parametric],
    recommended: Sequence[Recommendation] = (),
) -> None:
    """Draws N*(C) and D*(C) by the three approaches, what to train next, and the slopes of published lines.

    Published lines are of other tokens and another way of counting, so that their slopes alone compare: each goes through the middle of
    approach 2's line.
    """
    furthest = max((one.flops for one in recommended if isinstance(one.n, Estimate)), default=0.0)
    with style.figure(path, 9.6, 5.4, columns=2) as panels:
        for axes, star, label in zip(panels, "nd", ("compute-optimal N (matmul parameters)", "compute-optimal D (tokens)"), strict=True):
            if envelope is not None:
                draw_line(axes, getattr(envelope, f"{star}_line"), "approach 1, envelope", style.APPROACH_COLOURS[1])
            draw_minima(axes, isoflop, star, furthest)
            if parametric is not None:
                draw_line(axes, getattr(parametric, f"{star}_line"), LABELS[3], style.APPROACH_COLOURS[3], furthest=furthest)
            _next(axes, recommended, star)
            _published(axes, getattr(isoflop, f"{star}_line"), star, furthest)
            axes.set(xscale="log", yscale="log", xlabel=COMPUTE, ylabel=label)
            style.flops_axis(axes.xaxis)
            style.counts(axes.yaxis)
        handles, labels = panels[0].get_legend_handles_labels()
        if handles:
            panels[0].figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=9.5)


def _published(axes: Any, line: Optional[Line], star: str, furthest: float) -> None:
    """Draws published slopes through the middle of a line, over the compute that is shown."""
    if line is None:
        return
    low, high = line.sampled
    span = np.array([low / BEYOND, max(BEYOND * high, furthest)])
    middle = np.log(low * high) / 2
    at = np.interp(middle, np.log(line.flops), np.log(line.value))
    for name, style_of in zip(PUBLISHED, PUBLISHED_STYLES, strict=True):
        slopes = [f"{published_slope(name, one):.2f}" for one in "nd"]
        value = np.exp(at + published_slope(name, star) * (np.log(span) - middle))
        axes.plot(span, value, style_of, color=style.GREY, lw=1.1, zorder=1, label=f"slope of {name}: a {slopes[0]}, b {slopes[1]}")


def _next(axes: Any, recommended: Sequence[Recommendation], star: str) -> None:
    """Draws what to train next, with intervals that hold the law's own error."""
    found = [(one.flops, answer) for one in recommended if isinstance(answer := getattr(one, star), Estimate)]
    for i, (flops, answer) in enumerate(found):
        low, high = (answer.value if end is None else end for end in (answer.low, answer.high))
        drawn = {"fmt": "D", "ms": 6, "mfc": "white", "capsize": 3, "lw": 1.4, "color": style.RED, "zorder": 6}
        label = "to train next, with the law's own error" if i == 0 else None
        axes.errorbar(flops, answer.value, yerr=[[answer.value - low], [high - answer.value]], label=label, **drawn)


def surface(path: pathlib.Path, parametric: Parametric) -> None:
    """Draws contours of the fitted L(N, D) over the cells it was fitted to, with the compute-optimal path."""
    with style.figure(path, 6.8, 4.6) as (axes,):
        n = np.array([r.n for r in parametric.residuals])
        d = np.array([r.tokens for r in parametric.residuals])
        grid_n, grid_d = np.geomspace(n.min() / 1.5, n.max() * 1.5, 120), np.geomspace(d.min() / 1.5, d.max() * 1.5, 120)
        v = parametric.values
        loss = v["E"] + v["A"] * grid_n[None] ** -v["alpha"] + v["B"] * grid_d[:, None] ** -v["beta"]
        axes.set(xscale="log", yscale="log", xlabel="parameters N (matmul)", ylabel="tokens D")
        axes.set(xlim=(grid_n[0], grid_n[-1]), ylim=(grid_d[0], grid_d[-1]))  # before the labels, whose gaps are cut on the page
        levels = np.geomspace(loss.min(), loss.max(), 16)[1:-1]
        drawn = axes.contour(grid_n, grid_d, loss, levels=levels, cmap=style.SEQUENCE, linewidths=1.1)
        axes.clabel(drawn, fontsize=7.5, fmt="%.2f")
        axes.scatter(n, d, s=14, color=style.BLACK, zorder=4, label="cells")
        if parametric.n_line is not None and parametric.d_line is not None:
            axes.plot(parametric.n_line.value, parametric.d_line.value, color=style.RED, lw=2, label="compute-optimal path")
        style.count_axis(axes.xaxis)
        style.count_axis(axes.yaxis)
        style.legend(axes, loc="upper left", bbox_to_anchor=(1.0, 1.0))


def residuals(path: pathlib.Path, parametric: Parametric) -> None:
    """Draws measured over fitted loss, against N and against D, coloured by budget."""
    with style.figure(path, 9.0, 3.6, columns=2, sharey=True) as axes:
        budgets = sorted({r.budget for r in parametric.residuals})
        palette = dict(zip(budgets, style.colours(len(budgets)), strict=True))
        for panel, field, label in ((axes[0], "n", "parameters N (matmul)"), (axes[1], "tokens", "tokens D")):
            for budget in budgets:
                chosen = [r for r in parametric.residuals if r.budget == budget]
                x, y = [getattr(r, field) for r in chosen], [100 * np.expm1(r.error) for r in chosen]
                panel.plot(x, y, "o", ms=4.5, color=palette[budget], label=style.scientific(budget))
            panel.axhline(0, color=style.BLACK, lw=0.8)
            panel.set(xscale="log", xlabel=label)
            style.count_axis(panel.xaxis)
        axes[0].set_ylabel("measured over fitted loss − 1 (%)")
        style.legend(axes[1], title="budget C (FLOPs)", loc="center left", bbox_to_anchor=(1.0, 0.5))


def conventions(path: pathlib.Path, rows: Sequence[ConventionRow]) -> None:
    """Draws the exponent of N* by approaches 2 and 3 under every pair of conventions that the runs record."""
    recorded = [row for row in rows if not (_missing(row.isoflop_a) and _missing(row.parametric_a))]
    rows, labelled = recorded or rows, set[int]()
    with style.figure(path, 7.2, 0.36 * len(rows) + 1.3) as (axes,):
        for y, row in enumerate(reversed(rows)):
            for shift, answer, number in ((0.13, row.isoflop_a, 2), (-0.13, row.parametric_a, 3)):
                if isinstance(answer, Refusal):
                    axes.text(
                        0.995,
                        y + shift,
                        f"approach {number}: {answer.kind.replace('_', ' ')}",
                        transform=axes.get_yaxis_transform(),
                        ha="right",
                        va="center",
                        fontsize=7,
                        color=style.GREY,
                    )
                    continue
                low, high = (answer.value if bound is None else bound for bound in (answer.low, answer.high))
                label = None if number in labelled else f"approach {number}"
                labelled.add(number)
                error = [[max(answer.value - low, 0)], [max(high - answer.value, 0)]]
                axes.errorbar(
                    answer.value, y + shift, xerr=error, fmt="o", ms=4, capsize=2, color=style.APPROACH_COLOURS[number], label=label
                )
        axes.set_yticks(range(len(rows)), [f"N: {N_NAMES.get(row.n, row.n)}   C: {C_NAMES.get(row.c, row.c)}" for row in reversed(rows)])
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.set_xlabel("exponent a of N* ~ C$^a$")
        style.legend(axes, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)


def _missing(answer: Answer) -> bool:
    return isinstance(answer, Refusal) and answer.kind == "missing"
