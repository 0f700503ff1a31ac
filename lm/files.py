"""Writes files atomically: a reader sees the whole file or none, also after a kill (imports no jax)."""

import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar, Union

from lm.errors import UserError, one_line, require_local

AnyPath = Union[str, os.PathLike[str]]
T = TypeVar("T")
RETRY_SECONDS = (0.2, 1.0, 3.0)  # before reading is tried again: a file server that restarts answers soon
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
    require_local(path)
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}; {remedy}") from error


def reading(path: AnyPath, action: Callable[[], T], pauses: Iterable[float] = RETRY_SECONDS) -> T:
    """Returns the result of an action that reads `path`, tried again after pauses while the system cannot read (EIO, ESTALE, EACCES).

    Raises:
      FileNotFoundError: the system can read, and there is nothing.
      UserError: it could not read at any try.
    """
    for pause in pauses:
        try:
            return action()
        except FileNotFoundError:
            raise
        except OSError:
            time.sleep(pause)
    try:
        return action()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UserError(
            f"cannot read {path}: {one_line(error)}; this says nothing of what it holds, and nothing was changed: mend the file system,"
            " then run the same command again"
        ) from error


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
