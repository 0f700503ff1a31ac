"""Bad steps: those that the compiled step left out, because a loss or gradient was not finite or a spike (lm.train.step).

The run counts them, keeps what reproduces them (lm.train.bundle), and by its policy trains on, goes back, or ends. Where it goes back, the
batches since then are passed over: so batch k stays a function of (fingerprint, seed, k), and only which batch a step takes has changed.
All that is carried lies in the checkpoints. A run that is killed and goes on meets the same bad steps and decides the same.
"""

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any

from lm.train.config import BadStepsConfig

LISTED = 100  # bad steps that the record lists; all are counted


class Diverged(Exception):
    """Says that a run has more bad steps than it may, or a held-out loss that is not finite; `step` showed it, counted from 1."""

    def __init__(self, step: int, reason: str):
        super().__init__(reason)
        self.step = step


class Rewind(Exception):
    """Says that the run has to go back from a bad step."""

    def __init__(self, step: int):
        super().__init__(f"step {step}")
        self.step = step


class BadSteps:
    """Counts the bad steps of a run. `listed` has their steps and reasons; `rewinds` from where the run went back to where, and the batch
    that it took next."""

    def __init__(self, config: BadStepsConfig, carried: Mapping[str, Any] = {}):
        self._config = config
        self.count = int(carried.get("count", 0))
        self.listed: list[dict[str, Any]] = list(carried.get("listed", []))
        self.rewinds: list[dict[str, int]] = list(carried.get("rewinds", []))
        self._recent: list[int] = list(carried.get("recent", []))  # steps that the bounds look at
        self._in_a_row = int(carried.get("in_a_row", 0))

    def carried(self) -> dict[str, Any]:
        """Returns the argument with which a later process continues; {} where no step was bad."""
        if not self.count:
            return {}
        known = {"count": self.count, "listed": self.listed, "rewinds": self.rewinds}
        return known | {"recent": self._recent, "in_a_row": self._in_a_row}

    def recorded(self) -> dict[str, Any]:
        """Returns the entry of run.json; nothing where no step was bad."""
        return {"bad_steps": {"count": self.count, "listed": self.listed, "rewinds": self.rewinds}} if self.count else {}

    def add(self, step: int, reason: str) -> None:
        """Counts a bad step."""
        if len(self.listed) < LISTED:
            self.listed.append({"step": step, "reason": reason})
        self.count += 1
        follows = bool(self._recent) and (
            self.back_from(step) == self.back_from(self._recent[-1]) if self._config.policy == "rewind" else step == self._recent[-1] + 1
        )
        self._in_a_row = self._in_a_row + 1 if follows else 1
        self._recent = [*(one for one in self._recent if one > step - self._config.window), step]

    def judge(self, reason: str) -> None:
        """Decides what follows from the last bad step.

        Raises:
          Diverged: the run may have no more of them.
          Rewind: it has to go back.
        """
        config, step = self._config, self._recent[-1]
        if config.policy == "stop":
            raise Diverged(step, reason)
        if self._in_a_row >= config.in_a_row:
            what = f"returns to step {self.back_from(step)}" if config.policy == "rewind" else "bad steps in a row"
            raise Diverged(step, f"{reason}; {self._in_a_row} {what}")
        if len(self._recent) > config.share * config.window:
            raise Diverged(step, f"{reason}; {len(self._recent)} of the last {config.window} steps were bad")
        if config.policy == "rewind":
            raise Rewind(step)

    def back_from(self, step: int) -> int:
        """Returns the step of the newest state before a bad step that the policy rewind goes back to."""
        return (step - 1) // self._config.rewind_every * self._config.rewind_every

    def go_back(self, step: int, to: int) -> None:
        """Takes note that the run goes on from the state after step `to`, with the batch after that of the bad step."""
        batch = self.batch_of(step - 1) + 1
        self.rewinds = [one for one in self.rewinds if one["to"] < to] + [{"step": step, "to": to, "batch": batch}]

    def batch_of(self, done: int) -> int:
        """Returns the number of the batch that the step after `done` steps takes."""
        passed = next((one["batch"] - one["to"] for one in reversed(self.rewinds) if one["to"] <= done), 0)
        return done + passed

    def batches(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Yields the ranges of batches that the steps after `start` up to `stop` took."""
        turns = sorted({start, stop, *(one["to"] for one in self.rewinds if start < one["to"] < stop)})
        for first, last in itertools.pairwise(turns):
            yield self.batch_of(first), self.batch_of(first) + last - first


def reason_of(loss: float, grad_norm: float) -> str:
    """Returns why a step was left out, as a phrase."""
    for name, value in (("loss", loss), ("grad_norm", grad_norm)):
        if not math.isfinite(value):
            return f"{name} is {value}"
    return f"loss {loss:.4g} with grad_norm {grad_norm:.4g} is a spike"
