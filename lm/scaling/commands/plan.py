"""Plans further runs from a table: the compute-optimal model of a budget, the cheapest model that reaches a loss and serves tokens, the
curve of all models with one loss, and which runs to add.
"""

import argparse
import sys

from lm.scaling.commands import table
from lm.scaling.results import Refusal, to_json
from lm.scaling.words import short

HELP = "plan budgets, serving and further runs from a table"


def arguments(parser: argparse.ArgumentParser) -> None:
    table.table_argument(parser)
    table.json_argument(parser)
    table.report_arguments(parser)
    group = parser.add_argument_group("questions (one at least)")
    text = "report N*, D*, loss and D / N of this much compute"
    group.add_argument("--target", type=float, nargs="+", default=[], metavar="FLOPS", help=text)
    text = "find the model that reaches this loss with the fewest FLOPs of training and inference"
    group.add_argument("--reach", type=float, nargs="+", default=[], metavar="LOSS", help=text)
    text = "tokens that the model of --reach reads after training; each costs a third of a training token (default: 0)"
    group.add_argument("--inference-tokens", type=float, default=0.0, metavar="TOKENS", help=text)
    group.add_argument("--iso-loss", type=float, nargs="+", default=[], metavar="LOSS", help="list the (N, D) that have this loss")
    text = "choose the runs that narrow the interval of N* at the last --target the most, for this much compute in all"
    group.add_argument("--extra", type=float, metavar="FLOPS", help=text)
    table.fix_argument(group)
    table.column_arguments(parser)
    table.law_arguments(parser)
    table.interval_arguments(parser, chosen=True)


def run(args: argparse.Namespace) -> int:
    table.check_intervals(args)
    table.check_report(args)
    runs = table.table_of(args)
    settings = table.settings_of(args)
    from lm.scaling.planning import table_plan, text

    fixed = table.numbers_of("--fix", args.fix)
    asked = table_plan.Questions(tuple(args.target), tuple(args.reach), args.inference_tokens, tuple(args.iso_loss), args.extra, fixed)
    made = table_plan.plan_table(runs, settings, asked)
    if args.report:
        from lm.scaling.page import plan_page, provenance

        print(plan_page.write(args.report, made, runs, provenance.provenance(runs, args.command), args.title), file=sys.stderr)
    print(to_json(made) if args.json else short(text.plan(made)), end="" if args.json else "\n")
    if isinstance(made, Refusal):
        return 1
    served = any(not isinstance(serving, Refusal) for serving in made.servings)
    return 0 if made.allocations or served or any(curve.n for curve in made.curves) else 1
