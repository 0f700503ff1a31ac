"""Compares two recipes by their compute multiplier: how much of A's compute B needs to reach A's loss.

Rows of A and B that share the name of their run, or seed, N and D, are paired: the noise that they share cancels.
"""

import argparse
from typing import TYPE_CHECKING

from lm.errors import counted
from lm.scaling.commands import table
from lm.scaling.results import Refusal, to_json
from lm.scaling.words import folded, short

if TYPE_CHECKING:
    from lm.scaling.multiplier import Multiplier

HELP = "compare two recipes by their compute multiplier"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("a", metavar="A.csv", help="table of the runs of recipe A")
    parser.add_argument("b", metavar="B.csv", help="table of the runs of recipe B, with the same columns")
    text = "compute of A at which to compare (default: the largest that both tables reach)"
    parser.add_argument("--at", type=float, nargs="+", default=[], metavar="FLOPS", help=text)
    parser.add_argument("--unpaired", action="store_true", help="take the noise of A and B as independent")
    table.json_argument(parser)
    table.column_arguments(parser)
    table.law_arguments(parser)
    table.interval_arguments(parser, chosen=False)


def run(args: argparse.Namespace) -> int:
    at = table.positive_flops("--at", args.at)
    table.check_intervals(args)
    law, objective = table.law_of(args), table.objective_of(args)
    a, b = (table.read(path, args) for path in (args.a, args.b))
    from lm.scaling import multiplier

    made = multiplier.multiplier(a, b, at, law, objective, paired=not args.unpaired, draws=args.draws, level=args.level, seed=args.seed)
    if args.json:
        print(to_json(made), end="")
    elif isinstance(made, Refusal):
        print(short(f"refused ({made.kind}): {made.reason}"))
    else:
        print(short(_text(made)))
    return 1 if isinstance(made, Refusal) or all(isinstance(answer, Refusal) for answer in made.compute) else 0


def _text(made: "Multiplier") -> str:
    lines = [made.sentence(i) for i in range(len(made.flops))]
    shared = "" if made.correlation is None else f", residuals correlated by {made.correlation:.2f}"
    lines.append(f"  {made.equation}; {made.rows[0]} and {counted(made.rows[1], 'row')}, {made.pairs} paired by {made.paired_by}{shared}")
    lines.append(f"  {made.method}")
    return "\n".join(lines + folded(caution.message for caution in made.cautions))
