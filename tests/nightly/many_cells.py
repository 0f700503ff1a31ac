"""Times a study of 10,000 cells: planned, written, read by `status` with 500 workers at work, and asked for the next cell by one of them.

    python -m tests.nightly.many_cells

Prints the seconds of each, and ends with 1 where planning takes more than 10 s or `status` more than 2 s. Both are of a quiet machine.
"""

import argparse
import json
import os
import pathlib
import random
import sys
import tempfile
import time
from collections.abc import Sequence

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

import small_study

from launch import table
from lm import files, machine
from lm.study import directory, index, order, plan, plan_table, records, worker
from lm.study import status as status_lib
from lm.study.study import Budget

CELLS, WORKERS, FINISHED = 10_000, 500, 4_000
PLAN_SECONDS, STATUS_SECONDS = 10.0, 2.0


def main() -> int:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    budgets = tuple(Budget(2e11 * 1.02**i, (2,), repeats=(2,)) for i in range(100))
    study = small_study.small(budgets=budgets, seeds=tuple(range(1, CELLS // 100)))
    taken: dict[str, float] = {}

    def timed(name: str, action):
        start = time.perf_counter()
        result = action()
        taken[name] = time.perf_counter() - start
        print(f"{name:42s}{taken[name]:6.2f} s", flush=True)
        return result

    made = timed("plan", lambda: plan.make(study, small_study.DATA))
    timed("its table", lambda: plan_table.render(made, 2))
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder) / "s"
        content = timed("its directory", lambda: directory.write(made, root, root.parent / "data"))
        _at_work(root, content["cells"])
        index.SETTLED_SECONDS = -60.0  # the records were written this minute, and those of a study at work were not
        timed("status, of records that nobody has read", lambda: status_lib.read_status(root))
        state = timed("status", lambda: status_lib.read_status(root))
        timed("its table ", lambda: table.render(state, root, "retry"))
        assert (len(state.cells), state.count("running"), state.count("completed")) == (CELLS, WORKERS, FINISHED)
        free = timed("the cells that a worker may take", lambda: worker.pending(root, content, set()))
        best = timed("their order", lambda: list(order.order(root, free, None, is_first=True)))
        for name, places in (("", [0] * WORKERS), (", each at its place in an array", range(WORKERS))):
            tried, longest = _claims(best, places)
            print(f"{WORKERS} workers that begin at once{name}: {tried:,} claims tried, at most {longest} by one")
        print(f"one after another they would try {WORKERS * (WORKERS + 1) // 2:,}, at most {WORKERS} by one")
    too_long = taken["plan"] + taken["its table"] > PLAN_SECONDS or taken["status"] + taken["its table "] > STATUS_SECONDS
    return int(too_long)


def _claims(cells: list[dict], places: Sequence[int]) -> tuple[int, int]:
    """Returns how many claims workers try that look at the same moment and then try by turns: all, and the most of one."""
    tries = [order.spread(cells, place, random.Random(i)) for i, place in enumerate(places)]
    taken: set[str] = set()
    tried = rounds = 0
    while tries:
        tried, rounds, losers = tried + len(tries), rounds + 1, []
        for one in tries:
            cell = next(one)["id"]
            losers += [one] if cell in taken else []
            taken.add(cell)
        tries = losers
    return tried, rounds


def _record(cell: dict) -> dict:
    """A record of the size of real ones: 13 kB, most of which is the curve and the configuration."""
    points = [{"step": 37 * i, "tokens": 75_776 * i, "nats_per_byte": 2.0 + 1 / i, "flops": 1.23456e9 * i} for i in range(1, 61)]
    configuration = {f"part{i}": {"a_setting": 1.25e-3, "another": "a value", "third": None} for i in range(50)}
    final, seconds = {"nats_per_byte": 1.5}, {"total": 1.0}
    record = {"id": cell["id"], "status": "completed", "likelihood": "text", "final": final, "seconds": seconds, "curve": points}
    return record | {"experiment": configuration}


def _at_work(root: pathlib.Path, cells: list[dict]) -> None:
    """Ends the first cells, and lets workers of another machine hold the next."""
    for cell in cells[:FINISHED]:
        path = root / "cells" / cell["id"] / "run.json"
        files.write_json(path, records.sealed(_record(cell), 1))
    for i, cell in enumerate(cells[FINISHED : FINISHED + WORKERS]):
        owner = machine.process() | {"host": f"node{i}", "checkpoint": -1, "time": time.time()}
        epoch = root / "cells" / cell["id"] / "epoch-000001"
        epoch.mkdir()
        (epoch / "metrics.jsonl").write_text('{"step": 100, "loss": 2.0, "tokens_per_second": 1000}\n' * 50, encoding="utf-8")
        path = root / "cells" / cell["id"] / "claims" / "000001"
        path.write_text(json.dumps(owner), encoding="utf-8")
        os.utime(path)


if __name__ == "__main__":
    sys.exit(main())
