"""A page says where its numbers come from: the command, the file with its hash, the columns, and the version of the code."""

import dataclasses
import datetime
import functools
import pathlib
import platform
import shlex
import subprocess
from collections.abc import Sequence
from typing import Optional

from lm.scaling.results import version
from lm.scaling.runs import Runs
from lm.scaling.tables.columns import ColumnRead


@dataclasses.dataclass(frozen=True)
class Provenance:
    """How a page was made. `sha256` is of the file; it is empty where the table came from memory."""

    date: str
    command: str
    source: str
    rows: int
    sha256: str
    columns: tuple[ColumnRead, ...]
    notes: tuple[str, ...]
    code: str


def provenance(runs: Runs, command: Optional[Sequence[str]] = None) -> Provenance:
    """Returns how a page on these runs is made now. `command` holds the arguments of `python -m lm.scaling`; None from a notebook."""
    said = "" if command is None else shlex.join(["python", "-m", "lm.scaling", *command])
    today = datetime.date.today().isoformat()
    return Provenance(today, said, runs.source, len(runs), runs.sha256, runs.read, runs.notes, code_version())


@functools.cache
def code_version() -> str:
    """Returns the version of this code, with its git revision, "+changes" where the work tree differs from it, and Python's version."""
    words = [f"{__name__.partition('.')[0]} {version()}"]
    if revision := _revision():
        words.append(f"git {revision}")
    return ", ".join([*words, f"Python {platform.python_version()}"])


def _revision() -> Optional[str]:
    here = pathlib.Path(__file__).resolve().parent

    def git(*words: str) -> str:
        return subprocess.run(("git", *words), cwd=here, capture_output=True, text=True, timeout=10, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", pathlib.Path(__file__).name)  # fails where the repository around is not of this code
        changed = git("status", "--porcelain", "--untracked-files=no", "--", "..")
        return git("rev-parse", "--short=12", "HEAD") + ("+changes" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return None
