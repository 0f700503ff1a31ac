"""Every command of README.md and docs/ is one that its program takes: programs, verbs, flags, keys and named configurations exist.

`make nightly` runs them too (tests/nightly/documented_commands.py).
"""

import argparse
import functools
import importlib
import os
import re
import tomllib
from pathlib import Path
from unittest import mock

import documented
import pytest
from nightly.documented_commands import differences

from lm import config as config_lib
from lm import overrides, run
from lm.errors import Parser, UserError
from lm.preflight import __main__ as preflight
from lm.preflight import topologies
from lm.train.config import RunConfig

ROOT = documented.ROOT
PAGES = documented.pages()
# What a placeholder stands for where a program looks at the word itself.
FILLED = {"NAME": "chinchilla", "VERB": "plan", "CONFIG": "configs/decoder.py:tiny", "N": "2"}
ELSEWHERE = {"--gpus-per-task", "--worker", "--command", "--signal"}  # flags of other people's programs
OWN_FLAGS = {
    "lm.run": (run.WITH_VALUE, run.SWITCHES),
    "lm.preflight": (preflight.WITH_VALUE, preflight.SWITCHES),
    "lm.data": (("config",), ("help",)),
}
STARTED_BY = ("srun", "mpirun")


class Caught(Exception):
    """The parser of a command, caught when the command calls it."""


@functools.cache
def parser_of(module: str) -> argparse.ArgumentParser:
    """Returns the parser of `python -m module`."""

    def catch(self, *_args, **_kwargs):
        raise Caught(self)

    package = (ROOT / module.replace(".", "/")).is_dir()
    main = importlib.import_module(f"{module}.__main__" if package else module).main
    with mock.patch.object(argparse.ArgumentParser, "parse_known_args", catch), pytest.raises(Caught) as caught:
        main()
    return caught.value.args[0]


def test_every_command_is_one_that_its_program_takes(page):
    for piece in documented.pieces(page):
        if piece.kind != "file" and not piece.text.startswith("--"):
            check(piece.words, piece)


def test_every_flag_that_is_mentioned_exists(page):
    known = {f"--{name}" for groups in OWN_FLAGS.values() for names in groups for name in names} | ELSEWHERE | all_flags()
    for piece in documented.pieces(page):
        flags = piece.words if piece.text.startswith("--") else []
        set_keys([word.removeprefix("--config.") for word in flags if word.startswith("--config.") and "=" in word], piece)
        for flag in (word.partition("=")[0] for word in flags if word.startswith("--") and not word.startswith("--config.")):
            assert flag in known, f"{piece.place}: no command has the flag {flag}"


def test_every_link_leads_somewhere(page):
    for label, target in re.findall(r"\[([^\]]*)\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        path, _, anchor = target.partition("#")
        if path.startswith(("http:", "https:")):
            continue
        to = (page.parent / path).resolve() if path else page
        assert to.exists(), f"{page.name}: the link [{label}]({target}) leads nowhere"
        if anchor:
            assert anchor in anchors(to), f"{page.name}: {to.name} has no heading #{anchor}"


def test_commands_that_stand_in_blocks_run_or_say_why_not(page):
    for piece in documented.pieces(page):
        if piece.kind == "command" and piece.marks.not_run is not None:
            assert len(piece.marks.not_run) > 8, f"{piece.place}: give the reason why this command is not run"


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("python -m lm.scaling fit runs.csv --intervall=rows", "unrecognized"),
        ("python -m lm.run --config=configs/decoder.py:tiny --config.optim.rate=1", "optim.rate"),
        ("python -m lm.run --config=configs/decoder.py:tyni", "tyni"),
        ("make stdy", "stdy"),
        ("python -m lm.hf export runs/tiny", "required"),
    ],
)
def test_a_wrong_command_is_found(line, wrong):
    with pytest.raises((AssertionError, UserError), match=wrong):
        check(line.split(), documented.Piece("command", line, "here:1", documented.Marks()))


@pytest.fixture(params=PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def page(request):
    return request.param


def check(words: list[str], piece: documented.Piece) -> None:
    """Raises AssertionError or UserError unless the program of a command takes its words."""
    words = [filled(word) for word in documented.without_environment(words)]
    program, arguments = words[0].split("/")[-1], words[1:]
    if program in STARTED_BY and "python" in arguments:
        program, arguments = "python", arguments[arguments.index("python") + 1 :]
    if program == "make":
        targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
        wrong = {word for word in arguments if "=" not in word} - targets
        assert not wrong, f"{piece.place}: the Makefile has no target {wrong}"
    elif program == "pip":
        extras = set(tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"])
        wrong = {name for group in re.findall(r"\.\[([\w,]+)\]", piece.text) for name in group.split(",")} - extras
        assert not wrong, f"{piece.place}: pyproject.toml has no extra {wrong}"
    elif program == "python" and arguments[0] == "-m":
        module(arguments[1], arguments[2:], piece)
    elif program == "python" and arguments[0] != "-c":
        assert (ROOT / arguments[0]).is_file() or written(arguments[0]), f"{piece.place}: there is no file {arguments[0]}"


def module(name: str, arguments: list[str], piece: documented.Piece) -> None:
    """Checks the arguments of `python -m name`; a mention may lack required ones."""
    if name == "experiments" and arguments[:1] == ["benchmarks"]:
        name, arguments = "experiments.benchmarks.commands", arguments[1:]
    if name in ("venv", "pip", "pytest") or "..." in arguments:
        return
    if name in OWN_FLAGS:
        parsed = run.parse(arguments, *OWN_FLAGS[name])
        spec = parsed.values.get("config", "...")
        known = (ROOT / spec.partition(":")[0]).is_file()
        assert known or spec.startswith("runs/") or spec == "..." or documented.PLACEHOLDER.search(spec) or written(spec), piece.place
        set_keys(parsed.overrides, piece, run.load(spec) if known else RunConfig())
        if "topology" in parsed.values and not piece.is_template:
            topologies.parse(parsed.values["topology"])
        return
    if name == "lm":  # it has no parser, and prints a list
        importlib.import_module("lm.__main__").main(arguments)
        return

    def refuse(message):
        if not (piece.kind == "mention" and "required" in message):
            raise AssertionError(f"{piece.place}: {message}")

    with mock.patch.object(Parser, "error", lambda self, message: refuse(message)):
        try:
            _, unknown = parser_of(name).parse_known_args(arguments)
        except SystemExit:  # of --help, since errors are refused above
            return
        if unknown:
            refuse(f"unrecognized arguments {unknown}")


def set_keys(settings: list[str], piece: documented.Piece, config: RunConfig = RunConfig()) -> None:
    """Raises UserError for keys that a configuration lacks, and for values that they do not take."""
    for setting in settings:
        path = setting.partition("=")[0]
        if path.endswith("*"):
            assert any(leaf.path.startswith(path[:-1]) for leaf in overrides.leaves(config)), (
                f"{piece.place}: no keys begin with {path[:-1]}"
            )
    complete = [text for text in settings if text.partition("=")[2] and not documented.PLACEHOLDER.search(text) and "*" not in text]
    config_lib.apply_overrides(config, complete)


def filled(word: str) -> str:
    return re.sub(r"(?<![A-Za-z_./])[A-Z]+(?![A-Za-z_=./])", lambda found: FILLED.get(found[0], found[0]), word)


@functools.cache
def all_files() -> frozenset[str]:
    return frozenset(piece.marks.file for page in PAGES for piece in documented.pieces(page) if piece.kind == "file")


def written(path: str) -> bool:
    """Returns whether a page tells its reader to write this file."""
    return path.partition(":")[0] in all_files()


@functools.cache
def all_flags() -> frozenset[str]:
    """Returns the flags of all commands that argparse parses."""
    names = (
        "experiments",
        "experiments.benchmarks.commands",
        "experiments.replications",
        "lm.data.curate",
        "lm.evals",
        "lm.hf",
        "lm.infer",
        "lm.scaling",
        "lm.study.worker",
    )
    found: set[str] = set()
    parsers = [parser_of(name) for name in names]
    while parsers:
        for action in parsers.pop()._actions:
            found |= set(action.option_strings)
            if isinstance(action, argparse._SubParsersAction):
                parsers += action.choices.values()
    return frozenset(found)


@functools.cache
def anchors(page: Path) -> frozenset[str]:
    """Returns the anchors that the headings of a page have on GitHub."""
    found: list[str] = []
    in_block = False
    for line in page.read_text(encoding="utf-8").splitlines() if page.suffix == ".md" else ():
        in_block ^= line.startswith("```")
        if not in_block and (heading := re.match(r"#+ (.*)", line)):
            plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading[1])
            name = re.sub(r"[^\w\- ]", "", plain.lower()).strip().replace(" ", "-")
            found.append(f"{name}-{count}" if (count := sum(re.sub(r"-\d+$", "", other) == name for other in found)) else name)
    return frozenset(found)


def test_the_pages_are_all_there():
    assert {page for page in PAGES if page.parent == ROOT / "docs"} == set((ROOT / "docs").glob("*.md"))
    assert os.path.exists(PAGES[0])


@pytest.mark.parametrize(
    ("shown", "came", "tolerance", "equal"),
    [
        (["a = 0.41", "..."], "a   = 0.41\nb = 2\nc", 0.0, True),
        (["a = 0.41"], "a = 0.42", 0.0, False),
        (["a = 0.41"], "a = 0.42", 0.05, True),
        (["a = 0.41"], "b = 0.41", None, False),
        (["...", "took 3 s, 1,024 rows..."], "x\ny\ntook 17 s, 1,024 rows of 4", 0.0, True),
        (["one", "two"], "one", 0.0, False),
        (["one"], "one\ntwo", 0.0, False),
    ],
)
def test_outputs_are_compared_by_words_and_numbers(shown, came, tolerance, equal):
    assert (differences(tuple(shown), came, tolerance) == []) is equal
