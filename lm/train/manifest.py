"""The manifest of a checkpoint: what its files and arrays were when they were written, and what has changed since (imports no jax).

    {"format": 3, "files": {name: [size, SHA-256]}, "arrays": {name: checksum (lm.train.checksum)}, "sha256": that of all before it}

In format 2, of release 0.6, arrays had the SHA-256 of dtype, shape and values, and none where they were split over processes. Format 1
was the part "files" alone. The text of a manifest follows from its content, so a byte more or less is found too.
"""

import concurrent.futures
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lm import files
from lm.errors import UserError

FILE = "manifest.json"
FORMAT = 3
FLUSHES = 16  # files flushed at once: on a network each flush is a round trip


def seal(folder: Path, arrays: Mapping[str, str]) -> None:
    """Flushes every file of a folder to the disk and writes its manifest, given the digests of its arrays."""
    found = _digests(folder)
    directories = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
    with concurrent.futures.ThreadPoolExecutor(FLUSHES) as pool:
        list(pool.map(flush, [*(folder / name for name in found), *directories]))
    content = {"format": FORMAT, "files": found, "arrays": dict(arrays)}
    files.write_text(folder / FILE, _text({**content, "sha256": _own(content)}))
    flush(folder)


def flush(path: Path) -> None:
    """Flushes a file, or the names in a directory, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def damages(folder: Path) -> list[str]:
    """Returns what has changed in a folder since its manifest was written, a phrase for each file; an empty list if nothing has.

    Raises:
      OSError: a file could not be read, which says nothing of what is in it.
    """
    try:
        manifest = read(folder)
    except FileNotFoundError:
        return [f"{FILE} is missing"]
    except UserError as error:
        return [str(error)]
    found, expected = _digests(folder), manifest["files"]
    lost = [f"{name} is missing" for name in expected if name not in found]
    new = [f"{name} is in no manifest" for name in found if name not in expected]
    return sorted(lost + new + [f"{name} has changed" for name in expected if name in found and expected[name] != found[name]])


def read(folder: Path) -> dict[str, Any]:
    """Reads a manifest, of earlier formats too: its `files` and `arrays`.

    Raises:
      UserError: the manifest itself has changed.
      OSError: it could not be read.
    """
    text = (folder / FILE).read_bytes()
    try:
        content = json.loads(text)
    except ValueError as error:
        raise UserError(f"{FILE} has changed ({error})") from error
    if not isinstance(content, dict) or _text(content).encode() != text:
        raise UserError(f"{FILE} has changed")
    if all(isinstance(value, list) for value in content.values()):
        return {"files": content, "arrays": {}}
    own = content.pop("sha256", None)
    if content.get("format") not in (2, FORMAT) or own != _own(content):
        newer = isinstance(content.get("format"), int) and content["format"] > FORMAT
        raise UserError(f"{FILE} is of format {content['format']}, of a later release" if newer else f"{FILE} has changed")
    return content


def differing(arrays: Mapping[str, Any], expected: Mapping[str, str], checksums: Mapping[str, str]) -> list[str]:
    """Returns the names of arrays whose values are not those that a manifest was written of.

    Args:
      arrays: the arrays. Of those that this process does not hold whole only checksums are compared.
      expected: what the manifest has of them.
      checksums: their checksums.
    """

    def is_other(name: str) -> bool:
        if len(expected[name]) == len(checksums[name]):
            return expected[name] != checksums[name]
        return _is_whole(arrays[name]) and expected[name] != _sha256_of(arrays[name])  # format 2

    return [name for name in arrays if name in expected and is_other(name)]


def _is_whole(array: Any) -> bool:
    return isinstance(array, np.ndarray) or array.is_fully_addressable or array.is_fully_replicated


def _sha256_of(array: Any) -> str:
    values = np.ascontiguousarray(array)
    found = hashlib.sha256(f"{values.dtype}{np.shape(array)}".encode())
    found.update(values.reshape(-1).view(np.uint8).data)
    return found.hexdigest()


def _text(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def _own(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(_text(content).encode()).hexdigest()


def _digests(folder: Path) -> dict[str, list]:
    found = sorted(path for path in _walk(folder) if path != folder / FILE)
    return {str(path.relative_to(folder)): [path.stat().st_size, _sha256(path)] for path in found}


def _walk(folder: Path) -> Iterator[Path]:
    """Yields the files below a folder; an OSError where a folder cannot be listed, at which pathlib's rglob is silent."""

    def fail(error: OSError) -> None:
        raise error

    for top, _, names in os.walk(folder, onerror=fail):
        yield from (Path(top) / name for name in names)


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
