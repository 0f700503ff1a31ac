"""`python -m experiments NAME|PATH/study.py [VERB]` runs a whole study, or one part of it.

Without a verb it does everything that is missing: prepares the data, plans, trains, forecasts, fits, and writes the report.
"""

import argparse
import math
import pathlib
import shlex
import sys
from typing import Optional

from experiments import cost, studies
from experiments.benchmarks import commands as benchmarks
from experiments.commands import Commands
from experiments.planning import Asked
from experiments.search import MOST, Search
from experiments.training import How
from launch import backends
from lm.errors import Parser, UserError, run_cli
from lm.preflight import topologies, wheels
from lm.preflight.topologies import Topology
from lm.train import signals

DATA_DIR = pathlib.Path("runs/data")
PRICES = ("mfu", "at_once", "price", "watts", "co2")
VERBS = {
    "all": "everything below that is still missing (the default)",
    "plan": "prepare the data if need be, print every cell with its counts and time, and write the study's directory",
    "run": "train the cells that are missing; for a grid: the first stage, the forecast, then the second stage",
    "retry": "train the cells that failed again, from their newest checkpoints, and what is missing beside them",
    "status": "show how far the study is, which workers are in a scheduler's queue, and which cells failed or diverged and why",
    "logs": "print the log of a cell's worker: logs CELL [--follow]",
    "cancel": "end the jobs of a scheduler, and with cells (cancel CELL ...) these cells; `retry CELL ...` takes them up again",
    "forecast": "for a grid: predict the losses of the second stage (the largest budget) from the first, before it is trained",
    "fit": "for a grid: fit the scaling laws to the runs and print the exponents with their intervals",
    "collect": "write one table of all runs, runs.csv and runs.parquet, which `python -m lm.scaling fit` reads",
    "report": "write report.html and figures/; for a comparison, print its table too",
}


def _parser() -> Parser:
    verbs = "\n".join(f"  {verb:10s}{meaning}" for verb, meaning in VERBS.items())
    parser = Parser(
        prog="python -m experiments",
        description="Runs a scaling study, or one part of it. The same command continues a study that was interrupted.\n\n"
        f"verbs:\n{verbs}\n\nstudies here: {', '.join(studies.names())}\n"
        "benchmarks: python -m experiments benchmarks --help",
        epilog="Results are in the study's directory: report.html, summary.json (what fit --json prints), forecast.json, cells/.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("study", help="name of a study in the list, or the path of a study.py of your own")
    parser.add_argument("verb", nargs="?", default="all", choices=VERBS, metavar="VERB", help="one of the verbs above (default: all)")
    parser.add_argument(
        "cells", nargs="*", default=[], metavar="CELL", help="with logs, cancel and retry: ids of cells, or their first digits"
    )
    parser.add_argument("--dir", type=pathlib.Path, default=None, help="the study's directory (default: runs/NAME)")
    parser.add_argument("--data-dir", type=pathlib.Path, default=DATA_DIR, help="folder of prepared data (default: %(default)s)")
    parser.add_argument(
        "--workers", type=int, default=None, help="workers at once (default: one per core here; of a scheduler 8 for each size of cells)"
    )
    parser.add_argument("--only", default=None, metavar="CELL,...", help="with run: train these cells alone")
    parser.add_argument("--max-cells", type=int, default=None, metavar="N", help="with run: train the N shortest cells that are missing")
    parser.add_argument("--detach", action="store_true", help="with run --backend: submit what is missing and end")
    parser.add_argument("--follow", "-f", action="store_true", help="with logs: go on while the worker writes")
    parser.add_argument("--watch", action="store_true", help="with status: show it until every cell has ended")
    parser.add_argument(
        "--train", default=None, metavar="MODULE:FUNCTION", help="training function of the workers (default: lm.runner:train_cell)"
    )
    parser.add_argument(
        "--from-start", action="store_true", help="with retry: train failed cells from their start, without their checkpoints"
    )
    parser.add_argument("--json", action="store_true", help="with fit or status: print the results, or the state of every cell, as JSON")
    parser.add_argument(
        "--topology",
        default=None,
        metavar="KIND:DEVICE:SHAPE",
        help="with plan: compile every shape for this hardware, which need not be there, such as tpu:v5p:4x4x4",
    )
    parser.add_argument(
        "--search",
        type=pathlib.Path,
        default=None,
        metavar="FILE",
        help="with plan --topology: find the mesh, remat and micro-batches of every size instead, and write them as a table",
    )
    parser.add_argument(
        "--most", type=int, default=None, metavar="N", help=f"with --search: candidates of a size that are compiled (default: {MOST})"
    )
    parser.add_argument("--calibrate", action="store_true", help="with plan: measure this machine's speed first, by two short runs")
    money = parser.add_argument_group("with plan: what it costs on devices that need not be there")
    money.add_argument("--device", default=None, metavar="KIND:NAME", help=f"the device: {topologies.known()}")
    money.add_argument("--mfu", type=float, default=None, help=f"share of its peak rate that is reached (default: {cost.MFU})")
    money.add_argument(
        "--at-once", type=int, default=None, metavar="DEVICES", help="devices at a time (default: those of the largest cell)"
    )
    money.add_argument("--price", type=float, default=None, help="money for an hour of one device")
    money.add_argument("--watts", type=float, default=None, help="power of one device, with its share of host and cooling")
    money.add_argument("--co2", type=float, default=None, help="kilograms of CO2 for a kilowatt-hour")
    parser.add_argument(
        "--without-data",
        action="store_true",
        help="with plan: do not prepare the data; nothing is written, and what they refuse is not known",
    )
    parser.add_argument("--timeout", type=float, default=None, help="with plan --topology: seconds for each compilation (default: 1800)")
    backends.add_flags(parser)
    return parser


def main(argv: Optional[list[str]] = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["benchmarks"]:
        return benchmarks.main(argv[1:])
    args = _parser().parse_intermixed_args(argv)
    _check(args)
    timeout = 1800.0 if args.timeout is None else args.timeout
    if not 0 < timeout < math.inf:
        raise UserError(f"--timeout={timeout:g}: give a number of seconds above 0")
    topology = None if args.topology is None else topologies.parse(args.topology)
    if topology is not None:
        wheels.require(topology.kind)
    terms = None if args.device is None else cost.terms(args.device, **{name: getattr(args, name) for name in PRICES})
    signals.interrupt()  # stops the workers, as Ctrl-C does
    study = studies.load(args.study)
    root = args.dir or pathlib.Path("runs") / study.name
    # with --json, standard output holds the results alone
    out = sys.stderr if args.json else sys.stdout
    how = How(
        workers=args.workers,
        train=args.train,
        backend=backends.make(args),
        detach=args.detach,
        only=tuple(args.only.split(",")) if args.only else (),
        max_cells=args.max_cells,
    )
    search = None if args.search is None else _search(args.search, args.most, topology, timeout)
    asked = Asked(topology, timeout, terms, args.without_data, args.calibrate, search)
    made = Commands(study, root, args.data_dir, how, out, asked, _retry(args))
    return made.do(args.verb, as_json=args.json, from_start=args.from_start, cells=args.cells, follow=args.follow or args.watch)


def _check(args: argparse.Namespace) -> None:
    """Ends with a line for flags that need another verb or flag."""
    if args.json and args.verb not in ("fit", "status"):
        raise UserError("--json needs the verb fit or status")
    if args.watch and (args.verb != "status" or args.json):
        raise UserError("--watch needs the verb status, without --json")
    if args.from_start and args.verb != "retry":
        raise UserError("--from-start needs the verb retry")
    if args.topology is not None and args.verb != "plan":
        raise UserError("--topology needs the verb plan")
    if (args.device is not None or args.without_data or args.calibrate) and args.verb != "plan":
        raise UserError("--device, --without-data and --calibrate need the verb plan")
    if args.calibrate and args.without_data:
        raise UserError("--calibrate trains on the data: leave out --without-data")
    if args.device is None and any(getattr(args, name) is not None for name in PRICES):
        raise UserError("--mfu, --at-once, --price, --watts and --co2 need --device")
    if args.search is not None and args.topology is None:
        raise UserError("--search needs plan --topology")
    if args.most is not None and (args.search is None or args.most < 1):
        raise UserError(f"--most={args.most}: give 1 or more, with --search" if args.search else "--most needs plan --topology --search")
    if args.timeout is not None and args.topology is None:
        raise UserError("--timeout needs plan --topology")
    if (args.only or args.max_cells is not None or args.detach) and args.verb not in ("run", "retry"):
        raise UserError("--only, --max-cells and --detach need the verb run or retry")
    if args.cells and args.verb not in ("logs", "cancel", "retry"):
        raise UserError(f"{args.cells[0]}: cells are named with logs, cancel and retry; run takes --only")


def _search(path: pathlib.Path, most: Optional[int], topology: Optional[Topology], timeout: float) -> Search:
    assert topology is not None  # `_check` refuses --search without it
    if path.is_dir() or not path.parent.is_dir():
        raise UserError(f"--search={path} cannot be written: name a file in a folder that exists")
    return Search(path, topology, MOST if most is None else most, timeout)


def _retry(args: argparse.Namespace) -> str:
    """Returns the command that trains the failed cells of the same study again."""
    places = {"--dir": args.dir, "--data-dir": args.data_dir, "--workers": args.workers, "--train": args.train}
    flags = [f"{flag}={value}" for flag, value in places.items() if value not in (None, DATA_DIR)]
    return shlex.join(["python", "-m", "experiments", args.study, "retry", *flags])


if __name__ == "__main__":
    run_cli(main)
