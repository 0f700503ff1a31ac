"""One side of a benchmark, in a process of its own: `python -m experiments.benchmarks.side MODULE:FUNCTION`.

The function returns (step, facts): a call to be timed, which ends when its result is there, and what is said of this side. Lines come and
go as JSON: first the facts, then for each number that is read the time of that many steps. Between them the process sleeps.
"""

import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

Step = Callable[[], float]  # takes a training step, or the `steps_per_dispatch` of its facts, and returns the last loss
Made = tuple[Step, dict[str, Any]]


def main() -> None:
    name = sys.argv[1]
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    module, _, function = name.partition(":")
    step, facts = getattr(importlib.import_module(module), function)()
    print(json.dumps(facts), file=out, flush=True)
    for line in sys.stdin:
        print(json.dumps(timed(step, int(line), facts.get("steps_per_dispatch", 1))), file=out, flush=True)


def timed(step: Step, steps: int, at_once: int = 1) -> dict[str, float]:
    """Returns the seconds that a step takes, by the clock and of all threads' processor time, and the last loss.

    `at_once` is the number of training steps that a call makes; as many calls are made as `steps` need.
    """
    calls = -(-steps // at_once)
    before, start = os.times(), time.perf_counter()
    losses = [step() for _ in range(calls)]
    steps = calls * at_once
    wall, after = time.perf_counter() - start, os.times()
    user, system = (after.user - before.user) / steps, (after.system - before.system) / steps
    return {"wall": wall / steps, "user": user, "system": system, "loss": losses[-1]}


if __name__ == "__main__":
    main()
