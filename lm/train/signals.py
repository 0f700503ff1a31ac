"""Stops a run between steps after SIGTERM or Ctrl-C, so that it saves its state and ends in order. A second signal ends it at once.

A signal to one of several processes stops all of them, after the same step (lm.peers).
"""

import signal
import threading
from types import FrameType
from typing import Any, Optional

from lm import peers

TERMINATED = 143  # exit status after SIGTERM, 128 + 15 as a shell reports it; Ctrl-C ends with 130


class Stop:
    """A context in which `requested` is the signal that asks the run to end, or None. Outside the main thread nothing is caught.

    Several processes have to call `check` at the same points of the run: it returns the same on all of them.
    """

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
        if peers.current is None:
            self.requested = number
        else:
            peers.current.ask_to_stop(number)
        self._restore()  # the next one has its usual effect

    def check(self) -> bool:
        """Says whether the run has to end here."""
        if peers.current is not None:
            self.requested = peers.current.stop_due()
        return self.requested is not None

    def _restore(self) -> None:
        while self._before:
            number, handler = self._before.popitem()
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def __exit__(self, *_: object) -> None:
        self._restore()

    def leave(self) -> None:
        """Ends the process by an exception: KeyboardInterrupt after Ctrl-C, SystemExit(143) after SIGTERM."""
        if self.requested == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(TERMINATED)
