"""Predicts a downstream metric of a larger model in two stages: a law from N and D to a task's loss, and one from that loss to the metric.

Both laws are fitted to the same runs with one bootstrap. The loss of the task's correct answers (bits per byte) predicts better than the
loss on a general corpus (Bhagia et al. 2024).
"""

import argparse
from typing import TYPE_CHECKING

from lm.errors import UserError, counted
from lm.scaling.commands import table
from lm.scaling.results import Refusal, to_json
from lm.scaling.words import said, short

if TYPE_CHECKING:
    from lm.scaling.chain import Chain

HELP = "predict a downstream metric by way of a loss"
SECOND = ("sigmoid", "downstream")


def arguments(parser: argparse.ArgumentParser) -> None:
    table.table_argument(parser)
    parser.add_argument("--metric", required=True, metavar="COLUMN", help="column of the metric: an accuracy, or an error rate")
    text = "law from the loss to the metric (default: %(default)s): sigmoid of an accuracy, downstream of an error rate"
    parser.add_argument("--second", choices=SECOND, default="sigmoid", help=text)
    text = "inputs of a run to predict, such as N=1e10 D=2e11; can be repeated"
    parser.add_argument("--at", nargs="+", action="append", required=True, metavar="NAME=VALUE", help=text)
    table.json_argument(parser)
    table.column_arguments(parser)
    table.law_arguments(parser)
    table.interval_arguments(parser, chosen=False)


def run(args: argparse.Namespace) -> int:
    if any(pair.partition("=")[0] == "metric" for pair in args.input):
        raise UserError("--input=metric=...: name the metric's column with --metric=COLUMN")
    table.check_intervals(args)
    law, objective = table.law_of(args), table.objective_of(args)
    at = [table.numbers_of("--at", pairs) for pairs in args.at]
    from lm.scaling import chain
    from lm.scaling.laws import catalogue

    args.input = [*args.input, f"{chain.METRIC}={args.metric}"]
    laws = (law, catalogue.law(args.second))
    runs = table.table_of(args)
    table.check_values(runs, law)
    made = chain.chain(runs, laws, at, objective, args.draws, args.level, args.seed)
    if args.json:
        print(to_json(made), end="")
    else:
        print(short(f"refused ({made.kind}): {made.reason}" if isinstance(made, Refusal) else text(made)))
    return 1 if isinstance(made, Refusal) else 0


def text(made: "Chain") -> str:
    """Returns the text of a chain: both laws with their errors, then each run that was asked for."""
    lines = [f"{counted(made.rows, 'row')}; intervals by {made.method}, one for both laws"]
    for equation, values, error in zip(made.equations, made.values, made.errors, strict=True):
        lines.append(f"  {equation}: off by {error:.2%} on its rows")
        lines += [f"    {name} = {said(value)}" for name, value in values.items()]
    for one in made.at:
        where = ", ".join(f"{name} {value:.3g}" for name, value in one.inputs.items() if name in ("N", "D", "C"))
        lines.append(f"  {where}: loss {said(one.loss)}   metric {said(one.metric)}")
    return "\n".join(lines)
