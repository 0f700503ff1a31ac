"""Predicts the loss of runs from a saved fit, or the compute-optimal run of a budget, with intervals.

An interval is that of one run to come: it holds the noise of the run, what the fit leaves open of the parameters, and the law's own error,
shown apart as standard deviations. Save a fit with `python -m lm.scaling fit RUNS.csv --save=FIT.json`.
"""

import argparse
import sys
from typing import TYPE_CHECKING

from lm.errors import UserError, counted
from lm.scaling.commands import table
from lm.scaling.laws import catalogue
from lm.scaling.results import Estimate, Refusal, to_json
from lm.scaling.table_summary import allocations
from lm.scaling.words import aligned, digits, folded, short

if TYPE_CHECKING:
    from lm.scaling.planning.predicting import Prediction
    from lm.scaling.prediction import RunForecast

HELP = "predict losses from a saved fit"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("fit", metavar="FIT.json", help="what `fit --save=FIT.json` wrote")
    group = parser.add_argument_group("what to predict (one at least)")
    text = (
        "inputs of a run, such as N=1e9 D=2e10; can be repeated. N, D, C (as the table counts it) and M = D / N follow from N or D and one "
        "other of them; further inputs of the law are needed too"
    )
    group.add_argument("--at", nargs="+", action="append", default=[], metavar="NAME=VALUE", help=text)
    text = "the compute-optimal run of this much compute: N*, D* and its loss"
    group.add_argument("--target", type=float, nargs="+", default=[], metavar="FLOPS", help=text)
    text = "the runs of a table, of any kind that tables come in; losses in it are not read (`score` holds them against the forecasts)"
    group.add_argument("--table", metavar="RUNS.csv", help=text)
    table.fix_argument(group)
    parser.add_argument("--level", type=float, help="confidence level of the intervals (default: that of the fit)")
    table.seed_argument(parser)
    table.json_argument(parser)
    table.column_arguments(parser)


def run(args: argparse.Namespace) -> int:
    if not (args.at or args.target or args.table):
        raise UserError("nothing to predict: give --at NAME=VALUE ..., --target FLOPS or --table RUNS.csv")
    at = [table.numbers_of("--at", pairs) for pairs in args.at]
    targets, fixed = table.positive_flops("--target", args.target), table.numbers_of("--fix", args.fix)
    if args.level is not None:
        table.check_level(args.level)
    from lm.scaling import saved
    from lm.scaling.planning import predicting

    held = saved.read(args.fit)
    planned = None
    if args.table:
        from lm.scaling.planning import power

        table.columns_as(args, held.columns, args.table)
        planned = power.planned(args.table, table.columns_of(args), table.selection_of(args))
        print(table.understood(planned), file=sys.stderr)
        table.check_values(planned, catalogue.law(held.law))
    made = predicting.predicted(args.fit, held, at, targets, fixed, args.level or held.level, args.seed, planned)
    print(to_json(made) if args.json else short(_text(made)), end="" if args.json else "\n")
    return 0 if any(isinstance(one.loss, Estimate) for one in _every(made)) else 1


def _every(made: "Prediction") -> "tuple[RunForecast, ...]":
    return (*made.runs, *(target.run for target in made.targets), *made.table)


def _text(made: "Prediction") -> str:
    lines = [f"{made.fit}: {made.equation}, fitted to {counted(made.rows, 'row')} of {made.source}"]
    lines.append(f"  intervals: {made.level:.0%} of one run to come; {made.noise}")
    if made.runs:
        lines += forecasts(made.runs)
    if made.table:
        lines += [f"  the runs of {made.rows_of}:", *forecasts(made.table, made.row_names)]
    if made.targets:
        lines += ["  the optimum at a compute, with the intervals of the parameters:", *allocations([at.allocation for at in made.targets])]
        lines += ["  a run there:", *forecasts(tuple(at.run for at in made.targets))]
    return "\n".join(lines + folded(caution.message for caution in made.cautions))


def forecasts(made: "tuple[RunForecast, ...]", run: tuple[str, ...] = ()) -> list[str]:
    """Renders forecasts as a table, and below it why there is no interval, and that runs lie outside the sampled range."""
    names = [name for name in dict.fromkeys(name for one in made for name in one.inputs) if name != "M"]
    rows = [
        [
            *(short(f"{one.inputs[x]:.3g}") if x in one.inputs else "-" for x in names),
            value(one),
            interval(one),
            *(f"{sd:.2%}" for sd in one.parts.values()),
            _beyond(one),
        ]
        for one in made
    ]
    header = [*names, "loss", "interval", *(f"sd {part}" for part in made[0].parts), "outside the range"]
    lines = aligned(["run", *header], [[name, *row] for name, row in zip(run, rows, strict=True)]) if run else aligned(header, rows)
    reasons = {one.loss.refused.reason: None for one in made if isinstance(one.loss, Estimate) and one.loss.refused}
    lines += [f"  no interval: {reason}" for reason in reasons]
    lines += [f"  refused: {reason}" for reason in {one.loss.reason: None for one in made if isinstance(one.loss, Refusal)}]
    far = any(one.caution and one.caution.kind != "extrapolation" for one in made)
    text = "far outside the sampled range (factors above) an interval holds only if the law does: add runs nearer to it"
    return lines + (folded([text] if far else []))


def value(made: "RunForecast") -> str:
    """Returns the predicted loss in words."""
    return "refused" if isinstance(made.loss, Refusal) else digits(made.loss.value, 4)


def interval(made: "RunForecast") -> str:
    """Returns the interval of a predicted loss in words, a dash where there is none."""
    if isinstance(made.loss, Refusal) or made.loss.low is None or made.loss.high is None:
        return "-"
    return f"{digits(made.loss.low, 4)} to {digits(made.loss.high, 4)}"


def _beyond(made: "RunForecast") -> str:
    return ", ".join(short(f"{name} {factor:.2g}x") for name, factor in made.beyond.items() if name != "M") or "-"
