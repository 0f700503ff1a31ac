"""The interface of backends: each starts workers on a study through a scheduler that exists, and reads the scheduler's queue.

A worker is one process, or several that train together, on a number of devices. It takes cells of its kind from the study's directory by
lease (lm.study.leases) until none is left, so a backend knows nothing of cells. `launch.backends` lists the backends.
"""

import dataclasses
import pathlib
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, Optional, Protocol

from lm.errors import UserError

# Parts of errors, in small letters, after which the scheduler may have done what it was asked.
LOST = ("timed out", "zero bytes were transmitted", "deadline exceeded", "connection reset", "unexpected eof")


@dataclasses.dataclass(frozen=True, order=True)
class Kind:
    """The cells that a worker takes: those of one stage that need one number of devices.

    `only` is the hash of their ids, for workers that were asked for some cells alone.
    """

    stage: int
    devices: int
    only: str = ""

    @property
    def text(self) -> str:
        """The kind in a job's name: s0.d8, or s0.d8.o1f2e3d4c."""
        return f"s{self.stage}.d{self.devices}" + (f".o{self.only}" if self.only else "")

    @classmethod
    def parse(cls, text: str) -> Optional["Kind"]:
        """Returns the kind that `text` names; None when it names none."""
        found = re.fullmatch(r"s(\d+)\.d(\d+)(?:\.o([0-9a-f]+))?", text)
        return None if found is None else cls(int(found[1]), int(found[2]), found[3] or "")


@dataclasses.dataclass(frozen=True)
class Job:
    """A live job in a scheduler's queue: one worker. `reason` holds the scheduler's words, such as why it waits."""

    id: str
    kind: Kind
    state: Literal["queued", "running"]
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class Request:
    """Workers to start.

    Attributes:
        root: the study's directory
        key: the study's name in the queue (launch.jobs.key)
        number: the number of this submission, which names its files in ROOT/jobs
        kind: the cells that they take
        count: the number of workers
        after: ids of jobs that must have ended before these start
        code: the folder of the snapshot that they import
        seconds: the estimated time of one worker on a core here: an even share of the cells, and the longest at least
        flops: the same of the FLOPs, for devices whose rate is known
        train: the training function MODULE:FUNCTION (default: the worker's)
        only: ids of the cells that they take (default: all of the kind)
    """

    root: pathlib.Path
    key: str
    number: int
    kind: Kind
    count: int
    code: pathlib.Path
    seconds: float
    flops: float = 0.0
    after: tuple[str, ...] = ()
    train: Optional[str] = None
    only: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The jobs' name, from which `jobs` finds them: key and kind."""
        return f"{self.key}.{self.kind.text}"

    def command(self, python: str = sys.executable, root: Optional[pathlib.PurePath] = None) -> list[str]:
        """Returns the command of a worker, without what says where its other processes are.

        Args:
            python: the interpreter there
            root: the study's directory there
        """
        flags = [f"--stage={self.kind.stage}", f"--devices={self.kind.devices}"]
        flags += [f"--train={self.train}"] if self.train else []
        flags += [f"--only={','.join(self.only)}"] if self.only else []
        return [python, "-m", "lm.study.worker", str(root or self.root.resolve()), *flags]


class UnansweredError(UserError):
    """A scheduler was asked and nobody knows whether it has done it."""


class Backend(Protocol):
    """A way of starting workers. Its options are the fields of a frozen dataclass, and each becomes a flag of `experiments NAME run`.

    Every method raises UserError where the scheduler refuses, and UnansweredError where it does not answer: what it said, and what to do.
    """

    NAME: ClassVar[str]
    WORDS: ClassVar[str]  # of --help: what it hands workers to
    ORDERS: ClassVar[bool]  # whether a job may wait for the end of others: if not, a request comes when those have ended

    def by_hand(self, root: pathlib.Path, number: int) -> Optional[str]:
        """Returns the command with which a user starts what submission `number` only wrote down; None where `submit` starts workers."""
        ...

    def require(self, root: pathlib.Path) -> None:
        """Raises UserError when jobs cannot be submitted from here: no scheduler, a partition that is not there, a wrong option."""
        ...

    def jobs(self, key: str) -> list[Job]:
        """Returns the live jobs of a study by its name in the queue, whoever submitted them."""
        ...

    def submit(self, request: Request) -> list[str]:
        """Submits workers and returns the ids of their jobs."""
        ...

    def cancel(self, ids: Sequence[str]) -> None:
        """Ends jobs; those that are gone already are no error."""
        ...

    def log(self, root: pathlib.Path, job: str) -> Optional[pathlib.Path]:
        """Returns the file with a job's output; None where it is elsewhere."""
        ...


def option(said: str, default: Any = None, metavar: Optional[str] = None) -> Any:
    """Returns the field of an option of a backend: its help, its default, and what its value is called in the help."""
    return dataclasses.field(default=default, metadata={"help": said, "metavar": metavar})


def ask(command: Sequence[str], limit: float, advice: Sequence[tuple[str, str]], *, name: str, absent: str, silent: str) -> str:
    """Runs a command of a scheduler and returns its output.

    Args:
        command: the command
        limit: seconds for it to answer
        advice: parts of its errors, each with what helps
        name: the command's name in errors
        absent: what to do where it is not installed
        silent: what to do where it does not answer

    Raises: UserError with what it said and what helps; UnansweredError where it may have done what it was asked.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False, stdin=subprocess.DEVNULL)
    except FileNotFoundError:
        raise UserError(f"there is no {command[0]} here: {absent}") from None
    except subprocess.TimeoutExpired:
        raise UnansweredError(f"{command[0]} did not answer within {limit:.0f} s: {silent}") from None
    if done.returncode == 0:
        return done.stdout
    said = " ".join((done.stderr or done.stdout).split()).removeprefix(f"{command[0]}: ")
    helps = next((f": {words}" for part, words in advice if part.lower() in said.lower()), "")
    kind = UnansweredError if any(part in said.lower() for part in LOST) else UserError
    raise kind(f"{name}: {re.sub(r'^ERROR: .[a-z.]+. ', '', said)[:400]}{helps}")


def shown(command: Sequence[str]) -> str:
    """Returns a command as a user would type it."""
    return shlex.join(command)
