"""Finds the data mixture with the least loss from runs on other mixtures (RegMix; Liu et al. 2024): the share of each domain with its
interval, and how well the model orders mixtures that were held out.
"""

import argparse
import sys
from typing import TYPE_CHECKING

from lm.errors import UserError, counted
from lm.scaling.commands import table
from lm.scaling.results import to_json
from lm.scaling.words import short

if TYPE_CHECKING:
    from lm.scaling.mixtures.optimum import BestMixture

HELP = "find the data mixture with the least loss"
LINEAR = (
    "a linear loss is lowest where all is of one domain: its best mixture goes as far from the runs as is tried, and says little more than"
    " which domain helps; --model=process or exponential have optima of their own"
)
MODELS = ("process", "exponential", "linear")  # mixtures.models.MODELS, whose import would import scipy


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("csv", metavar="MIXTURES.csv", help="table with a row per run: a column of shares for each domain, and losses")
    parser.add_argument("losses", nargs="?", metavar="LOSSES.csv", help="table of the losses, where they stand in one of their own")
    parser.add_argument("--shares", required=True, metavar="'PATTERN*'", help="pattern of the columns of shares, such as 'train_*'")
    parser.add_argument("--loss", required=True, metavar="COLUMN", help="column of the loss to lower, such as that of one validation set")
    text = "model of the loss (default: %(default)s): a Gaussian process over square roots of shares, the law of Ye et al. 2024, or linear"
    parser.add_argument("--model", choices=MODELS, default="process", help=text)
    text = "further mixtures, with their losses, to judge the model by; can be repeated"
    parser.add_argument("--held-out", nargs="+", action="append", default=[], metavar="FILE", help=text)
    text = "share of each domain, such as its tokens in the corpus, about which mixtures are tried (default: the mean of the runs)"
    parser.add_argument("--about", nargs="+", default=[], metavar="NAME=SHARE", help=text)
    table.json_argument(parser)
    table.draw_arguments(parser, 200, "further functions that the runs also allow")


def run(args: argparse.Namespace) -> int:
    table.check_intervals(args)
    from lm.scaling.mixtures import optimum
    from lm.scaling.mixtures import table as mixture_table
    from lm.scaling.tables import formats

    def read(paths: list[str]) -> mixture_table.Mixtures:
        if len(paths) > 2:
            raise UserError(f"--held-out {' '.join(paths)}: give a table, or a table of mixtures and one of their losses")
        parts = [formats.read(path).columns for path in paths]
        source = " and ".join(paths)
        cells = parts[0] if len(parts) == 1 else mixture_table.joined(parts[0], parts[1], source)
        return mixture_table.mixtures(cells, args.shares, args.loss, source)

    data = read([args.csv, *([args.losses] if args.losses else [])])
    held = {" and ".join(paths): read(paths) for paths in args.held_out}
    about = mixture_table.about(data, table.numbers_of("--about", args.about)) if args.about else None
    made = optimum.best_mixture(data, args.model, args.loss, held, level=args.level, draws=args.draws, seed=args.seed, centre=about)
    if args.model == "linear":
        print(f"caution: {LINEAR}", file=sys.stderr)
    print(to_json(made) if args.json else short(text(made)), end="" if args.json else "\n")
    return 0


def text(made: "BestMixture") -> str:
    """Returns the text of a mixture: its model, how it orders held-out mixtures, and the shares from the largest down."""
    level = f"{made.loss.level:.0%}"
    lines = [
        f"{counted(made.rows, 'mixture')} of {counted(len(made.shares), 'domain')}; {made.target}",
        f"  {made.model}: {made.equation}",
        f"  ({made.source})",
        *(f"  {one.name}: rank correlation {one.spearman:.4f} over {one.mixtures} mixtures that were not fitted" for one in made.held),
        f"  loss of the best mixture {made.loss.value:.4g} ({made.loss.low:.4g} to {made.loss.high:.4g}, {level}); the best run has "
        f"{made.lowest:.4g}",
    ]
    width = max(map(len, made.shares))
    ordered = sorted(made.shares.items(), key=lambda item: -item[1].value)
    lines.append(f"  {'share'.ljust(width)}  of the best mixture ({level})")
    lines += [f"  {name.ljust(width)}  {share.value:.3f}  ({share.low:.3f} to {share.high:.3f})" for name, share in ordered]
    return "\n".join(lines)
