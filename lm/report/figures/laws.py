"""Figures of the fitted laws: allocation by the three approaches, the fitted surface, residuals, and the table of conventions."""

import pathlib
from collections.abc import Sequence
from typing import Optional

import numpy as np

from lm.analysis.conventions import ConventionRow
from lm.analysis.envelope import Envelope
from lm.scaling.approaches.isoflop import Isoflop
from lm.scaling.approaches.parametric import Parametric
from lm.scaling.page import style
from lm.scaling.page.lines import draw_line
from lm.scaling.results import Answer, Estimate, Refusal

# N* = G (C / 6)^a with G = (alpha A / (beta B))^(1 / (alpha + beta)): the published values of (A, B, alpha, beta).
PUBLISHED = {
    "Hoffmann et al. 2022, approach 3": (406.40, 410.72, 0.33917, 0.28491),
    "Besiroglu et al. 2024, refit": (482.01, 2085.43, 0.3478, 0.3658),
}
N_NAMES = {"total": "all", "non_embedding": "non-embedding", "matmul": "matmul"}
C_NAMES = {"6nd": "6ND", "matmul_full": "matmul + full attention", "matmul_causal": "matmul + causal attention", "xla": "XLA's count"}
PUBLISHED_STYLES = ("--", ":")


def published_n(flops: np.ndarray, name: str) -> np.ndarray:
    """Returns the compute-optimal N of a published fit at each C = 6 N D."""
    a_value, b_value, alpha, beta = PUBLISHED[name]
    return (alpha * a_value / (beta * b_value)) ** (1 / (alpha + beta)) * (flops / 6) ** (beta / (alpha + beta))


def allocation(path: pathlib.Path, envelope: Optional[Envelope], isoflop: Isoflop, parametric: Optional[Parametric]) -> None:
    """Draws N*(C) and D*(C) by the three approaches, with Chinchilla's published lines (their tokens are longer than a byte)."""
    with style.figure(path, 9.6, 4.6, columns=2) as (left, right):
        span = _span(isoflop)
        for axes, star, label in (
            (left, "n_star", "compute-optimal N (matmul parameters)"),
            (right, "d_star", "compute-optimal D (tokens)"),
        ):
            _minima(axes, isoflop, star)
            if envelope is not None:
                draw_line(axes, getattr(envelope, f"{star[0]}_line"), "approach 1 (envelope)", style.APPROACH_COLOURS[1])
            draw_line(axes, getattr(isoflop, f"{star[0]}_line"), "approach 2 (IsoFLOP)", style.APPROACH_COLOURS[2])
            if parametric is not None:
                draw_line(axes, getattr(parametric, f"{star[0]}_line"), "approach 3 (parametric)", style.APPROACH_COLOURS[3])
            for name, line_style in zip(PUBLISHED, PUBLISHED_STYLES, strict=True):
                n = published_n(span, name)
                axes.plot(span, n if star == "n_star" else span / 6 / n, line_style, color=style.GREY, lw=1.2, label=name)
            axes.set(xscale="log", yscale="log", xlabel="training compute C (FLOPs)", ylabel=label)
            style.flops_axis(axes.xaxis)
            style.count_axis(axes.yaxis)
        handles, labels = left.get_legend_handles_labels()
        if envelope is None or envelope.n_line is None:
            handles.append(style.plt.Line2D([], [], color=style.APPROACH_COLOURS[1], lw=0))
            labels.append("approach 1: refused (see text)")
        left.figure.legend(handles, labels, loc="outside lower center", ncols=3)


def _span(isoflop: Isoflop) -> np.ndarray:
    flops = [budget.flops for budget in isoflop.budgets]
    return np.geomspace(min(flops) / 3, max(flops) * 3, 41)


def _minima(axes, isoflop: Isoflop, star: str) -> None:
    for budget in isoflop.budgets:
        answer = getattr(budget, star)
        if isinstance(answer, Estimate):
            error = None if answer.low is None or answer.high is None else [[answer.value - answer.low], [answer.high - answer.value]]
            axes.errorbar(
                budget.flops, answer.value, yerr=error, fmt="o", ms=5, capsize=3, lw=1.2, color=style.APPROACH_COLOURS[2], zorder=5
            )


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
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))


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
        axes[1].legend(title="budget C (FLOPs)", loc="center left", bbox_to_anchor=(1.0, 0.5))


def conventions(path: pathlib.Path, rows: Sequence[ConventionRow]) -> None:
    """Draws the exponent of N* by approaches 2 and 3 under every pair of conventions that the runs record."""
    recorded = [row for row in rows if not (_missing(row.isoflop_a) and _missing(row.parametric_a))]
    rows = recorded or rows
    with style.figure(path, 7.2, 0.36 * len(rows) + 1.3) as (axes,):
        for y, row in enumerate(reversed(rows)):
            for shift, answer, number in ((0.13, row.isoflop_a, 2), (-0.13, row.parametric_a, 3)):
                if isinstance(answer, Refusal):
                    axes.text(
                        0.995,
                        y + shift,
                        f"approach {number}: {answer.kind}",
                        transform=axes.get_yaxis_transform(),
                        ha="right",
                        va="center",
                        fontsize=7,
                        color=style.GREY,
                    )
                    continue
                low, high = (answer.value if bound is None else bound for bound in (answer.low, answer.high))
                label = f"approach {number}" if y == len(rows) - 1 else None
                error = [[max(answer.value - low, 0)], [max(high - answer.value, 0)]]
                axes.errorbar(
                    answer.value, y + shift, xerr=error, fmt="o", ms=4, capsize=2, color=style.APPROACH_COLOURS[number], label=label
                )
        axes.set_yticks(range(len(rows)), [f"N: {N_NAMES.get(row.n, row.n)}   C: {C_NAMES.get(row.c, row.c)}" for row in reversed(rows)])
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.set_xlabel("exponent a of N* ~ C$^a$")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)


def _missing(answer: Answer) -> bool:
    return isinstance(answer, Refusal) and answer.kind == "missing"
