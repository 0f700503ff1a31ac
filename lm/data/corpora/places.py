"""Finds and opens files on this machine, and at addresses such as gs://bucket/*.jsonl.gz by fsspec (the optional group `remote`)."""

import contextlib
import glob
import hashlib
import os
import pathlib
import re
from collections.abc import Iterator
from typing import IO, Any, cast

from lm.errors import UserError, one_line, require_local


def is_address(path: str) -> bool:
    """Returns whether a path is an address of another store."""
    return re.match(r"[A-Za-z][\w+.-]+://", path) is not None


def real(path: str) -> str:
    """Returns the one name of a place: of links on this machine, what they lead to."""
    return path if is_address(path) else os.path.realpath(os.path.expanduser(path))


def matching(path: str) -> tuple[list[str], bool]:
    """Returns the files that a path names, none or one, or matches; and whether it is a folder, of which these are all below it."""
    if is_address(path):
        return _matching_elsewhere(path)
    if os.path.isdir(path):
        return sorted(str(name) for name in pathlib.Path(path).rglob("*") if name.is_file()), True
    if os.path.exists(path):
        return [path], False
    require_local(path)  # with one slash, as in gs:/bucket
    return sorted(name for name in glob.glob(path, recursive=True) if os.path.isfile(name)) if glob.has_magic(path) else [], False


def _matching_elsewhere(path: str) -> tuple[list[str], bool]:
    with _reaching(path):
        system, inside = _system(path)
        if glob.has_magic(path):
            found, is_folder = sorted(name for name in system.glob(inside) if system.isfile(name)), False
        elif system.isdir(inside):
            found, is_folder = sorted(system.find(inside)), True
        else:
            found, is_folder = [inside] if system.exists(inside) else [], False
        return [system.unstrip_protocol(name) for name in found], is_folder


def opened(path: str) -> IO[bytes]:
    """Opens a file to be read from any place of it."""
    if not is_address(path):
        return open(path, "rb")
    with _reaching(path):
        system, inside = _system(path)
        return cast(IO[bytes], system.open(inside, "rb"))


def stamp(path: str) -> tuple[int, int]:
    """Returns the bytes of a file, and a number that changes with it: its time of modification in ns, or what the store says of it."""
    if not is_address(path):
        found = os.stat(path)
        return found.st_size, found.st_mtime_ns
    with _reaching(path):
        system, inside = _system(path)
        system.invalidate_cache()
        size = int(system.info(inside)["size"])
        return size, int(hashlib.sha256(str(system.ukey(inside)).encode()).hexdigest()[:15], 16)


def size(path: str) -> int:
    """Returns the bytes of a file."""
    return os.path.getsize(path) if not is_address(path) else stamp(path)[0]


@contextlib.contextmanager
def _reaching(path: str) -> Iterator[None]:
    """Raises UserError that names the address when the block cannot reach it; stores raise errors of many types."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"cannot reach {path}: {one_line(error)[:160]}; correct the address, or copy the files here") from error


def _system(path: str) -> tuple[Any, str]:
    try:
        import fsspec
    except ImportError as error:
        raise UserError(f"{path} is an address, which the package fsspec reads: pip install 'lm-scaling[remote]'") from error
    try:
        return fsspec.core.url_to_fs(path)
    except ImportError as error:
        raise UserError(f"{path} needs another package ({one_line(error)[:120]}): pip install 'lm-scaling[remote]'") from error
