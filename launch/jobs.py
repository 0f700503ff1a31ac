"""The submissions of a study, `DIR/jobs/NNNNNN.json`: which backend holds its workers, with which options, and what was submitted.

They are a memory for people and for `status`, `logs` and `cancel`. What is live is asked of the scheduler, which is the one that knows.
"""

import contextlib
import dataclasses
import datetime
import json
import os
import pathlib
import secrets
from typing import Any

from launch.backend import Request
from lm import files
from lm.errors import UserError
from lm.study import directory

FOLDER = "jobs"


@dataclasses.dataclass(frozen=True)
class Submission:
    """One submission: the backend's name and options, the kind of its workers, and the ids of their jobs."""

    backend: str
    options: dict[str, Any]
    kind: str
    ids: tuple[str, ...]
    time: str
    code: str


def read(root: pathlib.Path) -> list[Submission]:
    """Returns the submissions of a study, oldest first. Raises UserError for a file that is none."""
    found = []
    for path in sorted((root / FOLDER).glob("[0-9]*.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            found.append(Submission(**{**content, "ids": tuple(content["ids"])}))
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(f"{path} is no submission ({error}): remove it; the jobs themselves are in the scheduler's queue") from error
    return found


def record(request: Request, backend: Any, ids: list[str]) -> None:
    """Writes down what was submitted."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    made = Submission(backend.NAME, dataclasses.asdict(backend), request.kind.text, tuple(ids), now, request.code.name)
    (request.root / FOLDER).mkdir(exist_ok=True)
    files.write_json(request.root / FOLDER / f"{request.number:06d}.json", dataclasses.asdict(made))


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
