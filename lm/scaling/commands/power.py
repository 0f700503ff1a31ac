"""The power of a design before it is run: the expected sd of the exponent of N*, and the chance that every IsoFLOP optimum is interior.

The design is a grid (--budgets, --sizes, --spread) or a CSV of planned runs; losses come from a prior law and a noise model.
"""

import argparse
from typing import TYPE_CHECKING

from lm.errors import UserError
from lm.scaling.results import to_json

if TYPE_CHECKING:
    from lm.scaling.coverage import Design

HELP = "power of a design before it is run"
PRIOR = {"A": 477.83, "B": 2143.42, "E": 1.8172, "alpha": 0.3473, "beta": 0.3672}


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("csv", nargs="?", help="a table of planned runs with N, D and, for IsoFLOP minima, --budget; no loss is read")
    group = parser.add_argument_group("design")
    group.add_argument("--budgets", type=float, nargs="+", default=[], metavar="FLOPS", help="of a grid of IsoFLOP profiles")
    group.add_argument("--sizes", type=int, default=7, help="at each budget (default: 7)")
    group.add_argument("--spread", type=float, default=4.0, help="sizes run from N* / spread to N* x spread (default: 4)")
    group.add_argument("--seeds", type=int, default=1, help="of every cell (default: 1)")
    group.add_argument("--off", type=float, default=1.0, help="factor by which the grid's centre misses N* (default: 1)")
    group.add_argument("--params", default="N", metavar="COLUMN", help="parameters of the table (default: N)")
    group.add_argument("--tokens", default="D", metavar="COLUMN", help="tokens of the table (default: D)")
    group.add_argument("--budget", metavar="COLUMN", help="planned FLOPs of the table")
    group.add_argument("--seed-column", metavar="COLUMN", help="seed of the table's runs")
    group = parser.add_argument_group("truth")
    values = ", ".join(f"{name}={value}" for name, value in PRIOR.items())
    text = f"a parameter of L = E + A / N^alpha + B / D^beta; can be repeated (default: Besiroglu et al. 2024, {values})"
    group.add_argument("--prior", action="append", default=[], metavar="NAME=VALUE", help=text)
    text = "relative sd of a loss over seeds (default: sigma(L) of Porian et al. 2024)"
    group.add_argument("--sigma", type=float, help=text)
    parser.add_argument("--studies", type=int, default=4000, help="simulated for the IsoFLOP minima (default: 4000)")
    parser.add_argument("--seed", type=int, default=0, help="of everything drawn at random (default: 0)")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")


def run(args: argparse.Namespace) -> int:
    prior = prior_of(args.prior)
    if bool(args.csv) == bool(args.budgets):
        raise UserError("give one design: a CSV file of planned runs, or --budgets FLOPS ...")
    if args.sigma is not None and not 0 < args.sigma < 1:
        raise UserError(f"--sigma={args.sigma:g}: a relative sd between 0 and 1 is needed, such as .003")
    if args.studies < 100:
        raise UserError(f"--studies={args.studies}: 100 are the least, and 4,000 are steady")
    from lm.scaling.planning import power, text

    made = power.power(design_of(args, prior), args.studies, args.seed)
    print(to_json(made) if args.json else text.power(made), end="" if args.json else "\n")
    return 0


def prior_of(pairs: list[str]) -> dict[str, float]:
    """The parameters of the prior law, the published ones where none are given."""
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
            raise UserError(f"--prior={pair}: a positive number is needed")
    return values


def design_of(args: argparse.Namespace, prior: dict[str, float]) -> "Design":
    """The design that the arguments describe."""
    import numpy as np

    from lm.scaling.coverage import Design
    from lm.scaling.intervals.resampling import PORIAN
    from lm.scaling.laws.law import Chinchilla
    from lm.scaling.planning import power
    from lm.scaling.planning.cells import Constant

    law, values = Chinchilla(), np.array([prior[name] for name in Chinchilla().names])
    if args.csv:
        runs = power.planned(args.csv, args.params, args.tokens, args.budget, args.seed_column)
    else:
        runs = power.grid(law, values, tuple(args.budgets), args.sizes, args.spread, args.seeds, args.off)
    return Design(runs, law, values, PORIAN if args.sigma is None else Constant(args.sigma))
