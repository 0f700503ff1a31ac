"""Watches the processes of one run: whether all are alive, why one ends, and the step at which all stop after a signal.

Every process sends heartbeats: it increments a key in the store of JAX's coordination service, which runs in process 0. Process 0 watches
the heartbeats of all others, and these watch the ones of process 0. A process that is silent for the time limit is named in a note that all
others read, and all end with one line.

    lm/beat/I         a number that process I increments        lm/notes/failed/I   why process I ends
    lm/notes/gone     which process is silent                   lm/notes/stop       the signal that asks the run to end
    lm/calls/I        how often process I has asked to stop     lm/notes/stop_at    at which of these calls all do

(imports no jax).
"""

import contextlib
import ctypes
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, Optional

from lm.errors import UserError, one_line, status_after

LOST = 75  # exit status when another process is lost: EX_TEMPFAIL, "try again"
CONTINUES = "the same command continues from the last checkpoint"
BEGINS = "the same command continues from what is on disk"
TICK = 0.5  # seconds between two looks at the clock
LINGER = 10  # seconds that process 0 waits for the others to read its reason

current: Optional["Watch"] = None  # the watch of this process, while it trains with others
has_state = False  # whether this process has something to save before it ends (lm.train.signals says so)
last_acts: list[Callable[[], None]] = []  # what it does before it ends at once


class Watch:
    """The watch of one process over the others. `client` is the client of JAX's coordination service; `timeout` is in seconds."""

    def __init__(self, client: Any, index: int, count: int, coordinator: str, timeout: float):
        self.index, self.count = index, count
        self.stopped: Optional[int] = None  # the signal for which all processes have stopped at one step
        self._client, self._timeout, self._coordinator = client, timeout, coordinator
        self._interval = min(1.0, timeout / 10)
        self._asked: Optional[int] = None  # a signal that this process has received
        self._calls = 0
        self._stop: Optional[tuple[int, int]] = None  # (number of the call at which all stop, signal)
        self._lock, self._held, self._told = threading.Lock(), False, False  # holds back the next call; has told the calls so far
        self._awake = self._heard = 0.0  # seconds without those of suspension: until now, and until the store's last answer
        self._beats: dict[int, tuple[str, float]] = {}
        self._ended, self._failing = threading.Event(), False
        self.post(f"lm/host/{index}", socket.gethostname())
        on_abort(f"error: the connection to process 0 at {coordinator} broke, most likely because it is gone; {CONTINUES}")
        self.post(f"lm/beat/{index}", "0")
        for work in (self._clock, self._beat):
            threading.Thread(target=work, daemon=True).start()

    # ---- the store ----------------------------------------------------------------------------------------------------------

    def post(self, key: str, value: str) -> None:
        text = value.encode("utf-8", "replace").decode()  # the name of a file need not be UTF-8, and the store's values are
        self._client.key_value_set(key, text, allow_overwrite=True)

    def read(self, key: str) -> str:
        """Waits for a key and returns its value. The wait has no limit, because a lost process ends this one."""
        while True:
            try:
                return self._client.blocking_key_value_get(key, 10_000)
            except RuntimeError as error:  # only its text tells a time-out
                if "DEADLINE_EXCEEDED" not in str(error):
                    raise

    def read_by_all(self, key: str, readers: int) -> str:
        """Waits for a key and returns its value. The last of so many readers removes the key."""
        value = self.read(key)
        with contextlib.suppress(RuntimeError):
            if self._client.key_value_increment(f"{key}/read", 1) >= readers:
                self.forget(key)  # and what is below it
        return value

    def forget(self, key: str) -> None:
        """Removes a key that nobody reads any more."""
        with contextlib.suppress(RuntimeError):
            self._client.key_value_delete(key)

    def _all(self, folder: str) -> dict[str, str]:
        return {key.removeprefix(folder): value for key, value in self._client.key_value_dir_get(folder)}

    # ---- alive --------------------------------------------------------------------------------------------------------------

    def _clock(self) -> None:
        """Ends this process when the store, which runs in process 0, does not answer."""
        last = time.monotonic()
        while not self._ended.wait(TICK):
            now = time.monotonic()
            self._awake += min(now - last, 4 * TICK)
            last = now
            if self._awake - self._heard > self._timeout + (LINGER if self._failing else 0):  # _linger may be waiting
                end(f"error: {self._silent(0, self._coordinator)}", LOST)

    def _beat(self) -> None:
        number = 0
        while not self._ended.wait(self._interval):
            number += 1
            try:
                self.post(f"lm/beat/{self.index}", str(number))
                notes = self._all("lm/notes/")
                beats = self._all("lm/beat/") if self.index == 0 else {"0": self._client.key_value_try_get("lm/beat/0")}
            except RuntimeError:  # the store does not answer: _clock ends this process if that lasts
                continue
            self._heard = self._awake
            with contextlib.suppress(RuntimeError):
                self._read_notes(notes)
                self._look_at(beats)
                self._agree_to_stop(notes)

    def _read_notes(self, notes: dict[str, str]) -> None:
        failed = next((name for name in notes if name.startswith("failed/")), None)
        if "gone" in notes:
            self._give_way(notes["gone"])
        elif failed is not None:
            self._give_way(notes[failed])

    def _look_at(self, beats: dict[str, str]) -> None:
        for process in range(self.count) if self.index == 0 else [0]:
            value = beats.get(str(process), "")
            before, since = self._beats.setdefault(process, (value, self._awake))
            if value != before:
                self._beats[process] = (value, self._awake)
            elif self._awake - since > self._timeout:
                self._name_gone(process)

    def _silent(self, process: int, where: str) -> str:
        return f"process {process} of {self.count} ({where}) is gone: no heartbeat for {self._timeout:.0f} s; {CONTINUES}"

    def _name_gone(self, process: int) -> NoReturn:
        self._failing = True
        text = self._silent(process, self._all("lm/host/").get(str(process), "its host"))
        if self.index == 0:
            with contextlib.suppress(RuntimeError):
                self.post("lm/notes/gone", text)
            self._linger(but=1)
        end(f"error: {text}", LOST)

    # ---- ending -------------------------------------------------------------------------------------------------------------

    def leave(self) -> None:
        """Waits until all processes have reached the end, and ends with them."""
        self.post(f"lm/left/{self.index}", "")
        for process in range(self.count):
            self.read(f"lm/left/{process}")
        import jax

        self._client.wait_at_barrier("lm/end", int(1000 * self._timeout))
        self._ended.set()
        jax.distributed.shutdown()
        signal.signal(signal.SIGABRT, signal.SIG_DFL)

    def fail(self, error: BaseException) -> NoReturn:
        """Ends this process after an error and tells the others why. If another's end has caused the error, it names that process."""
        if is_of_connection(error):
            self._await_cause()
        self._failing = True
        status, line = _status_and_line(error)
        text = f"{type(error).__name__}: {one_line(error)}" if status == 1 else one_line(error) or type(error).__name__
        where = f"process {self.index} of {self.count} ({socket.gethostname()})"
        try:
            with contextlib.suppress(RuntimeError):
                self.post(f"lm/notes/failed/{self.index}", f"{where} ended: {text}; {CONTINUES}")
                self.post(f"lm/read/{self.index}", "")  # no one needs to wait for this process
            if line is None:
                traceback.print_exception(error)
            elif line:
                print(line, file=sys.stderr)
            self._linger()
        finally:
            end("", status)

    def _await_cause(self) -> None:
        """Waits after a broken connection, because the threads end this process once they know whose end broke it.

        Returns if all processes live and have such an error.
        """
        deadline = time.monotonic() + self._timeout + 10
        with contextlib.suppress(RuntimeError):
            self.post(f"lm/broken/{self.index}", "")
            while time.monotonic() < deadline and len(self._all("lm/broken/")) < self.count:
                time.sleep(TICK)

    def _give_way(self, text: str) -> None:
        """Ends this process because another has ended, unless it is about to end with a reason of its own."""
        with contextlib.suppress(RuntimeError):
            self.post(f"lm/read/{self.index}", "")
        if self._failing:
            return
        time.sleep(2 * TICK)
        if not self._failing:
            self._failing = True
            self._linger()
            end(f"error: {text}", LOST)

    def _linger(self, but: int = 0) -> None:
        """Lets process 0, which runs the store, wait until all but `but` others have read why all end."""
        deadline = time.monotonic() + LINGER
        while self.index == 0 and time.monotonic() < deadline:
            with contextlib.suppress(RuntimeError):
                if len([name for name in self._all("lm/read/") if name != "0"]) >= self.count - 1 - but:
                    time.sleep(4 * TICK)
                    return
            time.sleep(TICK / 5)

    # ---- stopping -----------------------------------------------------------------------------------------------------------

    def ask_to_stop(self, number: int) -> None:
        """Asks all processes to stop after the same step, because this one got a signal. May be called by a signal's handler."""
        self._asked = number

    def stop_due(self) -> Optional[int]:
        """Returns the signal for which all processes stop at this call, or None. All must call it equally often."""
        with self._lock:
            self._calls += 1
            if self.stopped is None and self._stop is not None and self._calls >= self._stop[0]:
                self.stopped = self._stop[1]
            return self.stopped

    def _agree_to_stop(self, notes: dict[str, str]) -> None:
        """Takes the next stage of the agreement on where to stop.

        While the processes report their calls, none goes past its next call. So none is beyond the call that they agree on.
        """
        if self._stop is not None:
            return
        if "stop" not in notes:
            if self._asked is not None:
                self.post("lm/notes/stop", str(int(self._asked)))
        elif not self._told:
            self._held = self._held or self._lock.acquire()
            self.post(f"lm/calls/{self.index}", f"{self._calls} {int(has_state)}")
            self._told = True  # now: where the store did not answer, the next beat tells it again
        elif "stop_at" in notes:
            if int(notes["stop_at"]) == 0:
                self._leave_at_once(int(notes["stop"]))
            self._stop = (int(notes["stop_at"]), int(notes["stop"]))
            self._lock.release()
        elif self.index == 0 and len(calls := self._all("lm/calls/")) == self.count:
            numbers, states = zip(*(map(int, each.split()) for each in calls.values()), strict=True)
            at_once = int(notes["stop"]) and not any(states)  # all may be in a compiler, for minutes
            self.post("lm/notes/stop_at", str(0 if at_once else 1 + max(numbers)))

    def _leave_at_once(self, number: int) -> NoReturn:
        self._failing = True
        acts = threading.Thread(target=_act, args=(last_acts,), daemon=True)  # which may wait for a file server
        acts.start()
        acts.join(0.5)
        with contextlib.suppress(RuntimeError):
            self.post(f"lm/read/{self.index}", "")
        self._linger()
        end(f"ended with nothing to save; {BEGINS}" if self.index == 0 else "", status_after(number))


def _status_and_line(error: BaseException) -> tuple[int, Optional[str]]:
    """Returns the exit status after an error and the line to print, or None for a traceback."""
    if isinstance(error, (UserError, OSError)):
        return 2, f"error: {one_line(error)}"
    if isinstance(error, KeyboardInterrupt):
        return 130, "\ninterrupted; the same command continues from what is on disk"
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 1, ""
    return 1, None


def is_of_connection(error: BaseException) -> bool:
    """Returns whether an error of JAX may come from a broken connection; one that is met at dispatch is a ValueError of gloo."""
    text = str(error)
    if type(error).__name__ in ("JaxRuntimeError", "XlaRuntimeError"):
        return not text.startswith(("RESOURCE_EXHAUSTED", "INVALID_ARGUMENT"))
    return isinstance(error, ValueError) and "Gloo" in text


def end(line: str, status: int) -> NoReturn:
    """Ends this process at once, even if its main thread waits in a collective that will never finish."""
    try:  # these raise if stderr or stdout is closed
        if line:
            print(f"\n{line}" if sys.stderr.isatty() else line, file=sys.stderr)
        sys.stderr.flush()
        sys.stdout.flush()
    finally:
        os._exit(status)


def end_soon(line: str, status: int, last_acts: Sequence[Callable[[], None]] = ()) -> NoReturn:
    """Ends this process within half a second, after `last_acts`, a word to the other processes, and a line on stderr.

    Any of them may have to wait: for a pipe that nobody reads, a file server, or a process that is gone. So a thread of its own does them.
    """

    def act() -> None:
        _act(last_acts)
        with contextlib.suppress(OSError, ValueError):
            print(f"\n{line}" if sys.stderr.isatty() else line, file=sys.stderr, flush=True)
            sys.stdout.flush()
        if current is not None:
            where = f"process {current.index} of {current.count} ({socket.gethostname()})"
            with contextlib.suppress(RuntimeError):
                current.post(f"lm/notes/failed/{current.index}", f"{where} ended: {line.removeprefix('error: ')}")

    thread = threading.Thread(target=act, daemon=True)
    thread.start()
    thread.join(0.5)
    os._exit(status)


def _act(actions: Sequence[Callable[[], None]]) -> None:
    for action in actions:
        with contextlib.suppress(Exception):
            action()


def on_abort(line: str, status: int = LOST) -> None:
    """Prints `line` when JAX aborts this process, which it does with a C++ stack when process 0 is lost or never joins."""
    on_fatal(signal.SIGABRT, line, status)


def on_fatal(number: signal.Signals, line: str, status: int) -> None:
    """Prints `line` and ends this process when it gets a signal that no code can go on from.

    Python's own signal handlers run in the main thread, for which such a signal leaves no time; so this is a C handler that calls back.
    """
    kind = ctypes.CFUNCTYPE(None, ctypes.c_int)
    _handlers[number] = kind(lambda _: end(line, status))
    with contextlib.suppress(OSError, AttributeError, ValueError):
        libc = ctypes.CDLL(None)
        libc.signal.argtypes = [ctypes.c_int, kind]
        libc.signal.restype = ctypes.c_void_p
        libc.signal(int(number), _handlers[number])


_handlers: dict[signal.Signals, Any] = {}  # kept alive: C calls them
