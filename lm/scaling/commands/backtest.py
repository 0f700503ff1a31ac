"""Backtests forecasts: fits the law below each planned budget of a table, or each quantile of compute, and forecasts what lies above, up to
60 times the compute.

Scored are the law with its own error, the law alone, and what needs no law: power laws of the lowest losses and the last budget.
"""

import argparse
from collections.abc import Sequence

from lm.errors import UserError
from lm.scaling.commands import table
from lm.scaling.results import to_json
from lm.scaling.words import short

HELP = "backtest forecasts on one or more tables"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("tables", nargs="+", metavar="TABLE", help="tables of runs, with the same names of columns")
    table.json_argument(parser)
    table.column_arguments(parser)
    table.law_arguments(parser)
    table.seed_argument(parser)


def run(args: argparse.Namespace) -> int:
    law, objective = table.law_of(args), table.objective_of(args)
    runs = [table.read(path, args) for path in _once(args.tables)]
    for one in runs:
        table.check_values(one, law)
    from lm.scaling.backtest import backtest, text

    made = backtest.backtest(runs, law, objective, seed=args.seed)
    print(to_json(made).rstrip() if args.json else short(text.render(made)))
    return 0 if made.lines else 1


def _once(paths: Sequence[str]) -> Sequence[str]:
    """Returns the paths; UserError where one is named twice and would count twice."""
    twice = [path for path in dict.fromkeys(paths) if paths.count(path) > 1]
    if twice:
        raise UserError(f"{twice[0]} is named twice: name each table once")
    return paths
