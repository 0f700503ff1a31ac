"""The progress of a run on the screen: a bar on a terminal, plain lines elsewhere, nothing without a log."""

import contextlib
import os
import sys
import time
from collections.abc import Callable
from typing import Any, Optional

from lm.errors import one_line

Log = Callable[[str], None]
SECONDS_PER_LINE = 10.0


def warn(line: str) -> None:
    """Prints a line that a silent run must show too; one that cannot be shown ends no run."""
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr, flush=True)


def show(line: str) -> None:
    """Prints a line on standard output. When that is closed (`| head`) or its disk full, the work goes on without it, and says so once."""
    try:
        print(line, flush=True)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        warn(f"standard output takes no more lines ({one_line(error)}): the work goes on without it")


class Progress:
    """A display of steps, tokens/s, loss and time left: a tqdm bar on stderr on a terminal, lines to `log` elsewhere."""

    def __init__(self, total_steps: int, tokens_per_step: int, start: int, log: Optional[Log], terminal: Optional[bool] = None):
        self._total, self._tokens, self._log, self._first = total_steps, tokens_per_step, log, start
        self._start = self._printed = time.monotonic()
        self._bar: Any = None
        if log is not None and (sys.stderr.isatty() if terminal is None else terminal):
            from tqdm import tqdm

            self._bar = tqdm(total=total_steps, initial=start, unit="step", dynamic_ncols=True)

    def update(self, step: int, loss: float) -> None:
        """Shows that `step` steps are done."""
        now = time.monotonic()
        rate = (step - self._first) * self._tokens / max(now - self._start, 1e-9)
        if self._bar is not None:
            with contextlib.suppress(OSError):  # the terminal was closed
                self._bar.update(step - self._bar.n)
                self._bar.set_postfix_str(f"loss {loss:.4f}, {rate:,.0f} tokens/s")
        elif self._log is not None and (now - self._printed >= SECONDS_PER_LINE or step == self._total):
            self._printed = now
            left = (self._total - step) * self._tokens / max(rate, 1e-9)
            self._print(f"step {step:,}/{self._total:,}  loss {loss:.4f}  {rate:,.0f} tokens/s  {_duration(left)} left")

    def say(self, line: str) -> None:
        """Prints a line above the bar."""
        if self._bar is not None:
            with contextlib.suppress(OSError):
                self._bar.write(line, file=sys.stderr)
        elif self._log is not None:
            self._print(line)

    def _print(self, line: str) -> None:
        assert self._log is not None
        with contextlib.suppress(OSError):  # a full disk or a closed pipe takes the line, not the run
            self._log(line)

    def close(self) -> None:
        if self._bar is not None:
            with contextlib.suppress(OSError):
                self._bar.close()


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
