"""`python -m experiments.replications [NAME ...]` replicates published scaling-law analyses with this library."""

import argparse
import dataclasses
import importlib
import pathlib
import sys
import time
from typing import Optional

from experiments.replications import papers, published_numbers, sources
from lm.errors import AGAIN, Parser, UserError, run_cli
from lm.scaling import compile_cache
from lm.scaling.results import to_json


def parse(argv: Optional[list[str]]) -> argparse.Namespace:
    width = max(map(len, papers.PAPERS))
    listed = "\n".join(f"  {paper.name.ljust(width)}  {paper.title} ({paper.source})" for paper in papers.PAPERS.values())
    parser = Parser(
        prog="python -m experiments.replications", epilog=f"names:\n{listed}",
        description="Replicates published scaling-law analyses with this library. Prints a table for each paper: the published number,\n"
        "ours, the target that ours is compared with, the tolerance, and whether ours is within it. The exit status is 1 when a\n"
        "number is missed, 2 when a name or a folder is not there.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("names", nargs="*", metavar="NAME", help="papers to replicate (default: all whose data is there)")
    parser.add_argument(
        "--data",
        type=pathlib.Path,
        metavar="DIR",
        help="folder of the public tables, a folder for each source (see docs/replications.md)",
    )
    parser.add_argument(
        "--published",
        type=pathlib.Path,
        nargs="+",
        default=[],
        metavar="PATH",
        help="clones of the authors' repositories, or files in them: their tables are converted into the folder of --data first",
    )
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    return parser.parse_args(argv)


def main(argv: Optional[list[str]] = None) -> int:
    args = parse(argv)
    if args.published and args.data is None:
        raise UserError("--published needs --data=DIR, the folder into which the tables are converted")
    for line in sources.convert(args.published, args.data) if args.published else ():
        print(line, file=sys.stderr)
    present, left_out = papers.chosen(args.names, args.data)
    for paper in left_out:
        print(f"left out: {papers.absent(paper, paper.missing(args.data), args.data)}", file=sys.stderr)
    if left_out:
        free = "" if args.data else f"; {' and '.join(paper.name for paper in present)} need none"
        print(f"{papers.HOW}{free}", file=sys.stderr)
    made = []
    for paper in present:
        begin = time.perf_counter()
        one = importlib.import_module(f"experiments.replications.{paper.name}").run(args.data)
        seconds = round(time.perf_counter() - begin, 1)
        made.append(dataclasses.replace(one, title=paper.title, source=paper.source, seconds=seconds))
        if not args.json:
            print(published_numbers.block(made[-1]), end="\n\n", flush=True)
    passed, count = sum(one.passed for one in made), sum(len(one.checks) for one in made)
    counted = f"{passed} of {count} checks passed"
    print(to_json({"replications": made, "passed": passed, "count": count}).rstrip() if args.json else counted)
    return 0 if passed == count else 1


if __name__ == "__main__":
    compile_cache.switch_on()
    run_cli(main, AGAIN)
