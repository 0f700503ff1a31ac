"""Fits the multi-power law to whole loss curves and predicts the loss under other learning-rate schedules (Luo et al. 2025).

A file is the curve of one run: a row per logged step with its learning rate and loss. Two or three curves under different schedules are
enough. A file to predict needs steps and learning rates; where it has losses too, the prediction is held against them.
"""

import argparse
from typing import TYPE_CHECKING

from lm.errors import UserError
from lm.scaling.commands import table
from lm.scaling.results import Refusal, to_json
from lm.scaling.words import aligned, digits, said, short

if TYPE_CHECKING:
    from lm.scaling.curve_fit import CurveFit, CurveScore

HELP = "predict loss curves under other learning-rate schedules"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("curves", nargs="+", metavar="CURVE.csv", help="loss curves to fit, one file per run")
    text = "schedules to predict, or curves to hold the prediction against"
    parser.add_argument("--predict", nargs="+", default=[], metavar="FILE.csv", help=text)
    parser.add_argument("--step", default="step", metavar="COLUMN", help="column of the step (default: %(default)s)")
    parser.add_argument("--rate", default="lr", metavar="COLUMN", help="column of the learning rate (default: %(default)s)")
    parser.add_argument("--loss", default="loss", metavar="COLUMN", help="column of the loss (default: %(default)s)")
    text = "steps of linear warm-up before the first row (default: as many as the first row's step)"
    parser.add_argument("--warmup", type=int, metavar="STEPS", help=text)
    table.json_argument(parser)
    table.draw_arguments(parser, 100, "refits to blocks of residuals")


def run(args: argparse.Namespace) -> int:
    table.check_intervals(args)
    if args.warmup is not None and args.warmup < 0:
        raise UserError(f"--warmup={args.warmup}: give a number of steps, 0 where there was no warm-up")
    from lm.scaling import curve_fit

    fitted = [curve_fit.read_curve(path, args.step, args.rate, args.loss, args.warmup) for path in args.curves]
    others = [curve_fit.read_curve(path, args.step, args.rate, args.loss, args.warmup, needs_loss=False) for path in args.predict]
    made = curve_fit.fit_curves(fitted, others, level=args.level, draws=args.draws, seed=args.seed)
    if args.json:
        print(to_json(made), end="")
    else:
        print(short(f"refused ({made.kind}): {made.reason}" if isinstance(made, Refusal) else text(made)))
    return 1 if isinstance(made, Refusal) else 0


def text(made: "CurveFit") -> str:
    """Returns the text of a fit to curves: the law's parameters, then a row for each curve."""
    lines = [made.equation, f"  ({made.source}); intervals by {made.method}"]
    lines += [f"  {name} = {said(value)}" for name, value in made.values.items()]
    header = ["curve", "", "R2", "mean error", "largest", "last loss", "predicted"]
    rows = [_row(one, "fitted") for one in made.fitted] + [_row(one, "predicted") for one in made.predicted]
    return "\n".join(lines + aligned(header, rows))


def _row(one: "CurveScore", kind: str) -> list[str]:
    scores = ["-", "-", "-"] if one.r2 is None else [f"{one.r2:.4f}", f"{one.mean_error:.2%}", f"{one.largest_error:.2%}"]
    return [
        one.name.rsplit("/", 1)[-1],
        kind,
        *scores,
        "-" if one.last_loss is None else digits(one.last_loss, 4),
        _interval(one),
    ]


def _interval(one: "CurveScore") -> str:
    answer = one.predicted_last
    if isinstance(answer, Refusal) or answer.low is None or answer.high is None:
        return said(answer)
    return f"{digits(answer.value, 4)} ({digits(answer.low, 4)} to {digits(answer.high, 4)})"
