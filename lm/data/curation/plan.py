"""What a curation is: the files, the steps, and how they are cut into stages. Workers of any machine read it (imports no jax)."""

import dataclasses
import functools
import hashlib
import os
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple, Optional

from lm.data.corpora.faults import LONGEST
from lm.data.curation import recipes, sources
from lm.data.curation.steps import ComparingStep, Step, to_json
from lm.data.store import digest, read_json, write_json
from lm.errors import UserError

WORK = ".work"  # folder beside the result, until that is there
LEDGER, REPORT, TEXT = "ledger.json", "report.html", "text"
SHARD = 256_000_000  # bytes, compressed


class Stage(NamedTuple):
    """Steps that are applied in one pass over the documents.

    first   what a pass before compared, by which documents or parts of them go first
    steps   those that look at one document at a time
    sketch  what is compared after the pass, of which it writes the keys
    """

    first: Optional[ComparingStep]
    steps: tuple[Step, ...]
    sketch: Optional[ComparingStep]


@dataclasses.dataclass(frozen=True)
class Plan:
    """A curation."""

    files: tuple[str, ...]
    out: str
    steps: str  # as --steps has them
    settings: tuple[str, ...] = ()  # STEP.KEY=VALUE
    field: Optional[str] = None  # of the text; None: 'text'
    keep: tuple[str, ...] = ()  # fields that are carried along
    lines: bool = False
    longest: int = LONGEST
    skip: bool = False  # whether documents that cannot be used are left out
    unit: int = sources.LEAST  # bytes of a unit of work, about
    shard: int = SHARD

    def chosen(self) -> tuple[Step, ...]:
        """Returns the steps."""
        return _steps(self.steps, self.settings)

    def reading(self) -> sources.Reading:
        """Returns how documents are read."""
        return sources.Reading(self.field, self.keep, self.lines, self.longest, self.skip)

    def units(self) -> list[list[sources.Span]]:
        """Returns the units of work, the same in each pass."""
        return _units(self.files, self.reading().template(), self.unit)

    def stages(self) -> list[Stage]:
        """Returns the passes over the documents: one, and one for each step that compares them."""
        found: list[Stage] = []
        first: Optional[ComparingStep] = None
        local: list[Step] = []
        for step in self.chosen():
            if isinstance(step, ComparingStep):
                found.append(Stage(first, tuple(local), step))
                first, local = step, []
            else:
                local.append(step)
        return [*found, Stage(first, tuple(local), None)]

    @property
    def work(self) -> pathlib.Path:
        return pathlib.Path(self.out, WORK)

    def described(self) -> dict[str, Any]:
        """Returns what the result depends on, as JSON: files by size and time, steps with all settings, and own rules by their text."""
        own = self.steps.partition(":")[0]
        text = pathlib.Path(own).read_bytes() if own.endswith(".py") else b""
        return {
            "files": [_stamp(path) for path in self.files],
            "steps": [to_json(step) for step in self.chosen()],
            "lists": [_stamp(path) for step in self.chosen() for path in step.files()],
            "own_rules": hashlib.sha256(text).hexdigest() if text else None,
            "reading": [*self.reading(), self.unit, self.shard],
        }

    def require_same(self, spans: Sequence[sources.Span]) -> None:
        """Raises UserError where a file of these spans is no longer what it was when the work began."""
        begun = (read_json(str(self.work / "plan.json")) or {}).get("files", [])
        for path, number in {(span.path, span.number) for span in spans}:
            if number >= len(begun) or begun[number] != _stamp(path):
                raise UserError(f"{path} has changed since {self.out} was begun; put it back, or delete {self.work} and begin anew")

    def is_over(self) -> bool:
        """Returns whether the result is there."""
        return os.path.exists(os.path.join(self.out, LEDGER))

    def claim(self) -> bool:
        """Enters the plan in its folder, and returns whether the result is there already.

        Raises UserError where the folder holds the result, or the beginnings, of another plan.
        """
        mine, key = self.described(), digest(self.described())
        ledger = read_json(str(pathlib.Path(self.out, LEDGER)))
        if ledger is not None:
            if ledger.get("plan") != key:
                raise UserError(f"{self.out} holds the result of other steps or files; give another --out, or delete it")
            return True
        begun = read_json(str(self.work / "plan.json"))
        if begun is None:
            if os.path.isdir(self.out) and os.listdir(self.out) not in ([], [WORK]):
                raise UserError(f"{self.out} holds something that is no result of this command; give another --out")
            write_json(str(self.work / "plan.json"), {**mine, "plan": key})
        elif begun.get("plan") != key:
            what = next(
                (name for name in ("files", "steps", "lists", "own_rules", "reading") if begun.get(name) != _as_json(mine[name])), "files"
            )
            own = {"lists": "files that steps read", "own_rules": f"rules in {self.steps}", "reading": "options of reading"}
            raise UserError(
                f"{self.out} was begun with other {own.get(what, what)}; go on as it was, give another --out, or delete {self.work}"
            )
        return False


def _stamp(path: str) -> list[Any]:
    return [os.path.realpath(path), os.path.getsize(path), os.stat(path).st_mtime_ns]


@functools.cache
def _steps(text: str, settings: tuple[str, ...]) -> tuple[Step, ...]:
    return recipes.read(text, settings)


@functools.cache
def _units(files: tuple[str, ...], field: Optional[str], unit: int) -> list[list[sources.Span]]:
    return sources.units(files, field, unit)


def _as_json(value: Any) -> Any:
    return [_as_json(each) for each in value] if isinstance(value, (list, tuple)) else value
