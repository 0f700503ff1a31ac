"""Fits scaling laws to a table of runs: approach 1 (lower hull), 2 (IsoFLOP minima), 3 (a law of N and D).

Prints the results or, with --json, everything; --report writes one self-contained page.
"""

import argparse
import pathlib

from lm.scaling.commands import table
from lm.scaling.results import Refusal, to_json

HELP = "fit laws to a table of runs"


def arguments(parser: argparse.ArgumentParser) -> None:
    table.table_arguments(parser)
    parser.add_argument("--approach", type=int, nargs="+", choices=(1, 2, 3), default=None,
                        help="1 lower hull, 2 IsoFLOP minima (needs --budget), 3 a law (default: 3, and 2 with --budget)")  # fmt: skip
    parser.add_argument("--curve", choices=("parabola", "cubic", "akima"), default="parabola", help="approach 2: through a profile")
    parser.add_argument("--regression", choices=("plain", "weighted"), default="plain", help="approach 2: of the minima on compute")
    parser.add_argument("--target", type=float, nargs="+", default=[], metavar="FLOPS", help="compute to allocate beside the table's own")
    parser.add_argument("--report", type=pathlib.Path, metavar="FILE.html", help="write a page with figures")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")


def run(args: argparse.Namespace) -> int:
    runs = table.table_of(args)
    approaches = tuple(args.approach or ((2, 3) if args.budget else (3,)))
    settings = table.settings_of(
        args, approaches, curve=args.curve, regression=args.regression, targets=table.positive_flops("--target", args.target)
    )
    from lm.scaling import table_analysis, table_summary

    made = table_analysis.analyse_runs(runs, settings)
    if args.report:
        from lm.scaling.page.table_page import write

        write(args.report, made)
    print(to_json(made) if args.json else table_summary.render(made), end="" if args.json else "\n")
    minima = [budget.n_star for budget in made.isoflop.budgets] if made.isoflop and not isinstance(made.isoflop, Refusal) else []
    found = (made.law, made.hull, *minima)
    return 1 if all(part is None or isinstance(part, Refusal) for part in found) else 0
