"""Python source text that every installation already has: the base packages and the standard library.

The files are the .py files in the RECORD of every distribution that this project requires, directly or not, without any
optional group, and those of the standard library without its tests. They are read in the order of (distribution, path),
so that a corpus depends on the versions installed and on nothing else.
"""

import collections
import functools
import hashlib
import importlib.metadata
import pathlib
import platform
import re
import sysconfig
import tomllib
from collections.abc import Callable, Iterator
from typing import Optional

from packaging.requirements import Requirement
from tqdm import tqdm

from lm.data.corpora.documents import Document, Splits, split, without_repeats
from lm.errors import UserError, counted

VERSION = "1.0.0"  # of the recipe: another one is another data set
PROJECT = "lm-scaling"
LIBRARY = "python"  # the group of the standard library
VENDORED = frozenset(["_vendor", "vendor", "vendored", "_vendored", "third_party", "extern", "externals", "_extern", "_externals"])
LIBRARY_SKIPS = frozenset(["test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__", "ensurepip"])
LARGEST_FILE = 65_536  # bytes; beyond it stand tables and generated code, and single modules would outweigh whole packages
SMALLEST_FILE = 64
LONGEST_LINE = 1_000  # characters: data in a string
DIGITS = 0.25  # share of the characters: tables
CORPUS_BYTES = 60_000_000  # documents are taken in the order of a hash of their names until this many bytes

_LICENCE = [
    "license",
    "licence",
    "copyright",
    "all rights reserved",
    "spdx-",
    "permission is hereby",
    "redistribution and use",
    "no warranty",
]
_GENERATED = re.compile(r"auto-?\s?generated|generated (by|from)|do not edit|don't (manually )?edit", re.IGNORECASE)
_COMMENT = re.compile(r"(?:^[ \t]*#[^\n]*(?:\n|\Z))+", re.MULTILINE)


def collect(log: Callable[[str], object]) -> Splits:
    """Reads, cleans and splits the sources; raises UserError where nothing is found."""
    dropped: collections.Counter = collections.Counter()
    versions, missing, files = _files()
    log(f"python_sources: reading {counted(len(files), 'file')} of {len(versions)} distributions and the standard library (once)")
    texts = list(_read(tqdm(files, "python_sources", unit=" files", disable=None, leave=False), dropped))
    if not texts:
        raise UserError("python_sources found no .py files: the packages of this environment list none; reinstall them with pip")
    documents = _capped(without_repeats(_clean(texts, dropped), dropped), dropped)
    result = split(documents, dropped, by_words=False)  # which would be another corpus
    result.info.update(
        python=platform.python_version(), distributions=versions, missing=missing, dropped=dict(sorted(dropped.items())), files=len(files)
    )
    return result


def base_distributions() -> tuple[dict[str, importlib.metadata.Distribution], list[str]]:
    """Returns the installed distributions that the project requires without extras, by normalised name, and those missing."""
    queue: list[tuple[Requirement, frozenset[str]]] = [(Requirement(text), frozenset()) for text in _requirements()]
    found: dict[str, importlib.metadata.Distribution] = {}
    missing, seen = set(), set()
    while queue:
        requirement, wanted_by = queue.pop()
        marker = requirement.marker
        if marker and not any(marker.evaluate({"extra": extra}) for extra in wanted_by or {""}):
            continue
        name, extras = _normal(requirement.name), frozenset({"", *requirement.extras})
        if (name, extras) in seen or name == PROJECT:
            continue
        seen.add((name, extras))
        try:
            found[name] = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            missing.add(name)
            continue
        queue += [(Requirement(text), extras) for text in found[name].requires or ()]
    return dict(sorted(found.items())), sorted(missing)


def strip_licences(texts: list[str]) -> list[str]:
    """Removes licence headers: comment blocks that open a file or stand in several, and lines that stand in several.

    Lines in docstrings (':copyright: ...') go where three or more texts have them.
    """
    blocks = collections.Counter(key for text in texts for key in {_key(block) for block in _licence_blocks(text)})
    stripped = []
    for text in texts:
        header = functools.partial(_without_header, text=text, blocks=blocks)
        stripped.append(_COMMENT.sub(header, text) if _mentions(text) else text)
    lines = collections.Counter(line for text in stripped for line in set(_licence_lines(text)))
    repeated = {line for line, count in lines.items() if count >= 3}
    return [_without(text, repeated).strip("\n") + "\n" for text in stripped]


def _files() -> tuple[dict[str, str], list[str], list[tuple[str, str, pathlib.Path]]]:
    distributions, missing = base_distributions()
    files = []
    for name, distribution in distributions.items():
        for listed in distribution.files or ():
            if listed.suffix == ".py" and ".." not in listed.parts:
                files.append((name, listed.as_posix(), pathlib.Path(str(listed.locate()))))
    library = pathlib.Path(sysconfig.get_path("stdlib"))
    for path in library.rglob("*.py"):
        inside = path.relative_to(library)
        machine = inside.name.startswith("_sysconfigdata") or inside.name in ("sitecustomize.py", "usercustomize.py")
        if not machine and not LIBRARY_SKIPS & set(inside.parts[:-1]) and not inside.parts[0].startswith("config-"):
            files.append((LIBRARY, inside.as_posix(), path))
    return {name: distribution.version for name, distribution in distributions.items()}, missing, sorted(files)


def _requirements() -> list[str]:
    try:
        return importlib.metadata.requires(PROJECT) or []
    except importlib.metadata.PackageNotFoundError:
        project = pathlib.Path(__file__).parents[3] / "pyproject.toml"
        return tomllib.loads(project.read_text())["project"]["dependencies"]


def _read(files, dropped: collections.Counter) -> Iterator[Document]:
    for group, name, path in files:
        if VENDORED & set(pathlib.PurePosixPath(name).parts):
            dropped["vendored"] += 1
            continue
        try:
            source = path.read_bytes()
            text = source.decode("utf-8-sig").replace("\r\n", "\n")
        except UnicodeDecodeError:
            dropped["not UTF-8"] += 1
        except OSError:
            dropped["not readable"] += 1
        else:
            if len(source) > LARGEST_FILE:
                dropped["larger than 64 KiB"] += 1
            else:
                yield Document(f"{group}/{name}", text, group)


def _clean(documents: list[Document], dropped: collections.Counter) -> Iterator[Document]:
    for document, text in zip(documents, strip_licences([d.text for d in documents]), strict=True):
        reason = _reason_to_drop(text)
        if reason:
            dropped[reason] += 1
        else:
            yield Document(document.name, text, document.group)


def _reason_to_drop(text: str) -> Optional[str]:
    if len(text) < SMALLEST_FILE:
        return "nearly empty"
    if "\0" in text or max(map(len, text.split("\n"))) > LONGEST_LINE:
        return "very long lines"
    if _GENERATED.search(text[:600]):
        return "generated"
    if sum(map(text.count, "0123456789")) > DIGITS * len(text):
        return "mostly digits"
    return None


def _capped(documents: list[Document], dropped: collections.Counter) -> list[Document]:
    total, kept = 0, set()
    for document in sorted(documents, key=lambda d: hashlib.sha256(d.name.encode()).digest()):
        total += document.size
        if total > CORPUS_BYTES:
            break
        kept.add(document.name)
    dropped["beyond 60 MB"] += len(documents) - len(kept)
    return [document for document in documents if document.name in kept]


def _licence_blocks(text: str) -> list[str]:
    return [block for block in _COMMENT.findall(text) if _mentions(block)] if _mentions(text) else []


def _without_header(match: re.Match, text: str, blocks: collections.Counter) -> str:
    block = match.group()
    if _mentions(block) and (blocks[_key(block)] >= 2 or not text[: match.start()].strip()):
        return ""
    return block


def _licence_lines(text: str) -> list[str]:
    return [line.strip() for line in text.split("\n") if _mentions(line)] if _mentions(text) else []


def _without(text: str, lines: set[str]) -> str:
    if not lines or not _mentions(text):
        return text
    return "\n".join(line for line in text.split("\n") if line.strip() not in lines)


def _mentions(text: str) -> bool:
    lowered = text.lower()
    return any(word in lowered for word in _LICENCE)


def _key(block: str) -> str:
    return re.sub(r"[\d\s#]+", " ", block).lower()


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
