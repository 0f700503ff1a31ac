"""Checks of values that cannot be what their column's name says: units, exchanged columns, another count of FLOPs, perplexity.

The bounds are wider than anything that was trained as a language model. Character-level models of 1,000 parameters, bits per byte below 1
and tables of few tokens that are repeated pass.
"""

from typing import TYPE_CHECKING, Optional

import numpy as np

from lm.scaling.diagnostics.found import Found
from lm.scaling.results import Caution, Refusal
from lm.scaling.runs import Runs

if TYPE_CHECKING:
    from lm.scaling.laws.law import Law

LEAST = {"N": 100.0, "D": 1000.0}  # no language model has fewer parameters, or was trained on fewer tokens
FRACTIONS = 1e5  # below this a count that is no whole number is a count in thousands, millions or more
RATIO = (0.1, 1e4)  # D / N of runs that laws were ever fitted to
IMPOSSIBLE = (1e-5, 1e6)  # D / N that only a wrong unit gives
COUNTED = (0.6, 1.7)  # C / 6 N D that attention, embeddings or recomputation explain
UNIT = 100.0  # factor between C and 6 N D that only a wrong unit gives
MOST_NATS = 12.0  # the logarithm of a vocabulary of 160,000: a model that knows nothing
_SHOWN = 3


def values(runs: Runs, law: "Law") -> list[Found]:
    """Returns what is wrong with the values of N, D, C and loss; the first Refusal alone, for the rest would follow from it."""
    sized = not {"N", "D", "C", "M"}.isdisjoint(law.inputs)
    checks = [units(runs), ratio_units(runs), counted(runs, runs.budget, "--budget")] if sized else []
    checks += [counted(runs, runs.inputs.get("C") if runs.counted else None, "--flops")] if sized else []
    refused = [one for one in checks if isinstance(one, Refusal)]
    if refused:
        return [refused[0]]
    checks += [swapped(runs) or ratios(runs)] if sized else []
    checks += [] if "L" in law.inputs else [perplexity(runs)]
    return [one for one in checks if one is not None]


def units(runs: Runs) -> Optional[Refusal]:
    """Refuses counts that are too small to be counts: N in millions, D in billions."""
    for name, what in (("N", "parameters"), ("D", "tokens")):
        column = runs.inputs.get(name)
        if column is None:
            continue
        low, high = float(column.min()), float(column.max())
        broken = high < FRACTIONS and bool(np.any(np.abs(column - np.round(column)) > 1e-6 * column))
        if low >= LEAST[name] and not broken:
            continue
        row = runs.run[int(np.argmin(column))]
        unit = "thousands or millions" if name == "N" or float(np.median(column)) > 1e4 else "billions or millions"
        said = f"{name} is {low:.4g} at {row} and {high:.4g} at most: a count of {what} cannot be"
        return Refusal("units", f"{said}; in {unit}? write whole {what}, or the unit into the header, as 'N (M)' or 'D (B)'")
    return None


def ratio_units(runs: Runs) -> Optional[Refusal]:
    """Refuses a D / N that only one column in another unit gives."""
    if not {"N", "D"} <= set(runs.inputs):
        return None
    ratio = float(np.median(runs.d / runs.n))
    if IMPOSSIBLE[0] <= ratio <= IMPOSSIBLE[1]:
        return None
    which = "N in thousands or millions" if ratio > 1 else "D in thousands, millions or billions"
    said = f"D / N is {ratio:.2g} in the middle (N {np.median(runs.n):.3g}, D {np.median(runs.d):.3g})"
    return Refusal("units", f"{said}: {which}? write whole parameters and tokens, or the unit into the header, as 'N (M)' or 'D (B)'")


def counted(runs: Runs, flops: Optional[np.ndarray], option: str) -> Optional[Found]:
    """Finds FLOPs or budgets that are a constant times 6 N D, and those in another unit."""
    if flops is None or runs.size is not None or not {"N", "D"} <= set(runs.inputs):
        return None
    ratio = flops / (6 * runs.n * runs.d)
    middle = float(np.median(ratio))
    said = f"{option} is {middle:.3g} times 6 N D in the middle (C {np.median(flops):.3g}, 6 N D {np.median(6 * runs.n * runs.d):.3g})"
    if not 1 / UNIT <= middle <= UNIT:
        return Refusal("units", f"{said}: one of N, D and C is in another unit; write whole parameters, tokens and FLOPs")
    low, high = np.quantile(ratio, [0.1, 0.9])
    if COUNTED[0] <= middle <= COUNTED[1] or high / low > 1.25:
        return None
    cause = "something else than training's forward and backward pass is counted, or N leaves out a part"
    if abs(np.log(middle / 3)) < 0.1:
        cause = "6 N D was multiplied by 3 once more (it holds forward and backward pass already)"
    if abs(np.log(middle * 3)) < 0.1:
        cause = "the forward pass alone, 2 N D, is counted"
    if abs(np.log(middle * 2)) < 0.1:
        cause = "half of N is read for each token (an encoder-decoder), or a pass is left out"
    return Caution("budget", f"{said}, in all rows alike: {cause}; N* and D* at a C are those of this count, or mend the column")


def swapped(runs: Runs) -> Optional[Caution]:
    """Warns where N and D look exchanged."""
    if not {"N", "D"} <= set(runs.inputs):
        return None
    ratio = runs.d / runs.n
    middle = float(np.median(ratio))
    if middle >= RATIO[0]:
        return None
    said = f"D / N is {ratio.min():.2g} to {ratio.max():.2g}, {middle:.2g} in the middle"
    return Caution("swapped", f"{said}: are N and D exchanged? then exchange the columns of --params and --tokens")


def ratios(runs: Runs) -> Optional[Caution]:
    """Warns of rows whose D / N lies beyond what laws were fitted to."""
    if not {"N", "D"} <= set(runs.inputs):
        return None
    ratio = runs.d / runs.n
    bad = np.flatnonzero((ratio < RATIO[0]) | (ratio > RATIO[1]))
    if not len(bad):
        return None
    worst = int(bad[np.argmax(np.abs(np.log(ratio[bad])))])
    count = f"{len(bad)} row{'s' if len(bad) > 1 else ''}"
    said = f"D / N of {count} lies outside {RATIO[0]:g} to {RATIO[1]:,.0f}, as {ratio[worst]:.2g} at {runs.run[worst]}"
    return Caution("ratio", f"{said}: check the row, or leave it out by --between M {RATIO[0]:g} {RATIO[1]:.0f}")


def perplexity(runs: Runs) -> Optional[Caution]:
    """Warns of losses above that of a model that knows nothing: perplexity, or a run that diverged."""
    bad = np.flatnonzero(runs.loss > MOST_NATS)
    if not len(bad):
        return None
    low, high = float(runs.loss.min()), float(runs.loss.max())
    if np.median(runs.loss) > MOST_NATS and low > 1:
        said = f"loss is {low:.3g} to {high:.3g}, above {MOST_NATS:g} nats, the loss of a model that knows nothing"
        return Caution("perplexity", f"{said}: is it perplexity? its logarithm is {np.log(low):.3g} to {np.log(high):.3g}: write that")
    names = ", ".join(runs.run[i] for i in bad[:_SHOWN]) + (", ..." if len(bad) > _SHOWN else "")
    return Caution("loss", f"loss is above {MOST_NATS:g} nats at {names}: a run that diverged, or another unit; mend or leave it out")
