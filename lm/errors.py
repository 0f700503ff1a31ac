"""Errors that a user can fix are shown as one line, with a non-zero exit status and no traceback. docs/failures.md lists the statuses."""

import argparse
import contextlib
import difflib
import os
import re
import signal
import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn, Optional, Union

from lm.interrupts import Insisting

CONTINUES = "the same command continues from what is on disk"
AGAIN = "give the command again"  # of commands that do not continue
OVER = 124  # exit status when the time is over, as timeout(1) has it


def status_after(number: int) -> int:
    """Returns the exit status after a signal: 128 + N, as a shell reports it. SIGALRM says that the time is over."""
    return OVER if number == signal.SIGALRM else 128 + number


class UserError(Exception):
    """An error of the input or the environment. Its message is one line that says what is wrong and what to do.

    Attributes:
      names: what there is to choose from, where that is too much for the line. A command prints it below, folded.
    """

    def __init__(self, message: str, names: Sequence[str] = ()):
        super().__init__(message)
        self.names = tuple(names)


def run_cli(main: Callable[[], Optional[int]], interrupted: str = CONTINUES) -> None:
    """Runs a command's `main` and exits with its status. Errors and Ctrl-C are shown as one line on stderr.

    The exit status is 2 after a UserError or an operating-system error, and 130 after Ctrl-C. LM_TRACEBACK=1 in the environment shows the
    traceback. A program that was interrupted ends without Python's clean-up, in which threads of XLA's compiler crash.

    Args:
      main: the command; None as a result means status 0.
      interrupted: what the line after Ctrl-C says of the work that was interrupted.
    """
    was_interrupted = False
    try:
        with Insisting():
            status = main()
    except KeyboardInterrupt as error:
        if os.environ.get("LM_TRACEBACK"):
            raise
        with contextlib.suppress(OSError):  # a closed terminal
            print(f"\ninterrupted; {interrupted}", file=sys.stderr)
        status, was_interrupted = status_after(getattr(error, "number", signal.SIGINT)), True
    except SystemExit as error:
        if not isinstance(error.code, int) or error.code < OVER:
            raise
        status, was_interrupted = error.code, True
    except BrokenPipeError:  # `| head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 141
    except (UserError, OSError) as error:
        if os.environ.get("LM_TRACEBACK"):
            raise
        print(f"error: {one_line(error)}", *_folded(getattr(error, "names", ())), sep="\n", file=sys.stderr)
        status = 2
    if was_interrupted and main.__module__ == "__main__" and "jax" in sys.modules:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status or 0)
    sys.exit(status or 0)


SHARED = "a study needs hard links and atomic renames: NFS (Filestore, EFS), Lustre, or JuiceFS over a bucket (docs/clusters.md compares)"


def require_local(path: Union[str, os.PathLike[str]], instead: str = "mount it, or copy what is there") -> None:
    """Raises UserError for an address such as gs://bucket/runs, which would be a folder of that name here.

    Claims and checkpoints need renames, hard links and flushes that stores of objects do not have.

    Args:
      path: the path of a file or folder
      instead: what to do
    """
    if re.match(r"[A-Za-z][\w+.-]+:/", os.fspath(path)):  # pathlib makes one slash of two
        address = re.sub(":/+", "://", os.fspath(path), count=1)
        raise UserError(f"{address} is an address, and files are read and written on this machine only: {instead}")


def one_line(error: BaseException) -> str:
    """Returns the message of an error without line breaks; signs that would steer a terminal, as names in a file may have, are spelled."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in " ".join(text.split()))


def nearest(word: str, known: Iterable[str]) -> str:
    """Returns what to say of an unknown word: the known one that is spelled most like it, or all of them where none is."""
    known = list(known)
    near = difflib.get_close_matches(word, known, 1)
    return f"did you mean {near[0]}?" if near else f"there {'are' if len(known) > 1 else 'is'} {', '.join(known)}"


def counted(count: int, noun: str, several: str = "") -> str:
    """Returns a count and what is counted: "1 document", "6,219 documents". `several` is the plural where that takes more than an s."""
    return f"{count:,} {noun if count == 1 else several or noun + 's'}"


def _folded(names: Sequence[str]) -> list[str]:
    return textwrap.wrap(", ".join(names), 120, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False, break_long_words=False)


class Parser(argparse.ArgumentParser):
    """The parser of a command's words. What is wrong with them is a UserError; argparse itself would print its usage of many lines first.

    Flags are never abbreviated: what is short for one flag today could be short for two tomorrow.
    """

    def __init__(self, **options: Any):
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        missing = message.removeprefix("the following arguments are required: ")
        if missing == message:
            raise UserError(f"{message}; `{self.prog} --help` says more")
        verbs = next((list(action.choices) for action in self._actions if action.metavar == missing and action.choices), [])
        raise UserError(f"{missing} is missing" + f": give one of {', '.join(verbs)}" * bool(verbs) + f"; `{self.prog} --help` says more")

    def parse_args(self, args: Optional[Sequence[str]] = None, namespace: Any = None) -> Any:  # type: ignore[override]  # has overloads
        return self._known(*self.parse_known_args(args, namespace))

    def parse_intermixed_args(self, args: Optional[Sequence[str]] = None, namespace: Any = None) -> Any:  # type: ignore[override]
        return self._known(*self.parse_known_intermixed_args(args, namespace))

    def parse_overrides(self, args: Optional[Sequence[str]], begin: str) -> tuple[Any, list[str]]:
        """Returns the arguments, and the words that begin with `begin`, which are settings of a configuration."""
        found, rest = self.parse_known_args(args)
        self._known(found, [word for word in rest if not word.startswith(begin)])
        return found, [word.removeprefix("--config.") for word in rest]

    def _known(self, found: Any, rest: Sequence[str]) -> Any:
        """Returns the arguments; UserError for words that are neither flags nor arguments of the command, or of its verb."""
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                return action.choices[getattr(found, action.dest)]._known(found, rest)
        if not rest:
            return found
        word, flags = rest[0].partition("=")[0], [flag for action in self._actions for flag in action.option_strings]
        if not word.startswith("-"):
            raise UserError(f"{word!r} is one word too many; `{self.prog} --help` says more")
        near = difflib.get_close_matches(word, flags, 1)
        raise UserError(f"unknown flag {word}: " + (f"did you mean {near[0]}?" if near else f"`{self.prog} --help` lists the flags"))

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            name = "/".join(action.option_strings) or action.metavar
            raise UserError(f"unknown {name} {str(value)!r}: {nearest(str(value), map(str, action.choices))}")
