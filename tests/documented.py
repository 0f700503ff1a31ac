"""Reads the commands of README.md and docs/: their place, what is shown of their output, and what the page says about running them.

A command is a line of a code block that begins with a program's name, or a span of code in a table. Where lines of a block begin with `$ `,
those are the commands and the others are their output. A span of code in running text is a mention: its flags have to exist, and it is not
run. A word of NAMES, such as DIRECTORY, stands for what the reader has: such a command is parsed and not run.

Comments of a page, which readers of the rendered page do not see, say more of the next block, or of the line that they stand in:

    <!-- not run: REASON -->           parsed only
    <!-- page not run: REASON -->      the same for all commands of the page that follow
    <!-- file: PATH -->                the block is the content of this file
    <!-- input: PATH = TABLE -->       before the block runs, PATH is a copy of this file of the public tables
    <!-- exit status: 1 -->            of the block's last command
    <!-- numbers within 5% -->         numbers of the output may differ by so much; `<!-- numbers differ -->`: by anything
    <!-- output differs -->            the output is an example, such as a text that a model wrote
"""

import dataclasses
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Optional

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = ("python", "python3", "make", "pip", "git", "srun", "mpirun", "gcloud", "source", "scancel", "head", "ls", "cp", "nvidia-smi")
MARK = re.compile(r"<!-- *(not run|page not run|file|input|exit status|numbers within|numbers differ|output differs):? *(.*?) *-->")
NAMES = "DIRECTORY|DIR|FILE|CONFIG|NAME|PATH|ID|VERB|KEY|VALUE|STUDY_DIR|STUDY|RUN|JOB|TABLE|LOSS|HOST"
PLACEHOLDER = re.compile(rf"(?<![A-Za-z_.])(?:{NAMES})(?![A-Za-z_=])|\.\.\.|=I\b")


@dataclasses.dataclass(frozen=True)
class Marks:
    """The marks by which a page says how a block is run."""

    not_run: Optional[str] = None
    file: Optional[str] = None
    inputs: tuple[tuple[str, str], ...] = ()
    status: int = 0
    tolerance: Optional[float] = 0.0  # relative difference of numbers; None: any
    compared: bool = True  # whether the output is


@dataclasses.dataclass(frozen=True)
class Piece:
    """A command with its output, a mention of one, or a file that the reader writes."""

    kind: str  # command, mention or file
    text: str
    place: str  # file:line
    marks: Marks
    shown: Optional[tuple[str, ...]] = None  # lines of output

    @property
    def words(self) -> list[str]:
        """The command's words, without its comment."""
        return shlex.split(self.text, comments=True)

    @property
    def is_template(self) -> bool:
        """Says whether the reader has to fill a word in."""
        return any(PLACEHOLDER.search(word) for word in without_environment(self.words))


def pages() -> list[Path]:
    """Returns the pages in the order in which the README and the index of docs/ name them."""
    found = [ROOT / "README.md"]
    for index in (ROOT / "docs/README.md", ROOT / "experiments/README.md"):
        text = index.read_text(encoding="utf-8")
        linked = [index.parent / target for target in re.findall(r"\]\(([\w./]+\.md)", text)]
        found += [index, *(page.resolve() for page in linked)]
    found += [*sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "experiments").glob("*/README.md"))]
    return list(dict.fromkeys(found))


def pieces(page: Path) -> list[Piece]:
    """Returns the commands, mentions and files of a page, in order."""
    return list(_Reader(page).read())


class _Reader:
    def __init__(self, page: Path):
        self._name = page.relative_to(ROOT).as_posix()
        self._lines = page.read_text(encoding="utf-8").splitlines()
        self._page_not_run: Optional[str] = None
        self._marks = Marks()

    def read(self) -> Iterator[Piece]:
        number = 0
        while number < len(self._lines):
            line = self._lines[number]
            self._note(line)
            if line.lstrip().startswith("```"):
                end = next(i for i in range(number + 1, len(self._lines)) if self._lines[i].lstrip().startswith("```"))
                named = line.strip().removeprefix("```")  # a language, such as python: no commands
                yield from self._block([] if named and not self._marks.file else self._lines[number + 1 : end], number + 2)
                number = end + 1
            elif line.startswith("    ") and (number == 0 or not self._lines[number - 1].strip()):
                end = number
                while end < len(self._lines) and (self._lines[end].startswith("    ") or not self._lines[end].strip()):
                    end += 1
                yield from self._block([text[4:] for text in self._lines[number:end]], number + 1)
                number = end
            else:
                yield from self._spans(line, number + 1)
                number += 1

    def _note(self, line: str) -> None:
        """Takes up the marks of a line."""
        for kind, value in MARK.findall(line):
            if kind == "page not run":
                self._page_not_run = value
            self._marks = dataclasses.replace(self._marks, **_mark(kind, value, self._marks))

    def _taken(self) -> Marks:
        """Returns the marks that hold for what comes now, and forgets them."""
        marks, self._marks = self._marks, Marks()
        return dataclasses.replace(marks, not_run=marks.not_run or self._page_not_run)

    def _block(self, lines: list[str], first: int) -> Iterator[Piece]:
        marks = self._taken()
        if marks.file:
            yield Piece("file", "\n".join(lines) + "\n", f"{self._name}:{first}", marks)
            return
        prompts = any(line.startswith("$ ") for line in lines)
        found: list[tuple[int, str, Optional[list[str]]]] = []
        joined = False
        for number, line in enumerate(lines, first):
            text = line.removeprefix("$ ") if prompts else line.strip()
            if joined:
                place, before, shown = found[-1]
                found[-1] = (place, f"{before} {text.strip()}", shown)
            elif line.startswith("$ ") or (not prompts and is_command(text)):
                found.append((number, text, [] if prompts else None))
            elif prompts and found:
                found[-1][2].append(line)  # type: ignore[union-attr]  # a list where there are prompts
                continue
            else:
                continue
            joined = text.rstrip().endswith("\\")
            if joined:
                place, before, shown = found[-1]
                found[-1] = (place, before.rstrip().removesuffix("\\").rstrip(), shown)
        for number, text, shown in found:
            status = marks.status if number == found[-1][0] else 0
            one = dataclasses.replace(marks, status=status)
            yield Piece("command", text, f"{self._name}:{number}", one, tuple(shown) if shown else None)

    def _spans(self, line: str, number: int) -> Iterator[Piece]:
        spans = [span for span in re.findall(r"`([^`]+)`", line) if is_command(span) or span.startswith("--")]
        in_table = line.startswith("|")
        marks = self._taken() if in_table else Marks(not_run=self._page_not_run)
        for span in spans:
            kind = "command" if in_table and is_command(span) and not marks.file else "mention"
            yield Piece(kind, span, f"{self._name}:{number}", marks)


def _mark(kind: str, value: str, before: Marks) -> dict:
    """Returns the fields of Marks that one comment sets."""
    if kind == "input":
        path, _, source = value.partition("=")
        return {"inputs": (*before.inputs, (path.strip(), source.strip()))}
    return {
        "not run": lambda: {"not_run": value},
        "page not run": lambda: {"not_run": value},
        "file": lambda: {"file": value},
        "exit status": lambda: {"status": int(value)},
        "numbers within": lambda: {"tolerance": float(value.removesuffix("%")) / 100},
        "numbers differ": lambda: {"tolerance": None},
        "output differs": lambda: {"compared": False},
    }[kind]()


def is_command(text: str) -> bool:
    """Returns whether a line begins with a program's name, behind settings of the environment."""
    words = without_environment(text.split())
    return len(words) > 1 and words[0].split("/")[-1] in PROGRAMS


def without_environment(words: list[str]) -> list[str]:
    """Returns a command's words without the settings of the environment before its program."""
    first = next((i for i, word in enumerate(words) if not re.fullmatch(r"[A-Z_]+=\S*", word)), len(words))
    return words[first:]
