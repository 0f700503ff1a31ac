"""Measures two sides in alternation, so that what else the machine does meets both (imports no jax)."""

import contextlib
import dataclasses
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from lm.errors import UserError

Times = dict[str, float]  # seconds of a step: wall, user, system (lm's and the peer's own), and its loss


@dataclasses.dataclass(frozen=True)
class Side:
    """A side of a benchmark: the function that makes its step (experiments.benchmarks.side), and its process's environment."""

    made_by: str
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Pair:
    """What two sides measured: their facts, their times of each round, and the machine's load before each round."""

    facts: tuple[dict[str, Any], dict[str, Any]]
    rounds: list[tuple[Times, Times]]
    load: list[float]

    def ratios(self, seconds: Callable[[Times], float]) -> list[float]:
        """Returns how many times as fast the first side is as the second, round by round."""
        return [seconds(theirs) / seconds(ours) for ours, theirs in self.rounds]

    def median(self, side: int, seconds: Callable[[Times], float]) -> float:
        """Returns the median seconds of a step of one side."""
        return statistics.median(seconds(pair[side]) for pair in self.rounds)


def wall(times: Times) -> float:
    """Returns the seconds of a step by the clock."""
    return times["wall"]


def processor(times: Times) -> float:
    """Returns the processor seconds of a step, of all threads, in the program and in the system for it."""
    return times["user"] + times["system"]


def measure(ours: Side, theirs: Side, *, rounds: int, steps: int, say: Callable[[str], None]) -> Pair:
    """Times `steps` steps of one side and then of the other, `rounds` times, after one round of warm-up; the first to go alternates.

    Raises: UserError for a side that cannot be started.
    """
    with contextlib.ExitStack() as stack:
        sides = [stack.enter_context(_started(side)) for side in (ours, theirs)]
        facts = [_answer(side, process) for side, process in zip((ours, theirs), sides, strict=True)]
        pair = Pair((facts[0], facts[1]), [], [])
        for number in range(-1, rounds):
            load, times = os.getloadavg()[0], {}
            for index in (0, 1) if number % 2 else (1, 0):
                times[index] = _ask(sides[index], steps)
            if number < 0:
                continue
            pair.rounds.append((times[0], times[1]))
            pair.load.append(load)
            say(f"round {number + 1}: {_line(times[0])} | {_line(times[1])} | load {load:.1f}")
        return pair


def _line(times: Times) -> str:
    return f"{times['wall']:.3f} s, processor {times['user']:.2f} + {times['system']:.2f} s"


@contextlib.contextmanager
def _started(side: Side) -> Iterator[subprocess.Popen]:
    command = [sys.executable, "-m", "experiments.benchmarks.side", side.made_by]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env={**os.environ, **side.environment}) as process:
        try:
            yield process
        finally:
            process.kill()


def _answer(side: Side, process: subprocess.Popen) -> Any:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise UserError(f"{side.made_by} could not be started; the lines above say why")
    return json.loads(line)


def _ask(process: subprocess.Popen, steps: int) -> Times:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{steps}\n")
    process.stdin.flush()
    return json.loads(process.stdout.readline())
