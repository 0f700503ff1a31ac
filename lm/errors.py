"""Errors that a user can mend: one clear line, a non-zero exit, no traceback unless asked for."""

import os
import sys
from collections.abc import Callable
from typing import Optional


class UserError(Exception):
    """Bad input or a bad environment. The message is one line that says what is wrong and what to do."""


def run_cli(main: Callable[[], Optional[int]], interrupted: str = "the same command continues from what is on disk") -> None:
    """Runs a command's `main` and exits with its status; UserError and Ctrl-C end in one line on stderr, which says what is left after it.

    LM_TRACEBACK=1 in the environment shows the traceback. Exit status: 2 for a UserError or an operating-system error
    on the user's files, 130 for Ctrl-C.
    """
    try:
        status = main()
    except KeyboardInterrupt:
        if os.environ.get("LM_TRACEBACK"):
            raise
        print(f"\ninterrupted; {interrupted}", file=sys.stderr)
        status = 130
    except BrokenPipeError:  # `| head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 141
    except (UserError, OSError) as error:
        if os.environ.get("LM_TRACEBACK"):
            raise
        print(f"error: {one_line(error)}", file=sys.stderr)
        status = 2
    sys.exit(status or 0)


def one_line(error: BaseException) -> str:
    """The message of an error, without line breaks."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return " ".join(str(error).split())
