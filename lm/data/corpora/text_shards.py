"""Text in shards, as the streaming way of preparing a corpus leaves it (lm.data.corpora.streamed).

shards.json         of each shard the number of its documents, and the files that they are from
000012.text         UTF-8 of its documents, back to back
000012.ends.npy     where each ends: int64 [documents]
train.kept          numbers of the documents of the split, counted over all shards: int64, ascending
validation.kept
"""

import bisect
import functools
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from lm.data.store import read_json
from lm.errors import UserError

FILE = "shards.json"
PARTS = 512  # at most, into which a split is cut
LEAST = 16 << 20  # bytes of a part, at least


class TextShards:
    """Random access to the documents of one split, as lm.data.corpora.corpus.Texts; little of the text is in memory at a time."""

    def __init__(self, directory: str, split: str):
        self._directory, self._split = directory, split
        self._shards: list[dict[str, Any]] = read_json(os.path.join(directory, FILE))["shards"]
        counts = np.asarray([shard["documents"] for shard in self._shards], np.int64)
        self._starts = np.concatenate([[0], np.cumsum(counts)])
        path = kept_file(directory, split)
        self._kept = np.memmap(path, np.int64, "r") if os.path.getsize(path) else np.empty(0, np.int64)
        self._open = functools.lru_cache(maxsize=4)(self._opened)

    def __len__(self) -> int:
        return len(self._kept)

    def __getitem__(self, index: int) -> str:
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        shard, at = self._place(index)
        file, ends = self._open(shard)
        first, last = int(ends[at - 1]) if at else 0, int(ends[at])
        data = os.pread(file.fileno(), last - first, first)
        try:
            if len(data) != last - first:
                raise ValueError("the file is too short")
            return data.decode()
        except ValueError as error:
            place = text_file(self._directory, shard)
            raise UserError(f"document {index} of {place} cannot be read ({error}); delete {self._directory} and run again") from error

    def __iter__(self) -> Iterator[str]:
        return (self[i] for i in range(len(self)))

    def name(self, index: int) -> str:
        """Returns the file that a document came from, with the file's number and that of the document."""
        shard, at = self._place(index)
        spans = self._shards[shard]["spans"]
        number, name = spans[bisect.bisect_right([span[2] for span in spans], at)][:2]
        return f"{number}:{name}:{int(self._starts[shard]) + at}"

    def cut(self) -> list[tuple[int, int, int]]:
        """Returns parts of about equal size as (first document, last document + 1, bytes)."""
        first: list[int] = []  # document of each part
        begin: list[int] = []  # byte of each part
        at = end = 0  # documents and bytes so far
        least = max(LEAST, sum(os.path.getsize(text_file(self._directory, i)) for i in range(len(self._shards))) // PARTS)
        for shard in range(len(self._shards)):
            ends = np.load(ends_file(self._directory, shard))
            here = self._kept[slice(*np.searchsorted(self._kept, self._starts[shard : shard + 2]))] - self._starts[shard]
            sizes = np.diff(ends, prepend=0)[here]
            ends = end + np.cumsum(sizes)
            for part, index in zip(*np.unique((ends - 1) // least, return_index=True), strict=True):
                if part >= len(first) or not first:
                    first.append(at + int(index))
                    begin.append(int(ends[index] - sizes[index]))
            at, end = at + len(here), int(ends[-1]) if len(ends) else end
        return [(a, b, d - c) for a, b, c, d in zip(first, [*first[1:], at], begin, [*begin[1:], end], strict=True)]

    def _place(self, index: int) -> tuple[int, int]:
        number = int(self._kept[index])
        shard = int(np.searchsorted(self._starts, number, side="right")) - 1
        return shard, number - int(self._starts[shard])

    def _opened(self, shard: int) -> tuple[Any, np.ndarray]:
        try:
            return open(text_file(self._directory, shard), "rb"), np.load(ends_file(self._directory, shard))
        except (OSError, ValueError) as error:
            raise UserError(f"shard {shard} of the corpus in {self._directory} is damaged; delete that directory and run again") from error


def text_file(directory: str, shard: int) -> str:
    """Returns the file of a shard's text."""
    return os.path.join(directory, f"{shard:06d}.text")


def ends_file(directory: str, shard: int) -> str:
    """Returns the file of the ends of a shard's documents."""
    return os.path.join(directory, f"{shard:06d}.ends.npy")


def kept_file(directory: str, split: str) -> str:
    """Returns the file of the numbers of a split's documents."""
    return os.path.join(directory, f"{split}.kept")
