"""The submissions of a study, `DIR/jobs/NNNNNN.json`: which backend holds its workers, with which options, and what was submitted.

A submission is written down before the scheduler is asked, and its jobs when it has answered: one whose answer was lost, with this process
or on the way, is found by `claim_answers`. What is live is asked of the scheduler, which is the one that knows.
"""

import contextlib
import dataclasses
import datetime
import json
import os
import pathlib
import secrets
from collections.abc import Sequence
from typing import Any, Optional

from launch.backend import Job, Request
from lm import files
from lm.errors import UserError
from lm.study import directory

FOLDER = "jobs"
ANSWER_SECONDS = 120.0  # in which a scheduler that was asked may still queue what it has not answered


@dataclasses.dataclass(frozen=True)
class Submission:
    """One submission: the backend's name and options, the kind of its workers, and the ids of their jobs.

    `asked` is the number of workers while the scheduler has not answered, and 0 from then on. `number` is that of its file.
    """

    backend: str
    options: dict[str, Any]
    kind: str
    ids: tuple[str, ...]
    time: str
    code: str
    asked: int = 0
    number: int = 0

    @property
    def age(self) -> float:
        """Seconds since the scheduler was asked."""
        return (_now() - datetime.datetime.fromisoformat(self.time)).total_seconds()

    @property
    def waiting(self) -> str:
        """Says that nothing is submitted until the scheduler has answered, or will not any more."""
        until = f"for {max(ANSWER_SECONDS - self.age, 0):.0f} s more"
        return f"{self.backend} did not answer submission {self.number}, whose workers may still come: nothing is submitted {until}"


def read(root: pathlib.Path) -> list[Submission]:
    """Returns the submissions of a study, oldest first. Raises UserError for a file that is none."""
    found = []
    for path in sorted((root / FOLDER).glob("[0-9]*.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            found.append(Submission(**{**content, "ids": tuple(content["ids"]), "number": int(path.stem)}))
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(f"{path} is no submission ({error}): remove it; the jobs themselves are in the scheduler's queue") from error
    return found


def intend(request: Request, backend: Any) -> Submission:
    """Writes down what is about to be submitted."""
    (request.root / FOLDER).mkdir(exist_ok=True)
    options, now = dataclasses.asdict(backend), _now().isoformat(timespec="seconds")
    made = Submission(backend.NAME, options, request.kind.text, (), now, request.code.name, request.count, request.number)
    _write(request.root, made)
    return made


def answered(root: pathlib.Path, submission: Submission, ids: Sequence[str]) -> None:
    """Writes down the jobs of a submission; one without any was refused, and is forgotten."""
    if ids:
        _write(root, dataclasses.replace(submission, ids=tuple(ids), asked=0))
    else:
        _path(root, submission.number).unlink(missing_ok=True)


def claim_answers(root: pathlib.Path, backend: str, queue: Sequence[Job]) -> Optional[Submission]:
    """Finds the jobs of submissions whose answer was lost in the queue, and returns one whose jobs may still come.

    Args:
        root: the study's directory
        backend: the scheduler's name
        queue: the live jobs of the study there
    """
    every = [submission for submission in read(root) if submission.backend == backend]
    known, waiting = {job for submission in every for job in submission.ids}, None
    for submission in (one for one in every if one.asked):
        found = [job.id for job in queue if job.kind.text == submission.kind and job.id not in known][: submission.asked]
        known |= set(found)
        if found or submission.age > ANSWER_SECONDS:
            answered(root, submission, found)
        else:
            waiting = submission
    return waiting


def _path(root: pathlib.Path, number: int) -> pathlib.Path:
    return root / FOLDER / f"{number:06d}.json"


def _write(root: pathlib.Path, submission: Submission) -> None:
    files.write_json(_path(root, submission.number), dataclasses.asdict(submission))


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def next_number(root: pathlib.Path) -> int:
    """Returns the number of the next submission."""
    numbers = [int(path.name.split(".")[0]) for path in (root / FOLDER).glob("[0-9]*.*") if path.name.split(".")[0].isdecimal()]
    return max(numbers, default=0) + 1


def key(root: pathlib.Path) -> str:
    """Returns the name of a study in a queue, lm-NAME-RANDOM: its end is drawn once for each directory, and every host reads it there."""
    path = root / FOLDER / "key"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        draft = path.with_name(f".key.{os.getpid()}")
        files.write_text(draft, secrets.token_hex(4))
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)  # unlike a rename, never replaces another process's
        draft.unlink()
    return f"lm-{directory.open_study(root)['name']}-{path.read_text(encoding='utf-8').strip()}"


def cancelled(root: pathlib.Path) -> str:
    """Returns a mark that changes with each `cancel` of all jobs of a study, so that who watches them submits no others."""
    try:
        return (root / FOLDER / "cancelled").read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""


def mark_cancelled(root: pathlib.Path) -> None:
    """Says that a user has ended all jobs of a study."""
    (root / FOLDER).mkdir(exist_ok=True)
    files.write_text(root / FOLDER / "cancelled", f"{_now().isoformat()} {secrets.token_hex(4)}\n")
