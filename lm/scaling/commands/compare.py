"""Compares two recipes by their compute multiplier: with how many times the compute B reaches A's loss.

Rows of A and B that share the label of their run, or seed, N and D, count as paired: the noise that they share cancels.
"""

import argparse
from typing import TYPE_CHECKING

from lm.scaling import runs as runs_lib
from lm.scaling.commands import table
from lm.scaling.results import Refusal, to_json

if TYPE_CHECKING:
    from lm.scaling.multiplier import Multiplier

HELP = "compare two recipes by their compute multiplier"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("a", metavar="A.csv", help="runs of recipe A")
    parser.add_argument("b", metavar="B.csv", help="runs of recipe B, with the same columns")
    table.column_arguments(parser)
    table.fit_arguments(parser)
    parser.add_argument("--at", type=float, nargs="+", default=[], metavar="FLOPS", help="compute (default: the largest that both reach)")
    parser.add_argument("--unpaired", action="store_true", help="do not use that runs share seed and data")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")


def run(args: argparse.Namespace) -> int:
    at = table.positive_flops("--at", args.at)
    columns, settings = table.columns_of(args), table.settings_of(args)
    a, b = (runs_lib.read_csv(path, columns) for path in (args.a, args.b))
    from lm.scaling import multiplier

    made = multiplier.multiplier(
        a, b, at, settings.law, settings.objective, not args.unpaired, settings.draws, settings.level, settings.seed
    )
    if args.json:
        print(to_json(made), end="")
    elif isinstance(made, Refusal):
        print(f"refused ({made.kind}): {made.reason}")
    else:
        print(_text(made))
    return 1 if isinstance(made, Refusal) or all(isinstance(answer, Refusal) for answer in made.compute) else 0


def _text(made: "Multiplier") -> str:
    lines = [made.sentence(i) for i in range(len(made.flops))]
    shared = "" if made.correlation is None else f", residuals correlated by {made.correlation:.2f}"
    lines.append(f"  {made.equation}; {made.rows[0]} and {made.rows[1]} rows, {made.pairs} paired by {made.paired_by}{shared}")
    lines.append(f"  {made.method}")
    return "\n".join(lines + [f"  caution: {caution.message}" for caution in made.cautions])
