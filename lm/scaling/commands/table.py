"""The arguments that the verbs share, and the table and the settings that follow from them (imports no jax)."""

import argparse
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Optional

from lm.errors import Parser, UserError, counted, nearest
from lm.scaling import runs as runs_lib
from lm.scaling.intervals.resampling import RESAMPLINGS
from lm.scaling.laws import catalogue
from lm.scaling.results import Refusal
from lm.scaling.runs import Columns, Runs, Selection
from lm.scaling.tables import formats
from lm.scaling.words import folded, short

if TYPE_CHECKING:
    from lm.scaling.fits.objectives import Objective
    from lm.scaling.laws.law import Law
    from lm.scaling.table_analysis import TableSettings

_PLACES = ("run", "seed_column", "budget", "decayed")
OBJECTIVES = ("huber", "squared_log", "squared_raw", "l1", "quantile")  # fits.objectives.OBJECTIVES, whose import would import jax


def table_argument(parser: argparse.ArgumentParser) -> None:
    """Adds the argument for a table."""
    text = "table of runs, a header and a row per run: .csv, .tsv, either with .gz, .jsonl, .json, .parquet or .xlsx"
    parser.add_argument("csv", metavar="RUNS.csv", help=text)


def column_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options that name the columns of a table."""
    text = "What was understood is printed before the fit. A header may state a unit, as in `Params (M)`."
    group = parser.add_argument_group("columns of the table", text)
    known = "default: N, or a column of a known name such as n_params; else C / 6 D"
    group.add_argument("--params", metavar="COLUMN", help=f"number of parameters N ({known})")
    known = "default: D, or a column of a known name such as train_tokens; else C / 6 N"
    group.add_argument("--tokens", metavar="COLUMN", help=f"number of training tokens D ({known})")
    group.add_argument(
        "--loss", metavar="COLUMN", help="loss in nats per token, or per byte (default: loss, or a known name such as eval/loss)"
    )
    group.add_argument("--flops", metavar="COLUMN", help="training FLOPs C as counted (default: 6 N D)")
    group.add_argument("--run", metavar="COLUMN", help="training run; rows of one run depend on each other (default: a run per row)")
    group.add_argument("--seed-column", metavar="COLUMN", help="seed; runs that differ in it alone measure the noise (default: no seeds)")
    group.add_argument("--budget", metavar="COLUMN", help="planned FLOPs; rows of one value are an IsoFLOP profile (default: no profiles)")
    group.add_argument("--decayed", metavar="COLUMN", help="true where the learning rate had decayed, else false (default: not checked)")
    text = "further input of the law, such as U=unique_tokens; can be repeated"
    group.add_argument("--input", action="append", default=[], metavar="NAME=COLUMN", help=text)
    group.add_argument("--log10", nargs="+", default=[], metavar="COLUMN", help="columns that hold logarithms to base 10")
    group.add_argument("--ln", nargs="+", default=[], metavar="COLUMN", help="columns that hold natural logarithms")
    group = parser.add_argument_group("rows of the table")
    text = "keep the rows that fulfil a condition, such as 'loss<4' or 'corpus==c4'; can be repeated"
    group.add_argument("--where", action="append", default=[], metavar="'COLUMN>VALUE'", help=text)
    group.add_argument("--drop-duplicates", action="store_true", help="leave out rows that repeat another to the last digit")
    group.add_argument(
        "--best", action="store_true", help="keep the lowest loss of each N, D and budget, of a sweep of learning rates, say"
    )


def law_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options that choose the law and the objective of its fit."""
    group = parser.add_argument_group("law and objective")
    text = f"law to fit (default: %(default)s): {', '.join(catalogue.LAWS)}; docs/scaling.md has their equations"
    group.add_argument("--law", default="chinchilla", metavar="LAW", help=text)
    text = f"cost of a residual (default: %(default)s): {', '.join(OBJECTIVES)}; residuals of log loss, but for squared_raw"
    group.add_argument("--objective", default="huber", choices=OBJECTIVES, metavar="OBJECTIVE", help=text)
    group.add_argument("--delta", type=float, default=1e-3, help="delta of --objective=huber (default: %(default)s)")
    group.add_argument("--quantile", type=float, default=0.5, metavar="Q", help="quantile of --objective=quantile (default: %(default)s)")


def interval_arguments(parser: argparse.ArgumentParser, chosen: bool) -> None:
    """Adds the options of intervals that are read off draws; `chosen` adds the one that says how the draws are made."""
    group = draw_arguments(parser, 1000, "bootstrap draws behind an interval")
    if chosen:
        text = f"how draws are made: {', '.join(RESAMPLINGS)} (default: noise if seeds measure it, runs if rows share one, else rows)"
        group.add_argument("--interval", default="measured", metavar="HOW", help=text)


def json_argument(parser: argparse.ArgumentParser) -> None:
    """Adds the option that prints JSON."""
    parser.add_argument("--json", action="store_true", help="print the whole result as JSON")


def report_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of a page."""
    text = "write a page with figures, and the figures as PNG and SVG files beside it; a directory gets report.html"
    parser.add_argument("--report", type=pathlib.Path, metavar="FILE.html", help=text)
    parser.add_argument("--title", default="", help="title of the page of --report (default: the name of the table)")


def check_report(args: argparse.Namespace) -> None:
    """Raises a UserError for a page that cannot be written, before anything is computed."""
    if args.report is not None:
        from lm.scaling.page import document

        document.page_at(args.report)
    elif args.title:
        raise UserError("--title is of a page: add --report=FILE.html")


def columns_of(args: argparse.Namespace) -> Columns:
    """Returns the columns that the arguments name."""
    inputs = {}
    for pair in args.input:
        name, found, column = pair.partition("=")
        if not found or not name or not column:
            raise UserError(f"--input={pair}: write NAME=COLUMN, such as U=unique_tokens")
        inputs[name] = column
    return Columns(
        params=args.params, tokens=args.tokens, loss=args.loss, flops=args.flops, run=args.run, seed=args.seed_column, budget=args.budget,
        decayed=args.decayed, inputs=inputs, log10=tuple(args.log10), ln=tuple(args.ln),
    )  # fmt: skip


def selection_of(args: argparse.Namespace) -> Selection:
    """Returns the rows that the arguments choose."""
    return Selection(tuple(args.where), args.drop_duplicates, args.best)


def column_options(args: Optional[argparse.Namespace] = None) -> dict[str, Any]:
    """Returns the options that name columns, their defaults where `args` is None; those that choose rows are a table's own."""
    parser = Parser()
    column_arguments(parser)
    defaults = {name: value for name, value in vars(parser.parse_args([])).items() if name not in ("where", "drop_duplicates", "best")}
    return defaults if args is None else {name: getattr(args, name) for name in defaults}


def draw_arguments(parser: argparse.ArgumentParser, draws: int, what: str) -> "argparse._ArgumentGroup":
    """Adds the options of intervals by draws, and returns their group: `what` says what a draw is."""
    group = parser.add_argument_group("intervals")
    group.add_argument("--draws", type=int, default=draws, help=f"{what} (default: %(default)s)")
    group.add_argument("--level", type=float, default=0.8, help="confidence level of the intervals (default: %(default)s)")
    seed_argument(group)
    return group


def seed_argument(parser: "argparse.ArgumentParser | argparse._ArgumentGroup") -> None:
    parser.add_argument("--seed", type=int, default=0, help="seed of the random draws (default: %(default)s)")


def columns_as(args: argparse.Namespace, known: Mapping[str, Any], path: str) -> None:
    """Sets the options that name columns, where they stand at their defaults, to those by which another table was read.

    What says where a row belongs, its run, seed, budget or schedule, is left out where the file at `path` lacks the column.
    """
    there = formats.read(path).names
    for name, default in column_options().items():
        if getattr(args, name) == default and name in known and (name not in _PLACES or known[name] in there):
            setattr(args, name, known[name])


def check_values(runs: Runs, law: "Law") -> None:
    """Raises a UserError where the values of a table cannot be what its columns say, such as N in millions; prints a caution else."""
    from lm.scaling.diagnostics import plausibility

    for found in plausibility.values(runs, law):
        if isinstance(found, Refusal):
            raise UserError(f"{runs.source}: {found.reason}")
        print(*folded([short(found.message)]), sep="\n", file=sys.stderr)


def table_of(args: argparse.Namespace) -> Runs:
    """Returns the runs of the table that the arguments name, and prints on stderr what was understood of it."""
    return read(args.csv, args)


def read(path: str, args: argparse.Namespace) -> Runs:
    """Returns the runs of a file, read by the columns and rows that the arguments name."""
    made = runs_lib.read_table(path, columns_of(args), selection_of(args))
    print(understood(made), file=sys.stderr)
    return made


def understood(runs: Runs) -> str:
    """Returns a line for each column that was read, with its range, and one for each note on what was left out."""
    rows = [(one.name, one.column or "-", short(f"{one.low:.4g} to {one.high:.4g}"), one.how) for one in runs.read]
    widths = [max(len(row[i]) for row in rows) for i in range(3)] if rows else []
    lines = [f"{runs.source}: {counted(len(runs), 'row')}"]
    lines += ["  " + "  ".join([*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[3]]) for row in rows]
    return "\n".join(lines + [f"  {note}" for note in runs.notes])


def positive_flops(option: str, values: Sequence[float]) -> tuple[float, ...]:
    """Returns the values of an option; UserError unless all are positive and finite."""
    for value in values:
        if not 0 < value < float("inf"):
            raise UserError(f"{option}={value:g}: give a positive number of FLOPs, such as 1e20")
    return tuple(values)


def fix_argument(parser: argparse._ActionsContainer) -> None:
    """Adds the option that fixes inputs of a law, so that compute can be split between the others."""
    text = "fix inputs of the law beside N and D, such as U=1e11, so that compute can be split between N and D"
    parser.add_argument("--fix", nargs="+", default=[], metavar="NAME=VALUE", help=text)


def numbers_of(option: str, pairs: Sequence[str]) -> dict[str, float]:
    """Returns the positive numbers by name of an option's NAME=VALUE pairs."""
    found: dict[str, float] = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        try:
            found[name] = float(value)
        except ValueError:
            raise UserError(f"{option} {pair}: write NAME=VALUE with a number, such as N=1e9") from None
        if not 0 < found[name] < float("inf"):
            raise UserError(f"{option} {pair}: give a positive number")
    return found


def check(args: argparse.Namespace) -> None:
    """Raises a UserError for a file that is not there or an option out of its range, before what takes long is imported."""
    if getattr(args, "seed", 0) < 0:
        raise UserError(f"--seed={args.seed}: give 0 or a positive whole number")
    saved = getattr(args, "fit", None)
    if saved is not None and not pathlib.Path(saved).is_file():
        raise UserError(f"no file {saved}: save a fit with `fit RUNS.csv --save={saved}`")
    files = [getattr(args, name, None) for name in ("csv", "a", "b", "losses", "table")]
    for name in ("tables", "curves", "predict"):
        files += getattr(args, name, [])
    files += [path for paths in getattr(args, "held_out", []) for path in paths]
    for path in filter(None, files):
        formats.require(path)
    positive_flops("--target", getattr(args, "target", []))
    if hasattr(args, "delta"):
        check_objective(args)


def check_objective(args: argparse.Namespace) -> None:
    """Raises a UserError for a setting of an objective that is out of its range."""
    if not 0 < args.delta < float("inf"):
        raise UserError(f"--delta={args.delta:g}: give a positive number, such as 1e-3")
    if not 0 < args.quantile < 1:
        raise UserError(f"--quantile={args.quantile:g}: give a number between 0 and 1, such as .5")


def check_level(level: float) -> None:
    """Raises a UserError for a confidence level that is none."""
    if not 0 < level < 1:
        raise UserError(f"--level={level:g}: give a confidence level between 0 and 1, such as .8")


def check_intervals(args: argparse.Namespace) -> None:
    """Raises a UserError for a confidence level or a number of draws that gives no interval."""
    check_level(args.level)
    if args.draws < 10:
        raise UserError(f"--draws={args.draws}: give 10 draws at least; 1,000 make a steady interval")


def law_of(args: argparse.Namespace) -> "Law":
    """Returns the law that the arguments name."""
    if args.law in catalogue.CURVE_LAWS:
        raise UserError(f"--law={args.law} is fitted to whole loss curves, not to a table: use python -m lm.scaling curves")
    return catalogue.law(args.law)


def objective_of(args: argparse.Namespace) -> "Objective":
    """Returns the objective that the arguments name."""
    check_objective(args)
    from lm.scaling.fits import objectives

    if args.objective == "huber":
        return objectives.HuberLog(args.delta)
    if args.objective == "quantile":
        return objectives.QuantileLog(args.quantile)
    return objectives.OBJECTIVES[args.objective]()


def settings_of(args: argparse.Namespace) -> "TableSettings":
    """Returns the settings of a table's fit that the arguments ask for."""
    check_intervals(args)
    if args.interval not in RESAMPLINGS:
        raise UserError(f"unknown interval {args.interval!r}: {nearest(args.interval, RESAMPLINGS)}")
    law, objective = law_of(args), objective_of(args)
    from lm.scaling.table_analysis import TableSettings

    resampling = RESAMPLINGS[args.interval]()
    return TableSettings(law=law, objective=objective, resampling=resampling, draws=args.draws, level=args.level, seed=args.seed)
