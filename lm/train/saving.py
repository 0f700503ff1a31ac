"""Saves a run's state beside training, and lets a run train on while its disk is full or fails.

The state is copied to the host's memory, and a thread writes the copy: training waits for a save only when the next one is due. Threads
of several processes meet by calls that are counted apart from those of training (lm.distributed), and take note of a save's end where all
do: when the next one is due.
"""

import contextlib
import itertools
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional

import jax

from lm import distributed
from lm.errors import UserError, one_line
from lm.train import checkpoint, host_copy, record, signals, watchdog
from lm.types import TrainState

_numbers = itertools.count()  # of the saves of this process


class Saver:
    """Writes the checkpoints of a run. `newest` is the step of the newest that is on disk and was read back.

    Args:
      workdir: the work directory.
      keep: the newest checkpoints to keep.
      newest: the step that the run goes on from; None at its start.
      patience: seconds without a new checkpoint after which a save that fails ends the run.
      alarm: prints a line.
      rewind_every: the steps between checkpoints that the run may go back to, the newest of which is kept; None: it never does.
    """

    def __init__(
        self,
        workdir: Path,
        keep: int,
        newest: Optional[int],
        patience: float,
        alarm: Callable[[str], None],
        rewind_every: Optional[int] = None,
    ):
        self.newest = newest
        self.failures = 0  # saves in a row that failed
        self._workdir, self._keep, self._patience = workdir, keep, patience
        self._alarm = alarm if distributed.is_first() else _silent  # what all agree on is said once
        self._rewind_every = rewind_every
        self._known = set() if newest is None else {newest}
        self._since = time.monotonic()
        self._step: Optional[int] = None  # of the save under way
        self._thread: Optional[threading.Thread] = None
        self._error: Optional[BaseException] = None
        self._lacking: Optional[str] = None  # what is not right with a checkpoint that counts
        self._seconds = 0.0  # that the last save took

    @property
    def step(self) -> Optional[int]:
        """The step of the save under way or, without one, of the newest checkpoint."""
        return self.newest if self._step is None else self._step

    @property
    def age(self) -> float:
        """Seconds since there was a new checkpoint, or since the run began or went on."""
        return time.monotonic() - self._since

    def begin(self, step: int, state: TrainState, host: dict[str, Any], run_record: Optional[record.Record] = None) -> None:
        """Begins to write a checkpoint, and run.json after it; waits first for the save under way.

        Raises:
          UserError: the save before this failed, and the newest checkpoint is older than `patience`.
        """
        self.wait()
        self._step, self._error, self._lacking = step, None, None
        host, run_record = record.jsonable(host), record.jsonable(run_record)  # training changes both
        copy = jax.tree.map(host_copy.held, state)
        self._thread = threading.Thread(target=self._write, args=(copy, host, run_record, next(_numbers)), daemon=True)
        self._thread.start()

    def _write(self, state: TrainState, host: dict[str, Any], run_record: Optional[record.Record], number: int) -> None:
        began = time.monotonic()
        try:
            with distributed.counted_apart(f"save/{number}"):
                how: dict[str, Any] = {"keep": self._keep, "known": self._known, "rewind_every": self._rewind_every}
                if not checkpoint.save(self._workdir, state, host, **how):
                    self._lacking = "its name could not be flushed to the disk, so that no older one is removed"
            if run_record is not None:
                try:
                    record.write(self._workdir, run_record)
                except (UserError, OSError) as error:
                    self._lacking = f"{record.FILE} beside it is that of an earlier step: {one_line(error)}"
            self._seconds = time.monotonic() - began
        except BaseException as error:  # raised or told by the thread that trains
            self._error = error

    def poll(self) -> None:
        """Takes note of a save that has ended; raises as `wait` does. Several processes would see it after different steps: they wait."""
        if distributed.count() == 1 and self._thread is not None and not self._thread.is_alive():
            self.wait()

    def wait(self) -> None:
        """Waits for the save under way.

        Raises:
          UserError: it failed, and the newest checkpoint is older than `patience`.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
            self._end()

    def failed(self, step: int, error: BaseException) -> None:
        """Takes note that a save failed; raises as `wait` does, and any error that is not one of the disk."""
        if not isinstance(error, (UserError, OSError)):
            raise error
        if distributed.count() > 1 and not isinstance(error, distributed.AgreedError):  # the others do not know of it
            raise error
        self.failures += 1
        self._error = error
        line = f"the checkpoint of step {step} was not written: {one_line(error)}"
        newest = "there is none" if self.newest is None else f"the newest is of step {self.newest}"
        if distributed.first(lambda: self.age > self._patience):
            raise type(error)(f"{line} (for {self.age / 60:.0f} minutes, which is more than checkpoint.patience_minutes)") from error
        self._alarm(f"ALARM: {line}; {newest}, and training goes on for {(self._patience - self.age) / 60:.0f} minutes without a new one")

    def go_back(self, step: int, *, is_planned: bool) -> None:
        """Removes the checkpoints after `step`, which the run has gone back to and leaves on another way.

        They are set aside where the state it was to go back to is lost (not `is_planned`): they may be all that is left of those steps.
        """
        self.leave()
        known = self._known if is_planned else set()
        distributed.first(lambda: checkpoint.remove_after(self._workdir, step, known))
        self.newest = step or None
        self._known = {known for known in self._known if known <= step}

    def leave(self) -> None:
        """Waits for the save under way, when the run ends for another reason than its outcome."""
        with contextlib.suppress(UserError, OSError):
            self.wait()

    def require(self, step: int) -> None:
        """Raises UserError unless the checkpoint of this step is on disk."""
        self.wait()
        if self.newest != step:
            raise UserError(f"the checkpoint of step {step} was not written: {one_line(self._error) if self._error else 'no save'}")

    def _end(self) -> None:
        step, self._step = self._step, None
        assert step is not None
        if self._error is not None:
            self.failed(step, self._error)
            return
        if self.failures:
            self._alarm(f"checkpoints are written again: step {step}")
        if self._lacking is not None:
            self._alarm(f"ALARM: the checkpoint of step {step} is written, but {self._lacking}")
        self.newest, self.failures, self._since = step, 0, time.monotonic()
        self._known.add(step)
        watchdog.alive()
        if signals.current is not None:
            signals.current.reserve(self._seconds)


def _silent(line: str) -> None:
    del line
