"""Requests to end a run in order, which are signals and a limit on its time, and what becomes of them (imports no jax).

While a run trains, the first request makes it save its state after the step or the call of an evaluation that is under way. Where nothing
has to be saved (data are prepared, programs are compiled) the process ends at once, and after a second signal it does so always.

A thread receives the signals of a command, because Python's own handlers run in the main thread, which may be in a compiler for minutes.
A request to one of several processes ends all of them after the same step (lm.peers).
"""

import contextlib
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Optional

from lm import interrupts, peers
from lm.errors import UserError, status_after
from lm.train import watchdog

NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")  # what terminals, schedulers and people send
LEASE = 0  # stands for a signal: a study's worker has lost its cell
SAME = 0.2  # seconds in which signals are one request: timeout(1), srun and terminals send one twice, systemd SIGTERM and SIGHUP
SHARE, MOST = 0.05, 120.0  # of the time, and seconds: what is left for the end while no save was timed
_BEGAN = time.monotonic()  # about when the process did

current: Optional["Stop"] = None  # the innermost one in use


class Stopping(Exception):
    """Says that work which can be given up was, because the run has to end."""


class Stop:
    """A context in which `requested` is the signal that asks the run to end, or None. Outside the main thread nothing is caught.

    Several processes have to call `check` at the same points of the run: it returns the same on all of them.

    Args:
      at_once: whether the process ends at once where there is nothing to save and after a second signal, which commands want. Otherwise
        a second signal has the effect that it had before.
      seconds: time from now in which the process has to end; None: no limit.
    """

    def __init__(self, *, at_once: bool = False, seconds: Optional[float] = None):
        self.requested: Optional[int] = None
        self._asked: Optional[int] = None  # the first signal that asked for the end, by which LEASE is overruled
        self.last_acts: list[Callable[[], None]] = []  # what is done before the process ends at once
        self._at_once, self._seconds = at_once, seconds
        self._deadline, self._margin = 0.0, 0.0
        self._has_state = False
        self._abandons, self._unread = False, 0  # whether the next SIGTERM is this program's own, and how many of those wait in the pipe
        self._before: dict[int, Any] = {}
        self._outer: Optional[Stop] = None
        self._wakeup: Optional[tuple[int, int]] = None  # the end of the pipe that signals are written to, and what was in its place

    def __enter__(self) -> "Stop":
        global current
        self._outer, current = current, self
        peers.last_acts = self.last_acts
        if threading.current_thread() is threading.main_thread():
            names = (*NAMES, "SIGALRM") if self._seconds is not None else NAMES
            for number in (getattr(signal, name) for name in names if hasattr(signal, name)):
                if signal.getsignal(number) != signal.SIG_IGN:  # nohup, say
                    self._before[number] = signal.signal(number, self._request)
            if self._at_once:
                reader, writer = os.pipe()
                os.set_blocking(writer, False)
                self._wakeup = writer, signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
                threading.Thread(target=self._receive, args=(reader, frozenset(self._before)), daemon=True).start()
        if self._seconds is not None:
            self._deadline = time.monotonic() + self._seconds
            self.reserve(min(SHARE * self._seconds, MOST) / 2)
        return self

    def _request(self, number: int, frame: Any) -> None:
        """Takes a signal in the main thread."""
        del frame
        if self._abandons:
            self._abandons = False
            raise KeyboardInterrupt
        if not self._at_once:
            self.ask(number)
            if number != signal.SIGALRM:
                self._restore()  # the next one has its usual effect
        elif self._has_state:
            self.ask(number)

    def _receive(self, reader: int, known: frozenset[int]) -> None:
        """Takes the signals of this process in a thread, whatever the main thread does."""
        first: Optional[float] = None
        while byte := os.read(reader, 1):
            number, now = byte[0], time.monotonic()
            if self._unread and number == signal.SIGTERM:
                self._unread -= 1
                continue
            is_limit = number == signal.SIGALRM
            if number not in known or (first is not None and (is_limit or now - first < SAME)):
                continue
            if first is not None or not (self._has_state or peers.current is not None):
                self._end(number)
            if not is_limit:  # a scheduler's signal comes about when the time is over: the two are one request
                first = now
            self.ask(number)
        os.close(reader)

    def _end(self, number: int) -> None:
        what = "the time is over" if number == signal.SIGALRM else f"ended by {signal.Signals(number).name}"
        peers.end_soon(f"{what}; the same command continues from what is on disk", status_after(number), self.last_acts)

    def ask(self, number: int) -> None:
        """Asks the run to end, as a signal does. The limit on the time has no effect from then on, and the save may take what is left."""
        if number != LEASE:
            self._asked = self._asked or number
            if self._seconds is not None:
                signal.setitimer(signal.ITIMER_REAL, 0)
        if peers.current is not None:
            peers.current.ask_to_stop(number)
        elif self.requested in (None, LEASE):
            self.requested = number

    def abandon(self) -> None:
        """Makes the main thread leave its work, without an end of the process: after the step under way, or by KeyboardInterrupt."""
        if self._has_state or signal.SIGTERM not in self._before:
            self.ask(LEASE)
            return
        self._abandons, self._unread = True, self._unread + self._at_once
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)  # which also ends a wait

    def go_on(self) -> None:
        """Forgets that work was abandoned. A signal that came meanwhile stays."""
        self.requested = None if self.requested == LEASE else self.requested
        if self._asked is not None:  # also one that came within the line before
            self.requested = self.requested or self._asked

    def check(self) -> bool:
        """Says whether the run has to end here."""
        if peers.current is not None:
            self.requested = peers.current.stop_due()
        return self.requested is not None

    @contextlib.contextmanager
    def with_state(self) -> Iterator[None]:
        """Says that there is a state which has to be saved before the process ends."""
        self._has_state = peers.has_state = True
        try:
            yield
        finally:
            self._has_state = peers.has_state = False

    def reserve(self, seconds: float) -> None:
        """Says how long a save takes. A limit on the time leaves as long for twice the longest."""
        if self._seconds is not None and self._asked is None and 2 * seconds > self._margin:
            self._margin = 2 * seconds
            signal.setitimer(signal.ITIMER_REAL, max(self._deadline - self._margin - time.monotonic(), 1e-3))

    def _restore(self) -> None:
        while self._before:
            number, handler = self._before.popitem()
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def __exit__(self, *_: object) -> None:
        global current
        current = self._outer
        peers.last_acts = self._outer.last_acts if self._outer is not None else []
        if self._seconds is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)
        self._restore()
        if self._wakeup is not None:
            writer, before = self._wakeup
            signal.set_wakeup_fd(before)
            os.close(writer)

    def leave(self) -> None:
        """Ends the process by an exception: KeyboardInterrupt after Ctrl-C, SystemExit with the status of another signal."""
        if self.requested is None or self.requested == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(status_after(self.requested))


@contextlib.contextmanager
def stopping() -> Iterator[Stop]:
    """Uses the `Stop` of the command, or one of its own where a program calls the training."""
    if current is not None:
        yield current
        return
    with Stop() as stop:
        yield stop


def look() -> None:
    """Says that work goes on. Raises Stopping where a run that has a state to save was asked to end."""
    watchdog.alive()
    if current is not None and current._has_state and current.check():
        raise Stopping


def interrupt() -> None:
    """Lets every signal of `NAMES` act as Ctrl-C does, with a status of its own: for commands that have to end others before them."""

    for number in (getattr(signal, name) for name in NAMES[1:] if hasattr(signal, name)):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, interrupts.raised)


def seconds_left(limit: Optional[str], environment: Mapping[str, str]) -> Optional[float]:
    """Returns the seconds in which the process has to end; None without a limit.

    Args:
      limit: the flag's text: "none", or a duration from the start of the process. Without it the limit is the end of the SLURM job.
      environment: the process's, where SLURM (22.05 and later) gives SLURM_JOB_END_TIME in seconds since 1970.
    """
    if limit is not None:
        return None if limit == "none" else max(duration(limit) - (time.monotonic() - _BEGAN), 1.0)
    end = environment.get("SLURM_JOB_END_TIME", "")
    return max(int(end) - time.time(), 1.0) if end.isdecimal() and int(end) else None


def duration(text: str) -> float:
    """Returns the seconds of a duration: 90s, 45m, 2h30m, 1d12h, or SLURM's 1:30:00 and 1-12:00:00. A number alone has no unit: refused."""
    units = re.fullmatch(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", text)
    clock = re.fullmatch(r"(?:(\d+)-)?(\d+):(\d\d):(\d\d)", text)
    found = (units or clock) if text else None
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups()) if found else (0, 0, 0, 0)
    total = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    if not total:
        raise UserError(f"--time_limit={text}: give a time with its unit, such as 90s, 45m, 2h30m or 1:30:00, or none")
    return float(total)
