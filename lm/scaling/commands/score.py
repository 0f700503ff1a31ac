"""Scores a saved fit by runs that it has not seen: predicted against measured loss.

Shown are the errors and their bias, how many losses lie in the intervals of 50, 80 and 95%, the interval score and the CRPS (less is
better), and each row. All are relative: they are of log loss. Columns are named as they were for the fit, unless options say otherwise.
"""

import argparse
from typing import TYPE_CHECKING

from lm.errors import counted
from lm.scaling.commands import table
from lm.scaling.commands.predict import interval
from lm.scaling.laws import catalogue
from lm.scaling.results import Refusal, to_json
from lm.scaling.words import aligned, digits, folded, said, short

if TYPE_CHECKING:
    from lm.scaling.planning.scoring import ScoredRow, TableScore

HELP = "score a saved fit by new runs"
SHOWN = 30  # rows that are printed


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("fit", metavar="FIT.json", help="what `fit --save=FIT.json` wrote")
    table.table_argument(parser)
    parser.add_argument("--level", type=float, help="confidence level of the intervals of the rows (default: that of the fit)")
    table.seed_argument(parser)
    table.json_argument(parser)
    table.column_arguments(parser)


def run(args: argparse.Namespace) -> int:
    if args.level is not None:
        table.check_level(args.level)
    from lm.scaling import saved
    from lm.scaling.planning import scoring

    held = saved.read(args.fit)
    table.columns_as(args, held.columns, args.csv)
    runs = table.table_of(args)
    table.check_values(runs, catalogue.law(held.law))
    made = scoring.scored(args.fit, held, runs, args.level or held.level, args.seed)
    print(to_json(made) if args.json else short(_text(made)), end="" if args.json else "\n")
    return 0


def _text(made: "TableScore") -> str:
    lines = [f"{made.fit}: {made.equation}, fitted to {made.fitted_to}, against {counted(made.count, 'row')} of {made.source}"]
    lines.append(
        f"  measured over predicted: {made.bias:+.2%} on average, {made.error:.2%} in absolute value, {made.largest:+.2%} at most (of logs)"
    )
    lines += _levels(made)
    shown = sorted(made.rows, key=lambda row: -abs(row.error))[:SHOWN] if len(made.rows) > SHOWN else made.rows
    if len(shown) < len(made.rows):
        lines.append(f"  the {SHOWN} largest errors (--json has every row):")
    names = [name for name in shown[0].forecast.inputs if name != "M"]
    header = ["row", *names, "measured", "predicted", f"{made.level:.0%} interval", "error", ""]
    lines += aligned(header, [_row(row, names) for row in shown])
    return "\n".join(lines + folded(caution.message for caution in made.cautions))


def _levels(made: "TableScore") -> list[str]:
    if isinstance(made.levels, Refusal) or isinstance(made.crps, Refusal):
        refused = made.levels if isinstance(made.levels, Refusal) else made.crps
        return [f"  intervals: {said(refused)}"] if isinstance(refused, Refusal) else []
    rows = []
    for one in made.levels:
        share = f"{one.held / one.rows:.0%}"
        rows.append([f"{one.level:.0%}", f"{one.held} of {one.rows}", share, f"{one.width:.2%}", f"{one.score:.2%}"])
    lines = aligned(["interval", "holds", "share", "mean width", "interval score"], rows)
    return [*lines, f"  CRPS {made.crps:.3%}; {made.noise}"]


def _row(row: "ScoredRow", names: list[str]) -> list[str]:
    answer = row.forecast.loss
    value = "refused" if isinstance(answer, Refusal) else digits(answer.value, 4)
    held = isinstance(answer, Refusal) or answer.low is None or answer.covers(row.measured)
    inputs = [short(f"{row.forecast.inputs[name]:.3g}") for name in names]
    return [row.run, *inputs, digits(row.measured, 4), value, interval(row.forecast), f"{row.error:+.2%}", "" if held else "outside"]
