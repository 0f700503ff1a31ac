"""Token caches in shards: written by every core, read as one array (imports neither jax nor grain)."""

import bisect
import contextlib
import os
import resource
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from lm.data.token_file import TokenFile

FILES_LEFT = 256  # open files of other purposes


class TokenShards:
    """Reads the ids of files that follow one another as one array: `ids.take(index)`, `ids[first:last]`. Both give copies."""

    def __init__(self, files: Sequence[TokenFile]):
        self._files = files
        self._starts = np.concatenate([[0], np.cumsum([len(file) for file in files], dtype=np.int64)])
        self._list = self._starts.tolist()

    @property
    def dtype(self) -> np.dtype:
        return self._files[0].dtype

    def __len__(self) -> int:
        return self._list[-1]

    def take(self, index: np.ndarray) -> np.ndarray:
        """Returns the ids at these places, in the shape of `index`. Raises UserError if a file is no longer what it was."""
        flat = np.asarray(index, np.int64).ravel()
        if flat.size and (flat.min() < 0 or flat.max() >= len(self)):
            raise IndexError(f"places {flat.min()} to {flat.max()} of {len(self)} ids")
        which = (np.searchsorted(self._starts, flat, side="right") - 1).astype(np.uint16)
        order = np.argsort(which, kind="stable")
        in_order = which[order]
        found = np.empty(len(flat), self.dtype)
        for at in np.split(order, np.flatnonzero(in_order[1:] != in_order[:-1]) + 1) if len(flat) else ():
            shard = int(which[at[0]])
            found[at] = self._files[shard].take(flat[at] - self._starts[shard])
        return found.reshape(np.shape(index))

    def __getitem__(self, part: slice) -> np.ndarray:
        first, last, _ = part.indices(len(self))
        shard = bisect.bisect_right(self._list, first) - 1
        pieces = []
        while first < last:
            start, end = self._list[shard], min(self._list[shard + 1], last)
            pieces.append(self._files[shard][first - start : end - start])
            first, shard = end, shard + 1
        return np.concatenate(pieces) if pieces else np.empty(0, self.dtype)


def allow_open_files(count: int) -> None:
    """Raises this process's own limit of open files, within what the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + FILES_LEFT
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


class Part:
    """Documents first to last of a split, as a split of their own."""

    def __init__(self, documents: Any, first: int, last: int):
        self._documents, self._first, self._last = documents, first, last
        if hasattr(documents, "name"):
            self.name: Callable[[int], str] = lambda i: documents.name(first + i)

    def __len__(self) -> int:
        return self._last - self._first

    def __getitem__(self, index: int) -> str:
        return self._documents[self._first + index]

    def __iter__(self) -> Iterator[str]:
        return (self[i] for i in range(len(self)))


def write_numbers(path: str, parts: Iterable[np.ndarray], count: int) -> None:
    """Writes `count` numbers as an int64 .npy, from arrays that follow one another; one of them is in memory at a time."""
    with open(path, "wb") as out:
        np.lib.format.write_array_header_1_0(out, {"descr": "<i8", "fortran_order": False, "shape": (count,)})
        for part in parts:
            out.write(np.asarray(part, "<i8").tobytes())


def shard_file(directory: str, shard: int) -> str:
    """Returns the file of a shard's ids."""
    return os.path.join(directory, f"{shard:06d}.tokens")
