"""SIGTERM and Ctrl-C: noticed between steps, so that a run saves its state and ends in order. A second one ends at once."""

import signal
import threading
from types import FrameType
from typing import Any, Optional

TERMINATED = 143  # exit status after SIGTERM, 128 + 15 as a shell reports it; Ctrl-C ends with 130


class Stop:
    """A context in which `requested` is the signal that asks the run to end, or None. Outside the main thread nothing is caught."""

    def __init__(self) -> None:
        self.requested: Optional[int] = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Stop":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._request)
        return self

    def _request(self, number: int, frame: Optional[FrameType]) -> None:
        del frame
        self.requested = number
        self._restore()  # the next one has its usual effect

    def _restore(self) -> None:
        while self._before:
            number, handler = self._before.popitem()
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def __exit__(self, *_: object) -> None:
        self._restore()

    def leave(self) -> None:
        """Raises what ends the process: KeyboardInterrupt after Ctrl-C, SystemExit(143) after SIGTERM."""
        if self.requested == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(TERMINATED)
