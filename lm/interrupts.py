"""Interrupts that end a command, whatever loses them (imports no jax).

Python raises KeyboardInterrupt wherever the main thread is, and much there loses it: a bare `except` in a library, `__del__`, a callback of
the garbage collector. JAX has such a callback, which is often the first Python code after a long call into C. So a thread looks whether the
main thread still handles the interrupt, which clean-up does, and raises it again where it does not.
"""

import _thread
import signal
import sys
import threading
from typing import Any, NoReturn, Optional

LOOK = 0.1  # seconds between two looks, the second of which raises it again: between two frames of one exception none is handled

current: Optional["Insisting"] = None  # of the command under way


class Interrupted(KeyboardInterrupt):
    """Says that a signal other than Ctrl-C's interrupts the command; `number` is that signal."""

    def __init__(self, number: int):
        super().__init__()
        self.number = number


def raised(number: int, frame: Any) -> NoReturn:
    """Raises an interrupt, as the handler of a signal."""
    del frame
    if current is not None:
        current.note(number)
    raise _interrupt(number)


def _interrupt(number: int) -> KeyboardInterrupt:
    return KeyboardInterrupt() if number == signal.SIGINT else Interrupted(number)


class Insisting:
    """A context in which an interrupt that is lost is raised again. `number` is the last signal that `raised` took, if any."""

    def __init__(self) -> None:
        self.number: Optional[int] = None
        self._ended = threading.Event()
        self._is_handler = False

    def __enter__(self) -> "Insisting":
        global current
        self._outer, current = current, self
        if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, raised)
            self._is_handler = True
        self._hook, self._before = self._say, sys.unraisablehook
        sys.unraisablehook = self._hook
        return self

    def note(self, number: int) -> None:
        """Takes note of an interrupt that is raised now."""
        if self.number is None:
            threading.Thread(target=self._watch, daemon=True).start()
        self.number = number

    def _watch(self) -> None:
        lost = 0
        while not self._ended.wait(LOOK):
            lost = 0 if _is_handled() else lost + 1
            if lost > 1 and self.number is not None:
                lost = 0
                _thread.interrupt_main(signal.Signals(self.number))

    def _say(self, found: Any) -> None:
        """Prints an error that nobody can catch, as Python does, but for an interrupt that is raised again."""
        if not (self.number is not None and isinstance(found.exc_value, KeyboardInterrupt)):
            self._before(found)

    def __exit__(self, kind: Any, *_: object) -> None:
        global current
        self._ended.set()
        current = self._outer
        if sys.unraisablehook is self._hook:  # a library may have put its own before it
            sys.unraisablehook = self._before
        if self._is_handler and signal.getsignal(signal.SIGINT) is raised:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if kind is None and self.number is not None:  # nothing was left to do when it was lost
            raise _interrupt(self.number)


def _is_handled() -> bool:
    """Returns whether the main thread handles an interrupt: it is in an `except`, a `finally` or the end of a `with`."""
    found: Any = sys._current_exceptions().get(threading.main_thread().ident or 0)
    error = found[1] if isinstance(found, tuple) else found  # since Python 3.12 the exception itself
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None
