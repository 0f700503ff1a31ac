"""Writes files atomically: a reader sees the whole file or none, also after a kill (imports no jax)."""

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Union

from lm.errors import UserError

AnyPath = Union[str, os.PathLike[str]]
SHIPPED = ("configs", "experiments")  # folders beside lm that a command line may name files of, from any directory


def here_or_shipped(name: str) -> Path:
    """Returns the path of a file: as it is named or, where none is, of the one beside lm, for names such as configs/decoder.py."""
    path, shipped = Path(name), Path(__file__).resolve().parent.parent / name
    is_shipped = path.parts[:1] and path.parts[0] in SHIPPED and shipped.is_file()
    return shipped if is_shipped and not path.exists() else path


@contextlib.contextmanager
def package_of(path: Path) -> Iterator[None]:
    """Lets a file import the package that it is a module of, wherever the command is given and whatever else has the package's name."""
    top = path.resolve().parent
    while (top / "__init__.py").is_file():
        top = top.parent
    if top == path.resolve().parent:  # a file in no package
        yield
        return
    sys.path.insert(0, str(top))
    try:
        yield
    finally:
        sys.path.remove(str(top))


@contextlib.contextmanager
def writing(path: AnyPath, remedy: str) -> Iterator[None]:
    """Raises a UserError that ends in `remedy` when the block meets a full disk or a read-only directory."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}; {remedy}") from error


@contextlib.contextmanager
def replacing(path: AnyPath) -> Iterator[str]:
    """Yields the name of a temporary file, which replaces `path` after the block unless that raises. It is flushed to the disk first."""
    folder, name = os.path.split(os.path.abspath(path))
    handle, temporary = tempfile.mkstemp(prefix=name + ".tmp", dir=folder)
    os.close(handle)
    try:
        yield temporary
        os.chmod(temporary, 0o644)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_text(path: AnyPath, text: str) -> None:
    """Writes a text file atomically."""
    with replacing(path) as temporary:
        Path(temporary).write_text(text, encoding="utf-8")


def write_json(path: AnyPath, value: Any) -> None:
    """Writes a JSON file atomically. Raises ValueError for NaN and infinity, which JSON cannot express."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")
