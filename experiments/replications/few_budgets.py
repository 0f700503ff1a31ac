"""`python -m experiments.replications.few_budgets --data=DIR` counts how often what a study recommends would have held on public tables.

Each table with budgets is cut to its three, four or five lowest budgets that show an optimum. What `lm.analysis.recommend` then says of the
budgets above, with 80% intervals, is held against the optima and the lowest losses that they show.
"""

import collections
import math
import pathlib
import sys
from collections.abc import Iterator
from typing import NamedTuple, Optional

import numpy as np

from experiments.replications import backtest
from lm.errors import AGAIN, Parser, UserError, run_cli
from lm.scaling.runs import Runs
from lm.scaling.words import aligned

KEPT = (3, 4, 5)  # budgets below a cut
FACTORS = (3.0, 6.0, 16.0, 60.0, 200.0)  # ends of the classes of distance, in compute over the largest budget that is known
NAMES = ("2", "4", "8", "30", "100")


class Held(NamedTuple):
    """One recommendation beside what a later budget shows: the error of the logarithm, and half the width of the interval."""

    quantity: str
    kept: int
    factor: str
    error: float
    reach: float


def held(runs: Runs) -> Iterator[Held]:
    """Yields the recommendations from the lowest budgets of a table for the budgets above them."""
    from lm.scaling.backtest import optima

    assert runs.budget is not None  # the caller chose such tables
    shown = optima.shown(runs)
    for kept in KEPT:
        if len(shown.log_c) <= kept:
            continue
        ahead = optima.Optima(*(column[kept:] for column in shown))
        largest = math.exp(shown.log_c[kept - 1])
        factors = [float(factor) for factor in np.exp(ahead.log_c) / largest]
        for i, one in enumerate(_recommended(runs.take(np.asarray(runs.budget <= largest * (1 + 1e-9))), factors)):
            if (name := _class(factors[i])) is None:
                continue
            lowest = math.log(float(runs.loss[np.isclose(runs.budget, math.exp(ahead.log_c[i]))].min()))
            for quantity, answer, truth, sd in (("N*", one.n, ahead.log_n[i], ahead.sd[i]), ("lowest loss", one.loss, lowest, 0.0)):
                if getattr(answer, "low", None) is not None:
                    reach = math.log(answer.high / answer.low) / 2
                    yield Held(quantity, kept, name, math.log(answer.value) - truth, math.hypot(reach, 1.2816 * sd))


def _recommended(below: Runs, factors: list[float]) -> tuple:
    from lm.analysis.recommend import recommend
    from lm.scaling.approaches import isoflop, parametric, profiles
    from lm.scaling.intervals.noise import fit_noise
    from lm.scaling.settings import AnalysisSettings

    settings = AnalysisSettings(draws=200)
    noise, cells = fit_noise(below), below.cells()
    _, minima = isoflop.fit_isoflop(profiles.by_budget(cells), cells, noise, settings)
    law = parametric.fit_law(cells, noise, settings, settings.draws, "main", span=False)
    return recommend(minima, law, cells, noise, settings, factors)


def _class(factor: float) -> Optional[str]:
    return next((name for name, end in zip(NAMES, FACTORS, strict=True) if factor <= end), None)


def render(found: list[Held]) -> str:
    """Returns the table of how often intervals held, by quantity, budgets below the cut, and distance."""
    groups: dict[tuple[str, int, str], list[Held]] = collections.defaultdict(list)
    for one in found:
        groups[one.quantity, one.kept, one.factor].append(one)
    rows = []
    for (quantity, kept, factor), group in sorted(groups.items(), key=lambda item: (item[0][0], item[0][1], float(item[0][2]))):
        error = np.array([one.error for one in group])
        reach = np.array([one.reach for one in group])
        shares = (f"{np.mean(np.abs(error) <= reach):.0%}", f"{np.mean(np.abs(error)):.1%}", f"{error.mean():+.1%}", f"{reach.mean():.1%}")
        rows.append([quantity, f"{kept}", f"{factor}x", f"{len(group)}", *shares])
    head = ["quantity", "budgets", "compute", "cases", "held by 80%", "error", "bias", "half of the interval"]
    return "\n".join(aligned(head, rows, indent="", left=(0,)))


def main(argv: Optional[list[str]] = None) -> int:
    parser = Parser(prog="python -m experiments.replications.few_budgets", description=__doc__.splitlines()[0])
    text = "folder of the public tables (docs/replications.md)"
    parser.add_argument("--data", type=pathlib.Path, required=True, metavar="DIR", help=text)
    args = parser.parse_args(argv)
    found: list[Held] = []
    for name in ("chinchilla", "porian"):
        folder, read = backtest.FAMILIES[name]
        if not (args.data / folder).is_dir():
            print(f"left out: {name} needs {args.data / folder} (docs/replications.md)", file=sys.stderr)
            continue
        for runs in read(args.data):
            if runs.budget is not None:
                found += held(runs)
                print(runs.source, file=sys.stderr, flush=True)
    if not found:
        raise UserError(f"no tables with budgets under {args.data}: docs/replications.md says where each is public")
    print(render(found))
    return 0


if __name__ == "__main__":
    run_cli(main, AGAIN)
