"""Fits scaling laws to a table of runs by one or more approaches.

1: the lower convex hull of loss against compute. 2: the minima of IsoFLOP profiles. 3: a law of N and D, or of other inputs. Prints every
number with its interval, or the reason why the table does not determine it.
"""

import argparse
import dataclasses
import pathlib
import sys
from typing import TYPE_CHECKING, Optional

from lm.errors import UserError, require_local
from lm.scaling.commands import table
from lm.scaling.results import Refusal, to_json
from lm.scaling.words import short

if TYPE_CHECKING:
    from lm.scaling.filters import Filter
    from lm.scaling.runs import Runs
    from lm.scaling.table_analysis import Fitted, TableAnalysis

HELP = "fit scaling laws to a table of runs"
QUALITY = ("duplicates", "too_few", "lopsided", "outlier", "concave", "flat", "edge", "off_centre")  # quality.RULES, which imports scipy


def arguments(parser: argparse.ArgumentParser) -> None:
    table.table_argument(parser)
    text = "approaches to fit (default: 3, and 2 if --budget is given)"
    parser.add_argument("--approach", type=int, nargs="+", choices=(1, 2, 3), default=None, help=text)
    text = "compute at which to report N*, D* and loss, beside the powers of ten within the table"
    parser.add_argument("--target", type=float, nargs="+", default=[], metavar="FLOPS", help=text)
    table.report_arguments(parser)
    parser.add_argument("--save", type=pathlib.Path, metavar="FIT.json", help="save the fitted law for `predict` and `score`")
    table.json_argument(parser)
    table.column_arguments(parser)
    _filter_arguments(parser)
    group = parser.add_argument_group("approach 2")
    text = "curve through the losses of a budget (default: %(default)s)"
    group.add_argument("--curve", choices=("parabola", "cubic", "akima"), default="parabola", help=text)
    text = "regression of the minima on compute; weighted is by their inverse variance (default: %(default)s)"
    group.add_argument("--regression", choices=("plain", "weighted"), default="plain", help=text)
    table.law_arguments(parser)
    table.interval_arguments(parser, chosen=True)
    _further_arguments(parser)
    group = parser.add_argument_group("sensitivity")
    text = (
        "repeat the analysis under other objectives, deltas, curves, regressions, filters and conventions of N, one at a time: how a moves"
    )
    group.add_argument("--sensitivity", action="store_true", help=text)
    text = "columns of N in other conventions, such as non-embedding parameters, for --sensitivity"
    group.add_argument("--params-also", nargs="+", default=[], metavar="COLUMN", help=text)


def _filter_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("filters", "Applied in this order. The law is fitted before and after each.")
    text = "keep rows whose learning rate had decayed, or those in mid-schedule (needs --decayed)"
    group.add_argument("--only", choices=("decayed", "mid_schedule"), help=text)
    group.add_argument("--last-of-run", action="store_true", help="keep the row of each run with the most tokens (needs --run)")
    text = "keep rows whose INPUT (N, D, C, M = D / N or one of --input) lies from LOW to HIGH; can be repeated"
    group.add_argument("--between", nargs=3, action="append", default=[], metavar=("INPUT", "LOW", "HIGH"), help=text)
    group.add_argument("--without-highest", type=int, default=0, metavar="COUNT", help="leave out the COUNT highest losses")
    text = (
        "leave out IsoFLOP profiles by rules, in this order: all, or some of "
        + ", ".join(QUALITY)
        + " (needs --budget; docs/scaling.md says what each does)"
    )
    group.add_argument("--quality", nargs="+", default=[], choices=("all", *QUALITY), metavar="RULE", help=text)


def _further_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("further checks of approach 3")
    text = (
        "intervals by the profile of the objective, for parameters of the law, exponents a and b of N* ~ C^a and D* ~ C^b, or n, d, ratio "
        "(D / N) and loss of the optimum at the last --target (default: at the largest compute of the table)"
    )
    group.add_argument("--profile", nargs="+", default=[], metavar="NAME", help=text)
    text = "fit a density of log loss too: its scale, AICc, and, with --profile, intervals by the profile of its likelihood"
    group.add_argument("--likelihood", choices=("gaussian", "student"), help=text)
    text = "fit the rows up to each budget and predict the rows beyond: errors of loss, and what the N* so chosen would waste"
    group.add_argument("--rolling", action="store_true", help=text)


def run(args: argparse.Namespace) -> int:
    approaches = tuple(args.approach or ((2, 3) if args.budget else (3,)))
    if 3 not in approaches and (args.profile or args.likelihood or args.rolling or args.save):
        raise UserError("--profile, --likelihood, --rolling and --save are of a law: add 3 to --approach")
    if args.quality and not args.budget:
        raise UserError("--quality is of IsoFLOP profiles: name the column of planned budgets with --budget=COLUMN")
    if args.params_also and not args.sensitivity:
        raise UserError("--params-also names further conventions of N for --sensitivity: add it")
    table.check_report(args)
    _check_save(args)
    runs = _table_of(args)
    if strange := [name for name, _, _ in args.between if name not in runs.inputs]:
        raise UserError(f"--between {strange[0]}: no input {strange[0]!r} to filter by: there are {', '.join(runs.inputs)}")
    settings = dataclasses.replace(
        table.settings_of(args), approaches=approaches, curve=args.curve, regression=args.regression, filters=filters_of(args),
        targets=table.positive_flops("--target", args.target), profiles=tuple(args.profile), likelihood=args.likelihood,
        rolling=args.rolling, sensitivity=args.sensitivity,
    )  # fmt: skip
    from lm.scaling import table_analysis, table_summary

    made, fitted = table_analysis.analyse_and_keep(runs, settings)
    if args.save and fitted is not None:
        _save(args, made, fitted)
    elif args.save:
        print(f"nothing saved to {args.save}: the law is refused", file=sys.stderr)
    if args.report:
        _report(args, runs, made, fitted)
    print(to_json(made) if args.json else short(table_summary.render(made)), end="" if args.json else "\n")
    minima = [budget.n_star for budget in made.isoflop.budgets] if made.isoflop and not isinstance(made.isoflop, Refusal) else []
    found = (made.law, made.hull, *minima)
    return 1 if all(part is None or isinstance(part, Refusal) for part in found) else 0


def _table_of(args: argparse.Namespace) -> "Runs":
    """Returns the table, with the further conventions of N as inputs."""
    if not args.params_also:
        return table.table_of(args)
    from lm.scaling.sensitivity import CONVENTION

    further = [f"{CONVENTION}{column}={column}" for column in args.params_also]
    return table.table_of(argparse.Namespace(**vars(args) | {"input": [*args.input, *further]}))


def _report(args: argparse.Namespace, runs: "Runs", made: "TableAnalysis", fitted: "Optional[Fitted]") -> None:
    from lm.scaling.page import provenance, table_page

    print(table_page.write(args.report, made, provenance.provenance(runs, args.command), fitted, args.title), file=sys.stderr)


def _check_save(args: argparse.Namespace) -> None:
    """Raises a UserError for a fit that would be written over the table, or to no JSON file, before anything is computed."""
    if args.save is None:
        return
    require_local(args.save)
    if args.save.suffix != ".json" or args.save.is_dir():
        raise UserError(f"--save={args.save}: give a file that ends in .json")
    if args.save.resolve() == pathlib.Path(args.csv).resolve():
        raise UserError(f"--save={args.save} is the table itself: give another file")


def _save(args: argparse.Namespace, made: "TableAnalysis", fitted: "Fitted") -> None:
    from lm.scaling import saved
    from lm.scaling.table_analysis import LawFit

    cautions = made.law.cautions if isinstance(made.law, LawFit) else ()
    filters = tuple(one.name for one in filters_of(args))
    saved.write(args.save, saved.saved(fitted.law, fitted.cells, fitted.noise, table.column_options(args), filters, cautions))
    print(f"wrote {args.save}", file=sys.stderr)


def filters_of(args: argparse.Namespace) -> tuple["Filter", ...]:
    """Returns the filters that the arguments ask for, in the order of `--help`."""
    if args.last_of_run and not args.run:
        raise UserError("--last-of-run needs the column that names the run of a row: --run=COLUMN")
    if args.without_highest < 0:
        raise UserError(f"--without-highest={args.without_highest}: give a count of rows, such as 5")
    from lm.scaling import filters

    chosen: list[Filter] = []
    if args.only:
        chosen.append(filters.Decayed(args.only == "decayed"))
    if args.last_of_run:
        chosen.append(filters.LastOfRun())
    for name, low, high in args.between:
        try:
            chosen.append(filters.Between(name, float(low), float(high)))
        except ValueError:
            raise UserError(f"--between {name} {low} {high}: give two numbers, such as --between N 1e7 1e9") from None
    if args.without_highest:
        chosen.append(filters.WithoutHighest(args.without_highest))
    if args.quality:
        from lm.scaling.quality import Quality

        chosen += [Quality(rule) for rule in (QUALITY if "all" in args.quality else args.quality)]
    return tuple(chosen)
