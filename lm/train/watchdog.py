"""Ends a run that makes no progress, after it has printed the stack of every thread (imports no jax)."""

import faulthandler
import threading
import time
from typing import Optional

from lm import peers

_signs = 0  # of progress, counted
TICK = 1.0  # seconds between two looks


def alive() -> None:
    """Says that there is progress: a step, a call of an evaluation, or a save has ended."""
    global _signs
    _signs += 1


class Watchdog:
    """A context in which the process ends with status 75 when nothing has called `alive` for `seconds`; 0: never.

    Time in which the process was suspended does not count.
    """

    def __init__(self, seconds: float):
        self._seconds, self._tick = seconds, min(TICK, seconds / 8)
        self._ended = threading.Event()
        self._thread: Optional[threading.Thread] = None

    def __enter__(self) -> "Watchdog":
        if self._seconds > 0:
            self._thread = threading.Thread(target=self._watch, daemon=True)
            self._thread.start()
        return self

    def _watch(self) -> None:
        seen, silent, last = _signs, 0.0, time.monotonic()
        while not self._ended.wait(self._tick):
            now = time.monotonic()
            silent, last = silent + min(now - last, 2 * self._tick), now
            if seen != _signs:
                seen, silent = _signs, 0.0
            if silent >= self._seconds:
                line = f"error: no step, evaluation or save has ended for {self._seconds:g} s (checkpoint.hang_minutes); {peers.CONTINUES}"
                peers.end_soon(line, peers.LOST, [lambda: faulthandler.dump_traceback(file=2, all_threads=True)])

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
