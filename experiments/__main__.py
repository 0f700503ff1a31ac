"""`python -m experiments NAME|PATH/study.py [VERB]`: a whole study, or one part of it.

Without a verb, does everything that is missing: prepares the data, plans, runs, forecasts, fits, and writes the report.
"""

import argparse
import math
import pathlib
import signal
import sys
from typing import Optional

from experiments import commands
from lm.errors import UserError, run_cli
from lm.preflight import topologies, wheels

VERBS = {
    "all": "do all that follows, as far as it is missing (the default)",
    "plan": "prepare the data if need be, print every cell, write the study directory; --topology compiles every shape for it",
    "run": "train what is missing; of a grid: first stage, forecast, second stage",
    "status": "say how far the study is",
    "forecast": "of a grid: write the forecast of the largest budget's cells, once the first stage is complete",
    "fit": "of a grid: fit the laws to what has been trained; --json prints them",
    "report": "write report.html and figures/; of a comparison, print its table",
}


def main(argv: Optional[list[str]] = None) -> int:
    verbs = "\n".join(f"  {verb:10s}{what}" for verb, what in VERBS.items())
    names = "studies here: " + ", ".join(commands.names())
    parser = argparse.ArgumentParser(
        prog="python -m experiments",
        description=f"Runs a scaling study, or one part of it.\n\nverbs:\n{verbs}\n\n{names}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("study", help="a name from the list, or a path to a study.py of your own")
    parser.add_argument("verb", nargs="?", default="all", choices=VERBS, metavar="VERB", help="one of the verbs above")
    parser.add_argument("--dir", type=pathlib.Path, default=None, help="the study's directory (default: runs/NAME)")
    parser.add_argument("--data-dir", type=pathlib.Path, default=pathlib.Path("runs/data"), help="prepared data (default: runs/data)")
    parser.add_argument("--workers", type=int, default=None, help="processes, one core each (default: one per core)")
    parser.add_argument("--train", default=None, metavar="MODULE:FUNCTION", help="another training function than lm.runner's")
    parser.add_argument("--json", action="store_true", help="fit: print the results as JSON")
    parser.add_argument("--topology", default=None, metavar="KIND:DEVICE:SHAPE", help="plan: compile every shape for it (lm.preflight)")
    parser.add_argument("--timeout", type=float, default=None, help="plan --topology: seconds for each compilation (default: 1800)")
    args = parser.parse_args(argv)
    if args.json and args.verb != "fit":
        parser.error("--json belongs to the verb fit")
    if args.topology is not None and args.verb != "plan":
        parser.error("--topology belongs to the verb plan")
    if args.timeout is not None and args.topology is None:
        parser.error("--timeout belongs to plan --topology")
    timeout = 1800.0 if args.timeout is None else args.timeout
    if not 0 < timeout < math.inf:
        raise UserError(f"--timeout={timeout:g}: give a number of seconds above 0")
    topology = None if args.topology is None else topologies.parse(args.topology)
    if topology is not None:
        wheels.require(topology.kind)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # stops the workers, as Ctrl-C does
    study = commands.load(args.study)
    root = args.dir or pathlib.Path("runs") / study.name
    # with --json, standard output holds the results alone
    out = sys.stderr if args.json else sys.stdout
    made = commands.Commands(study, root, args.data_dir, args.workers, args.train, out, topology, timeout)
    return made.do(args.verb, as_json=args.json)


if __name__ == "__main__":
    run_cli(main)
