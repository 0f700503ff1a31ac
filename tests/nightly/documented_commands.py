"""Runs the commands of README.md and docs/ in order from an empty clone, and compares what the pages show with what comes.

    python -m tests.nightly.documented_commands                          # everything: hours, and the downloads of `make`
    python -m tests.nightly.documented_commands --use .venv README.md docs/scaling.md

tests/documented.py says what counts as a command, and by which comments a page says that one is not run and why. In an output that is
shown a line `...` stands for any lines, and `...` at the end of a line for its rest; seconds, minutes and rates may be any number; other
numbers have to be equal, unless the page says how far they may differ. The exit status is 1 where something else comes.
"""

import argparse
import collections
import dataclasses
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Optional

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import documented

ROOT = documented.ROOT
NUMBER = r"[-+]?(?:\d[\d,]*)?\.?\d+(?:e[-+]?\d+)?"
MEASURED = re.compile(rf"(?<![\w.])(?:{NUMBER}|\d+:\d+)(?= ?(?:s|ms|min|h|GB/s|MB/s|tokens/s|left)\b)")  # of the machine, not of the result
BY_INSTALLATION = re.compile(r"^(make|pip) |^source |^git clone ")


@dataclasses.dataclass
class Place:
    """The clone in which commands run."""

    root: Path
    programs: Path  # folder of its python
    installs: bool  # whether commands that install anything are run
    tables: Optional[Path]  # the public tables
    without: Optional[str] = None  # pattern of commands that are left out

    def run(self, command: str, limit: float) -> tuple[int, str]:
        """Returns a command's exit status and its output, errors among it."""
        environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
        environment["PATH"] = f"{self.programs}{os.pathsep}{environment['PATH']}"
        if not self.installs:  # the package that is installed there may be another copy
            environment["PYTHONPATH"] = str(self.root)
        try:
            done = subprocess.run(
                ("bash", "-c", command), cwd=self.root, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, timeout=limit, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            return 124, (error.stdout or b"").decode(errors="replace") + f"\nstopped after {limit:.0f} s"
        return done.returncode, done.stdout.decode(errors="replace")

    def reason_not_to_run(self, piece: documented.Piece) -> Optional[str]:
        if piece.marks.not_run is not None:
            return piece.marks.not_run
        if piece.is_template:
            return "a word is to be filled in"
        if self.without and re.search(self.without, piece.text):
            return "left out by --without"
        if BY_INSTALLATION.match(piece.text) and not self.installs:
            return "installs, and --use names an environment"
        if missing := [source for _, source in piece.marks.inputs if self.tables is None or not (self.tables / source).is_file()]:
            return f"needs {', '.join(missing)} of the public tables"
        return None


def differences(shown: tuple[str, ...], came: str, tolerance: Optional[float]) -> list[str]:
    """Returns the lines that a page shows and that did not come, where they should; none if all came."""
    wanted, lines = [plain(line) for line in shown if line.strip()], [plain(line) for line in came.splitlines() if line.strip()]
    missing, at, anywhere = [], 0, False
    for line in wanted:
        if line == "...":
            anywhere = True
            continue
        ahead = range(at, len(lines)) if anywhere else range(at, min(at + 1, len(lines)))
        found = next((i for i in ahead if same(line, lines[i], tolerance)), None)
        if found is None:
            missing.append(line)
        at = at + 1 if found is None else found + 1
        anywhere = False
    if not anywhere and not missing and at < len(lines):
        missing.append(f"(the page ends here) {lines[at]}")
    return missing


def same(shown: str, came: str, tolerance: Optional[float]) -> bool:
    """Returns whether two lines are the same but for their numbers, and these are near enough; `...` at the end stands for any rest."""
    begins = shown.endswith("...")
    shown = shown.removesuffix("...").rstrip()
    words, numbers = re.sub(NUMBER, "#", shown), re.findall(NUMBER, shown)
    found = re.sub(NUMBER, "#", came)
    if found != words and not (begins and found.startswith(words)):
        return False
    return near(numbers, re.findall(NUMBER, came)[: len(numbers)], tolerance)


def near(shown: list[str], came: list[str], tolerance: Optional[float]) -> bool:
    if tolerance is None or shown == came:
        return True
    pairs = [(float(a.replace(",", "")), float(b.replace(",", ""))) for a, b in zip(shown, came, strict=True)]
    return all(abs(a - b) <= tolerance * max(abs(a), abs(b)) for a, b in pairs)


def plain(line: str) -> str:
    """Returns a line with single spaces, and without what the machine decides."""
    return MEASURED.sub("T", " ".join(line.split()))


def follow(piece: documented.Piece, place: Place, limit: float) -> tuple[str, list[str]]:
    """Does what a page says; returns what happened in a few words, and what went wrong."""
    if piece.kind == "file":
        path = place.root / str(piece.marks.file)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(piece.text, encoding="utf-8")
        return f"wrote {piece.marks.file}", []
    if reason := place.reason_not_to_run(piece):
        return f"not run: {reason}", []
    for name, source in piece.marks.inputs:
        assert place.tables is not None
        (place.root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(place.tables / source, place.root / name)
    begin = time.monotonic()
    status, came = place.run(piece.text, limit)
    said = f"{time.monotonic() - begin:.0f} s"
    wrong = [] if status == piece.marks.status else [f"exit status {status} instead of {piece.marks.status}:", *came.splitlines()[-15:]]
    if not wrong and piece.shown is not None and piece.marks.compared:
        missing = differences(piece.shown, came, piece.marks.tolerance)
        wrong = ["the page shows, and there did not come:", *missing, "what came:", *came.splitlines()[:60]] if missing else []
    return said, wrong


def main(argv: Optional[list[str]] = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.nightly.documented_commands", description=__doc__.split("\n")[0])
    parser.add_argument("pages", nargs="*", help="pages, such as docs/scaling.md (default: all)")
    parser.add_argument("--use", type=Path, metavar="VENV", help="an environment that is there; what installs anything is then not run")
    parser.add_argument("--data", type=Path, default=os.environ.get("SCALING_DATA"), help="folder of the public tables")
    parser.add_argument("--without", metavar="PATTERN", help="a regular expression: commands in which it is found are left out")
    parser.add_argument("--limit", type=float, default=7200.0, help="seconds for each command (default: %(default)s)")
    args = parser.parse_args(argv)
    chosen = [page for page in documented.pages() if not args.pages or page.relative_to(ROOT).as_posix() in args.pages]
    if missing := set(args.pages) - {page.relative_to(ROOT).as_posix() for page in chosen}:
        parser.error(f"there is no page {', '.join(sorted(missing))}")
    with tempfile.TemporaryDirectory(prefix="lm-documented-") as folder:
        root = Path(folder) / "lm"
        subprocess.run(("git", "clone", "--quiet", str(ROOT), str(root)), check=True)
        programs = (args.use.absolute() if args.use else root / ".venv") / "bin"
        data = None if args.data is None else Path(args.data).resolve()
        return all_of(chosen, Place(root, programs, args.use is None, data, args.without), args.limit)


def all_of(pages: list[Path], place: Place, limit: float) -> int:
    """Follows the pages and prints a line for each command; returns the exit status."""
    done: set[str] = set()
    counts = collections.Counter[str]()
    for piece in (piece for page in pages for piece in documented.pieces(page)):
        words = piece.text if piece.kind == "file" else " ".join(piece.words)  # without the comment
        if piece.kind == "mention" or (words in done and piece.shown is None):
            continue
        done.add(words)
        said, wrong = follow(piece, place, limit)
        result = "WRONG" if wrong else "--" if said.startswith("not run") else "ok"
        counts[result] += 1
        title = piece.marks.file if piece.kind == "file" else piece.text
        print(f"{result:5s}  {piece.place}  {title}  ({said})", *(f"         {line}" for line in wrong), sep="\n", flush=True)
    print(f"{counts['ok']} as the pages say, {counts['WRONG']} with another result, {counts['--']} not run")
    return 1 if counts["WRONG"] or not counts["ok"] else 0


if __name__ == "__main__":
    sys.exit(main())
