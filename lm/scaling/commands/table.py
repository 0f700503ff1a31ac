"""The arguments that every verb shares which reads a table of runs, and what they make (imports no jax)."""

import argparse
import difflib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Optional

from lm.errors import UserError
from lm.scaling import runs as runs_lib
from lm.scaling.results import Refusal
from lm.scaling.runs import Columns, Runs

if TYPE_CHECKING:
    from lm.scaling.fitted_law import Surface
    from lm.scaling.table_analysis import TableSettings

LAWS = (
    "chinchilla",
    "tied",
    "no_irreducible",
    "kaplan",
    "kaplan_steps",
    "compute_power",
    "data_constrained",
    "over_training",
    "downstream",
    "width_depth",
    "width_depth_size",
)
INTERVALS = ("measured", "rows", "rows_bca", "runs", "residual", "noise", "porian")
OBJECTIVES = ("huber", "squared_log", "squared_raw", "l1", "quantile")


def column_arguments(parser: argparse.ArgumentParser) -> None:
    """Which columns hold what."""
    group = parser.add_argument_group("columns")
    group.add_argument("--params", default="N", metavar="COLUMN", help="parameters (default: N)")
    group.add_argument("--tokens", default="D", metavar="COLUMN", help="tokens (default: D)")
    group.add_argument("--loss", default="loss", metavar="COLUMN", help="loss, in nats per token or per byte (default: loss)")
    group.add_argument("--flops", metavar="COLUMN", help="training FLOPs of the run (default: 6 N D)")
    group.add_argument("--run", metavar="COLUMN", help="the training run that a row is a point of")
    group.add_argument("--seed-column", metavar="COLUMN", help="seed of the run")
    group.add_argument("--budget", metavar="COLUMN", help="planned FLOPs: approach 2 groups rows by it")
    group.add_argument("--decayed", metavar="COLUMN", help="whether the learning rate had decayed at the row: true or false")
    text = "a further input of the law, such as U=unique_tokens; can be repeated"
    group.add_argument("--input", action="append", default=[], metavar="NAME=COLUMN", help=text)


def table_arguments(parser: argparse.ArgumentParser) -> None:
    """A table, its columns, and how a law is fitted to it."""
    parser.add_argument("csv", help="a CSV file with a header and a row per run")
    column_arguments(parser)
    fit_arguments(parser)


def fit_arguments(parser: argparse.ArgumentParser) -> None:
    """The law, the objective, and how intervals are made."""
    group = parser.add_argument_group("fit")
    group.add_argument("--law", default="chinchilla", metavar="LAW", help=f"one of {', '.join(LAWS)}")
    group.add_argument("--objective", default="huber", choices=OBJECTIVES, help="what is minimised (default: huber, on log loss)")
    group.add_argument("--delta", type=float, default=1e-3, help="Huber's delta (default: 1e-3)")
    group.add_argument("--quantile", type=float, default=0.5, help="of the quantile objective (default: .5)")
    group.add_argument("--interval", default="measured", metavar="HOW", help=f"one of {', '.join(INTERVALS)} (default: the "
                       "noise of the table's seeds where it has them, else a bootstrap over runs or rows)")  # fmt: skip
    group.add_argument("--draws", type=int, default=1000, help="bootstrap draws (default: 1000)")
    group.add_argument("--level", type=float, default=0.8, help="of every interval (default: .8)")
    group.add_argument("--seed", type=int, default=0, help="of everything drawn at random (default: 0)")


def columns_of(args: argparse.Namespace) -> Columns:
    """The columns that the arguments name."""
    inputs = {}
    for pair in args.input:
        name, found, column = pair.partition("=")
        if not found or not name or not column:
            raise UserError(f"--input={pair}: write NAME=COLUMN, such as U=unique_tokens")
        inputs[name] = column
    names = {"params": args.params, "tokens": args.tokens, "loss": args.loss, "flops": args.flops, "run": args.run, "budget": args.budget}
    return Columns(**names, seed=args.seed_column, decayed=args.decayed, inputs=inputs)


def table_of(args: argparse.Namespace) -> Runs:
    """The runs of the CSV file that the arguments name."""
    return runs_lib.read_csv(args.csv, columns_of(args))


def positive_flops(option: str, values: Sequence[float]) -> tuple[float, ...]:
    """The values of an option that names compute; UserError unless all are positive and finite."""
    for value in values:
        if not 0 < value < float("inf"):
            raise UserError(f"{option}={value:g}: a positive number of FLOPs is needed, such as 1e20")
    return tuple(values)


def settings_of(args: argparse.Namespace, approaches: tuple[int, ...] = (3,), **more: Any) -> "TableSettings":
    """How the arguments ask for a table to be fitted."""
    if not 0 < args.level < 1:
        raise UserError(f"--level={args.level:g}: a share between 0 and 1 is needed, such as .8")
    if args.draws < 10:
        raise UserError(f"--draws={args.draws}: an interval needs 10 draws at the least, and 1,000 to be steady")
    if not 0 < args.delta < float("inf"):
        raise UserError(f"--delta={args.delta:g}: a positive number is needed, such as 1e-3")
    if not 0 < args.quantile < 1:
        raise UserError(f"--quantile={args.quantile:g}: a share between 0 and 1 is needed, such as .5")
    if args.law not in LAWS:
        near = difflib.get_close_matches(args.law, LAWS, 1)
        raise UserError(f"unknown law {args.law!r}: " + (f"did you mean {near[0]}?" if near else f"there are {', '.join(LAWS)}"))
    if args.interval not in INTERVALS:
        raise UserError(f"unknown interval {args.interval!r}: there are {', '.join(INTERVALS)}")
    from lm.scaling.fits.objectives import OBJECTIVES as CLASSES
    from lm.scaling.intervals.resampling import RESAMPLINGS
    from lm.scaling.laws import catalogue
    from lm.scaling.table_analysis import TableSettings

    chosen: dict[str, float] = {"huber": args.delta, "quantile": args.quantile}
    value: Optional[float] = chosen.get(args.objective)
    return TableSettings(
        approaches=approaches, law=catalogue.LAWS[args.law], objective=CLASSES[args.objective](*(() if value is None else (value,))),
        resampling=RESAMPLINGS[args.interval](), draws=args.draws, level=args.level, seed=args.seed, **more,
    )  # fmt: skip


def surface_of(args: argparse.Namespace, runs: Runs) -> "Surface":
    """The law fitted to the table as the arguments ask; UserError where the table does not support it."""
    from lm.scaling.fitted_law import fit_surface

    s = settings_of(args)
    made = fit_surface(runs, s.law, s.objective, s.resampling, s.draws, s.level, s.seed)
    if isinstance(made, Refusal):
        raise UserError(f"no fit ({made.kind}): {made.reason}")
    return made
