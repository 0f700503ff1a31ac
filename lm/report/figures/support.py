"""Figures of the evidence behind the laws: the forecast beside what was measured, the learning-rate brackets, and the seed noise."""

import math
import pathlib
from collections.abc import Sequence

import numpy as np

from lm.analysis.brackets import Bracket
from lm.analysis.forecast import Forecast
from lm.analysis.score import Score
from lm.scaling.intervals.noise import NoiseModel
from lm.scaling.page import style


def forecast(path: pathlib.Path, made: Forecast, score: Score) -> None:
    """Draws predicted losses with intervals beside the measured ones, and the two baselines."""
    with style.figure(path, 6.8, 4.0) as (axes,):
        n = np.array([cell.n for cell in score.cells])
        predicted = np.array([cell.predicted for cell in score.cells])
        bounds = [(cell.low or cell.predicted, cell.high or cell.predicted) for cell in score.cells]
        error = np.abs(np.array(bounds).T - predicted)
        axes.errorbar(n, predicted, yerr=error, fmt="s", ms=4.5, capsize=3, color=style.BLUE, label=f"forecast, {score.level:.0%} interval")
        axes.plot(n, [cell.measured for cell in score.cells], "o", ms=5, color=style.RED, label="measured afterwards")
        axes.axhline(made.baseline_power_law, color=style.GREY, ls="--", lw=1.1, label="baseline: power law of the lowest loss")
        axes.axhline(made.baseline_last_budget, color=style.GREY, ls=":", lw=1.1, label="baseline: lowest loss of the budget before")
        axes.set(xscale="log", xlabel="parameters N (matmul)", ylabel="held-out loss (nats per byte)")
        style.count_axis(axes.xaxis)
        style.legend(axes, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)


def brackets(path: pathlib.Path, found: Sequence[Bracket]) -> None:
    """Draws loss against the learning rate over the rule's, relative to the rule's own loss, with the parabola through it."""
    with style.figure(path, 6.8, 3.8) as (axes,):
        for colour, bracket in zip(style.colours(len(found)), found, strict=True):
            factors = np.array(bracket.factors)
            at_rule = bracket.loss[int(np.argmin(np.abs(np.log(factors))))]
            label = f"N = {style.si(bracket.n)}, C = {style.scientific(bracket.budget)}"
            axes.plot(factors, 100 * (np.array(bracket.loss) / at_rule - 1), "o", color=colour, label=label)
            u = np.linspace(math.log(factors.min()), math.log(factors.max()), 80)
            c0, c1, c2 = bracket.coefficients
            axes.plot(np.exp(u), 100 * np.expm1(c0 + c1 * u + c2 * u * u - math.log(at_rule)), color=colour, lw=1.1)
        axes.axvline(1, color=style.BLACK, lw=0.8)
        axes.set(xscale="log", xlabel="learning rate over the rule's", ylabel="loss over the rule's − 1 (%)")
        axes.set_xticks([0.5, 1, 2], ["½", "1", "2"])
        axes.xaxis.set_minor_formatter(style.NullFormatter())
        style.legend(axes, loc="center left", bbox_to_anchor=(1.0, 0.5))


def noise(path: pathlib.Path, model: NoiseModel, budgets: Sequence[float]) -> None:
    """Draws the standard deviation over seeds of each replicated cell, and the fitted sigma(C) with its interval, over all budgets."""
    with style.figure(path, 6.4, 3.6) as (axes,):
        flops = np.geomspace(min(budgets) / 1.3, max(budgets) * 1.3, 60)
        fitted = [model.at(c) for c in flops]
        axes.plot(flops, [100 * e.value for e in fitted], color=style.BLUE, label="fitted σ(C)")
        low, high = ([100 * (getattr(e, side) or e.value) for e in fitted] for side in ("low", "high"))
        axes.fill_between(flops, low, high, color=style.BLUE, alpha=0.15, lw=0, label=f"{model.level:.0%} interval")
        label = f"cells with several seeds ({model.dof} degrees of freedom)"
        axes.plot([c.flops for c in model.cells], [100 * c.sd for c in model.cells], "o", ms=4.5, color=style.BLACK, alpha=0.7, label=label)
        axes.set(xscale="log", xlabel="training compute C (FLOPs)", ylabel="seed sd of the loss (%)")
        axes.set_ylim(bottom=0)
        style.flops_axis(axes.xaxis)
        style.legend(axes, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
