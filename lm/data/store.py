"""Files that are written whole or not at all, and the hashes they are named by (imports no jax)."""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from lm import files
from lm.data.splitmix import GOLDEN, mix
from lm.errors import UserError


def digest(*parts: Any) -> str:
    """Returns 16 hex digits of SHA-256 over the parts as canonical JSON; bytes are hashed as they are."""
    sha = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else json.dumps(part, sort_keys=True, ensure_ascii=True).encode()
        sha.update(len(data).to_bytes(8, "little") + data)
    return sha.hexdigest()[:16]


def seed_of(*parts: Any) -> int:
    """Returns a 64-bit seed from any key. It is hashed, so that (seed 0, epoch 1) and (seed 1, epoch 0) have nothing in common."""
    return int(digest(*parts), 16)


def shuffled(count: int, *key: Any) -> np.ndarray:
    """Returns a permutation of range(count) that depends on the key only: int64 [count], sorted by splitmix64 of the index."""
    with np.errstate(over="ignore"):
        x = np.arange(count, dtype=np.uint64) * GOLDEN + np.uint64(seed_of(*key))
    return np.argsort(mix(x), kind="stable")


@contextlib.contextmanager
def _writing(path: str) -> Iterator[None]:
    with files.writing(path, "free space there or choose another --config.data_dir"):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        yield


def _remove_stale(path: str, seconds: float = 86_400.0) -> None:
    """Removes what killed writers of `path` left behind; younger files may belong to one that is at work."""
    for entry in os.scandir(os.path.dirname(path)):
        if entry.name.startswith(os.path.basename(path) + ".tmp") and time.time() - entry.stat().st_mtime > seconds:
            shutil.rmtree(entry.path, ignore_errors=True)


@contextlib.contextmanager
def new_directory(path: str) -> Iterator[str]:
    """Yields a temporary directory that becomes `path` when the block ends without an error.

    If another process has made `path` meanwhile, its copy stays: names are hashes of the content's inputs.
    """
    with _writing(path):
        _remove_stale(path)
        temporary = tempfile.mkdtemp(prefix=os.path.basename(path) + ".tmp", dir=os.path.dirname(path))
        try:
            yield temporary
            os.chmod(temporary, 0o755)
            try:
                os.rename(temporary, path)
            except OSError:
                if not os.path.isdir(path):
                    raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def new_file(path: str) -> Iterator[str]:
    """Yields the name of a temporary file that replaces `path` when the block ends without an error."""
    with _writing(path), files.replacing(path) as temporary:
        yield temporary


def write_json(path: str, value: Any) -> None:
    """Writes a JSON file whole, with the directories above it."""
    with _writing(path):
        files.write_json(path, value)


def read_json(path: str) -> Any:
    """Returns the parsed file, or None where there is none. Raises UserError if it is damaged."""
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise UserError(f"{path} is damaged; delete it and run again") from error
