"""Predicts the power of a design before it is run: the standard deviation of the exponent a of N* ~ C^a, by a law and by IsoFLOP minima,
the probability that the optimum of every budget lies within its sizes, and the standard deviation of N* beyond the design.

The design is a grid (--budgets, --sizes, --spread) or a CSV file of planned runs. Losses follow a prior law and a noise model.
"""

import argparse
import sys
from typing import TYPE_CHECKING

from lm.errors import UserError
from lm.scaling.commands import table
from lm.scaling.results import Refusal, to_json
from lm.scaling.runs import Columns
from lm.scaling.words import short

if TYPE_CHECKING:
    from lm.scaling.coverage import Design
    from lm.scaling.planning.power import Power

HELP = "predict the power of a design before it is run"
PRIOR = {"A": 477.83, "B": 2143.42, "E": 1.8172, "alpha": 0.3473, "beta": 0.3672}


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("csv", nargs="?", metavar="PLANNED.csv", help="table of planned runs; its losses are not read")
    table.json_argument(parser)
    table.report_arguments(parser)
    text = "compute beyond the design at which to foresee N* (default: ten times its largest)"
    parser.add_argument("--target", type=float, nargs="+", default=[], metavar="FLOPS", help=text)
    group = parser.add_argument_group("design as a grid of IsoFLOP profiles")
    group.add_argument("--budgets", type=float, nargs="+", default=[], metavar="FLOPS", help="compute of each profile")
    group.add_argument("--sizes", type=int, default=7, help="sizes of a profile (default: %(default)s)")
    group.add_argument("--spread", type=float, default=4.0, help="sizes run from N* / SPREAD to N* x SPREAD (default: %(default)g)")
    group.add_argument("--seeds", type=int, default=1, help="seeds of every size (default: %(default)s)")
    group.add_argument("--off", type=float, default=1.0, help="factor by which the grid's centre misses N* (default: %(default)g)")
    group = parser.add_argument_group("design as a table")
    group.add_argument("--params", metavar="COLUMN", help="number of parameters N (default: N, or a known name)")
    group.add_argument("--tokens", metavar="COLUMN", help="number of training tokens D (default: D, or a known name)")
    group.add_argument("--budget", metavar="COLUMN", help="planned FLOPs; needed for IsoFLOP minima")
    group.add_argument("--seed-column", metavar="COLUMN", help="seed (default: a seed per run)")
    group = parser.add_argument_group("prior law and noise")
    values = ", ".join(f"{name}={value}" for name, value in PRIOR.items())
    text = f"parameter of L = E + A / N^alpha + B / D^beta; can be repeated (default: Besiroglu et al. 2024, {values})"
    group.add_argument("--prior", action="append", default=[], metavar="NAME=VALUE", help=text)
    text = "relative standard deviation of a loss over seeds (default: sigma(L) of Porian et al. 2024)"
    group.add_argument("--sigma", type=float, help=text)
    text = "studies to simulate for the IsoFLOP minima (default: %(default)s)"
    group.add_argument("--studies", type=int, default=4000, help=text)
    table.seed_argument(group)


def run(args: argparse.Namespace) -> int:
    prior = prior_of(args.prior)
    if bool(args.csv) == bool(args.budgets):
        raise UserError("give one design: a CSV file of planned runs, or --budgets=FLOPS")
    if args.sigma is not None and not 0 < args.sigma < 1:
        raise UserError(f"--sigma={args.sigma:g}: give a relative standard deviation between 0 and 1, such as .003")
    if args.studies < 100:
        raise UserError(f"--studies={args.studies}: give 100 studies at least; 4,000 make steady numbers")
    table.check_report(args)
    from lm.scaling.planning import power, text

    design = design_of(args, prior)
    made = power.power(design, args.studies, args.seed, table.positive_flops("--target", args.target))
    if args.report:
        _report(args, made, design)
    print(to_json(made) if args.json else short(text.power(made)), end="" if args.json else "\n")
    return 1 if isinstance(made.sd, Refusal) and isinstance(made.isoflop, Refusal) else 0


def _report(args: argparse.Namespace, made: "Power", design: "Design") -> None:
    from lm.scaling.page import power_page, provenance

    sigma = "sigma(L) of Porian et al. 2024" if args.sigma is None else f"{args.sigma:g} of the loss"
    settings = {"noise of a run": sigma, "simulated studies": f"{args.studies:,}", "seed": str(args.seed)}
    said = provenance.provenance(design.runs, args.command)
    print(power_page.write(args.report, made, design, said, settings, args.title), file=sys.stderr)


def prior_of(pairs: list[str]) -> dict[str, float]:
    """Returns the parameters of the prior law: the published ones, but for those given."""
    values = dict(PRIOR)
    for pair in pairs:
        name, _, value = pair.partition("=")
        if name not in PRIOR:
            raise UserError(f"--prior={pair}: write NAME=VALUE with one of {', '.join(PRIOR)}")
        try:
            values[name] = float(value)
        except ValueError:
            raise UserError(f"--prior={pair}: {value!r} is not a number") from None
        if not 0 < values[name] < float("inf"):
            raise UserError(f"--prior={pair}: give a positive number")
    return values


def design_of(args: argparse.Namespace, prior: dict[str, float]) -> "Design":
    """Returns the design that the arguments describe."""
    import numpy as np

    from lm.scaling.coverage import Design
    from lm.scaling.intervals.resampling import PORIAN
    from lm.scaling.laws.law import Chinchilla
    from lm.scaling.planning import power
    from lm.scaling.planning.cells import Constant

    law, values = Chinchilla(), np.array([prior[name] for name in Chinchilla().names])
    if args.csv:
        runs = power.planned(args.csv, Columns(args.params, args.tokens, budget=args.budget, seed=args.seed_column))
    else:
        runs = power.grid(law, values, tuple(args.budgets), args.sizes, args.spread, args.seeds, args.off)
    return Design(runs, law, values, PORIAN if args.sigma is None else Constant(args.sigma))
