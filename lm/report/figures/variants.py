"""Figures of a comparison: losses beside published scores, paired differences beside the noise, and loss curves.

Each figure shows one group, since losses of two groups are not comparable.
"""

import pathlib
from collections.abc import Sequence
from typing import Optional

from lm.analysis.paired import Pair, PairedComparison, Run
from lm.scaling.page import style
from lm.study.comparison import Published

# Okabe and Ito (2008), in an order that keeps neighbours apart; a sixth variant and more take the sequence of style.colours.
PALETTE = (style.BLUE, style.ORANGE, style.GREEN, style.RED, "#CC79A7", style.BLACK)
MARKERS = "osD^vPX*"


def _colours(names: Sequence[str]) -> dict[str, object]:
    chosen = PALETTE if len(names) <= len(PALETTE) else style.colours(len(names))
    return dict(zip(names, chosen, strict=False))


def losses(path: pathlib.Path, made: PairedComparison, group: str, published: Optional[Published]) -> None:
    """Draws each variant's mean loss with its standard deviation, and every run's loss below; on the right the paper's first measure."""
    members = made.of(group)
    has_scores = published is not None and any(published.of(group, v.variant) for v in members)
    height = 0.42 * len(members) + 1.0
    with style.figure(path, 9.0 if has_scores else 6.4, height, columns=2 if has_scores else 1, sharey=True) as axes:
        colours = _colours([v.variant for v in members])
        for y, v in enumerate(members):
            axes[0].plot(v.losses, [y + 0.25] * len(v.losses), "o", ms=3, color=colours[v.variant], alpha=0.6)
            axes[0].errorbar(v.loss, y, xerr=v.sd, fmt="o", ms=6, capsize=3, color=colours[v.variant])
            scores = published.of(group, v.variant) if published else None
            if published is not None and scores is not None:
                axes[1].errorbar(scores[0], y, xerr=published.sd[0], fmt="o", ms=6, capsize=3, color=colours[v.variant])
        axes[0].set_yticks(range(len(members)), [v.variant for v in members])
        axes[0].set_ylim(len(members) - 0.5, -0.5)
        axes[0].set_xlabel("held-out nats per target (less is better)")
        if published is not None and has_scores:
            axes[1].set_xlabel(f"{published.measures[0]}, {published.source} (more is better)")


def differences(path: pathlib.Path, made: PairedComparison, group: str) -> None:
    """Draws each pair's mean difference with a bar of `factor` times the noise; the order is resolved where the bar leaves out 0."""
    pairs = [pair for pair in made.pairs if pair.group == group]
    with style.figure(path, 7.6, 0.32 * len(pairs) + 1.1) as (axes,):
        for y, pair in enumerate(pairs):
            bar = made.factor * pair.noise
            axes.errorbar(pair.difference, y, xerr=bar, fmt="o", ms=5, capsize=3, lw=1.4, color=_of(pair))
        axes.axvline(0, color=style.BLACK, lw=0.8)
        axes.set_yticks(range(len(pairs)), [f"{pair.a} − {pair.b}" for pair in pairs])
        axes.set_ylim(len(pairs) - 0.5, -0.5)
        axes.set_xlabel(f"difference of the losses (nats per target), ± {made.factor:g} times the noise")
        handles = [style.plt.Line2D([], [], color=colour, marker="o", ms=5, lw=1.4) for colour in (style.BLUE, style.GREY)]
        axes.legend(handles, ["resolved", "no order claimed"], loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)


def _of(pair: Pair) -> str:
    return style.BLUE if pair.better else style.GREY


def curves(path: pathlib.Path, made: PairedComparison, group: str, runs: Sequence[Run]) -> None:
    """Draws loss on a part of the held-out pairs against the pairs trained on: a line for each run, a dot at its end."""
    names = [v.variant for v in made.of(group)]
    colours, markers = _colours(names), dict(zip(names, MARKERS * len(names), strict=False))
    entropy = next(g.entropy for g in made.groups if g.name == group)
    with style.figure(path, 7.6, 4.2) as (axes,):
        for name in names:
            label: Optional[str] = name
            for run in (run for run in runs if (run.group, run.variant) == (group, name) and run.completed and run.curve):
                points = [(p["step"] / run.steps * run.pairs, p["nats_per_token"]) for p in run.curve if p["step"] > 0]
                axes.plot(*zip(*points, strict=True), color=colours[name], lw=1.0, alpha=0.8)
                axes.plot(*points[-1], markers[name], ms=5, color=colours[name], label=label)
                label = None
        axes.axhline(entropy, color=style.GREY, ls="--", lw=1.0, label="frequencies of the targets alone")
        axes.set(xscale="log", xlabel="pairs trained on", ylabel="held-out nats per target")
        style.count_axis(axes.xaxis)
        style.legend(axes, loc="center left", bbox_to_anchor=(1.0, 0.5))
