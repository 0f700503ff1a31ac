"""Errors that a user can fix are shown as one line, with a non-zero exit status and no traceback. docs/failures.md lists the statuses."""

import contextlib
import os
import re
import signal
import sys
from collections.abc import Callable
from typing import Optional, Union

OVER = 124  # exit status when the time is over, as timeout(1) has it


def status_after(number: int) -> int:
    """Returns the exit status after a signal: 128 + N, as a shell reports it. SIGALRM says that the time is over."""
    return OVER if number == signal.SIGALRM else 128 + number


class Interrupted(KeyboardInterrupt):
    """An interrupt by another signal than Ctrl-C."""

    def __init__(self, number: int):
        super().__init__()
        self.number = number


class UserError(Exception):
    """An error of the input or the environment. Its message is one line that says what is wrong and what to do."""


def run_cli(main: Callable[[], Optional[int]], interrupted: str = "the same command continues from what is on disk") -> None:
    """Runs a command's `main` and exits with its status. Errors and Ctrl-C are shown as one line on stderr.

    The exit status is 2 after a UserError or an operating-system error, and 130 after Ctrl-C. LM_TRACEBACK=1 in the environment shows the
    traceback. A program that was interrupted ends without Python's clean-up, in which threads of XLA's compiler crash.

    Args:
      main: the command; None as a result means status 0.
      interrupted: what the line after Ctrl-C says of the work that was interrupted.
    """
    was_interrupted = False
    try:
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
        print(f"error: {one_line(error)}", file=sys.stderr)
        status = 2
    if was_interrupted and main.__module__ == "__main__" and "jax" in sys.modules:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status or 0)
    sys.exit(status or 0)


def require_local(path: Union[str, os.PathLike[str]]) -> None:
    """Raises UserError for an address such as gs://bucket/runs, which would be a folder of that name here.

    Claims and checkpoints need renames, hard links and flushes that stores of objects do not have.
    """
    if re.match(r"[A-Za-z][\w+.-]+:/", os.fspath(path)):  # pathlib makes one slash of two
        address = re.sub(":/+", "://", os.fspath(path), count=1)
        raise UserError(f"{address} is an address, and files are read and written on this machine only: mount it, or copy what is there")


def one_line(error: BaseException) -> str:
    """Returns the message of an error without line breaks."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return " ".join(str(error).split())
