"""Plans that lay out documents in rows of a fixed length (imports neither jax nor grain).

A plan is made of pieces, and a piece is a run of tokens of one document. A piece names the tokens that are *predicted*; their inputs are
the tokens before them, so the piece that opens a document has the preceding end-of-document id as its first input:

    documents   a b c .   d e .        (. ends a document)         rows of 4, concatenated
    row 0       targets  a b c .       inputs  . a b c
    row 1       targets  d e .  ...    inputs  . d e  ...

Every token is the target of exactly one position in an epoch: no overlap between rows, no target across documents.
"""

import contextlib
import dataclasses
import os
import zipfile
from collections.abc import Callable

import numpy as np

from lm.data.store import new_file
from lm.errors import UserError


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """Rows of pieces: row r is made of the pieces `row_starts[r] : row_starts[r + 1]`, whose lengths sum to `length`."""

    length: int
    row_starts: np.ndarray  # int64 [rows + 1]
    sources: np.ndarray  # int64 [pieces]: index of the first target in the flat tokens; -1: padding
    lengths: np.ndarray  # int32 [pieces]
    padded: bool  # whether any piece is padding

    def __len__(self) -> int:
        return len(self.row_starts) - 1

    def gather(self, rows_B: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns (index, segments, positions), each [B, T], of some rows.

        `index` is where each target lies in the flat tokens (1 under padding). Segments count from 1 in a row, 0 is padding;
        positions restart at 0 with each piece. No Python loop: the cost is one gather over B x T.
        """
        rows, length = len(rows_B), self.length
        first = self.row_starts[rows_B]
        count = self.row_starts[rows_B + 1] - first
        ends = np.cumsum(count)
        total = int(ends[-1])
        ordinal = np.arange(total) - np.repeat(ends - count, count)  # of the piece in its row
        pieces = ordinal + np.repeat(first, count)
        lengths, sources = self.lengths[pieces], self.sources[pieces]
        which = np.repeat(np.arange(total), lengths)
        positions = np.arange(rows * length) - (np.cumsum(lengths, dtype=np.int64) - lengths)[which]
        index = sources[which] + positions
        segments = (ordinal + 1)[which]
        if self.padded:
            real = (sources >= 0)[which]
            segments, positions, index = segments * real, positions * real, np.where(real, index, 1)
        shape = (rows, length)
        return index.reshape(shape), segments.reshape(shape), positions.reshape(shape)

    def row_tokens(self) -> np.ndarray:
        """Returns the targets of each row that are not padding: int64 [rows]."""
        if not self.padded:
            return np.full(len(self), self.length, np.int64)
        return np.add.reduceat(np.where(self.sources >= 0, self.lengths, 0), self.row_starts[:-1], dtype=np.int64)


def concatenate(starts: np.ndarray, lengths: np.ndarray, length: int) -> Plan:
    """Lays out documents back to back, cut every `length` tokens; the last, incomplete row is left out.

    `starts`, `lengths` [documents]: where a document lies in the flat tokens, in the order in which the documents are laid out.
    """
    ends = np.cumsum(lengths)
    rows = int(ends[-1]) // length if len(ends) else 0
    begins = ends - lengths
    cuts = np.arange(rows, dtype=np.int64) * length
    at = np.union1d(begins[begins < rows * length], cuts)  # where pieces begin in the concatenation
    document = np.searchsorted(ends, at, side="right")
    return Plan(
        length,
        row_starts=np.searchsorted(at, np.append(cuts, rows * length)),
        sources=starts[document] + at - begins[document],
        lengths=np.diff(np.append(at, rows * length)).astype(np.int32),
        padded=False,
    )


def best_fit(starts: np.ndarray, lengths: np.ndarray, length: int) -> Plan:
    """Packs whole documents by best-fit decreasing (Ding et al. 2024, arXiv:2404.10830); only those longer than a row are cut.

    Whole rows are cut off long documents; what remains goes, longest first, to the row with the least room that holds it; rows are padded.
    Equal lengths are taken in the order given. The number of rows depends on the lengths alone, not on the order.
    Rows come out sorted by the length of their longest piece: shuffle them before taking a part.
    """
    whole, rest = lengths // length, lengths % length
    long_documents = np.repeat(np.arange(len(lengths)), whole)
    nth = np.arange(len(long_documents)) - np.repeat(np.cumsum(whole) - whole, whole)
    order = np.argsort(-rest, kind="stable")
    order = order[rest[order] > 0]
    row_of = _assign(rest[order], length) + len(long_documents)
    rows = np.concatenate([np.arange(len(long_documents)), row_of])
    sources = np.concatenate([starts[long_documents] + nth * length, (starts + whole * length)[order]])
    sizes = np.concatenate([np.full(len(long_documents), length), rest[order]])
    room = length - np.bincount(rows, weights=sizes).astype(np.int64)
    short = np.flatnonzero(room)
    rows, sources, sizes = np.append(rows, short), np.append(sources, np.full(len(short), -1)), np.append(sizes, room[short])
    by_row = np.argsort(rows, kind="stable")
    return Plan(
        length,
        row_starts=np.searchsorted(rows[by_row], np.arange(len(room) + 1)),
        sources=sources[by_row].astype(np.int64),
        lengths=sizes[by_row].astype(np.int32),
        padded=len(short) > 0,
    )


def _assign(sizes: np.ndarray, length: int) -> np.ndarray:
    """Returns the bin of each item, from 0. A bit set of the rooms in use finds the tightest bin in O(length / 64)."""
    bins_by_room: list[list[int]] = [[] for _ in range(length + 1)]
    in_use, opened = 0, 0
    bins = np.empty(len(sizes), np.int64)
    for i, size in enumerate(sizes.tolist()):
        fitting = in_use >> size
        if fitting:
            room = size + (fitting & -fitting).bit_length() - 1
            chosen = bins_by_room[room].pop()
            if not bins_by_room[room]:
                in_use ^= 1 << room
        else:
            room, chosen, opened = length, opened, opened + 1
        bins[i] = chosen
        if room > size:
            bins_by_room[room - size].append(chosen)
            in_use |= 1 << (room - size)
    return bins


def reordered(plan: Plan, order: np.ndarray) -> Plan:
    """Returns the same rows in another order."""
    count = np.diff(plan.row_starts)[order]
    ends = np.cumsum(count)
    pieces = np.arange(len(plan.sources)) + np.repeat(plan.row_starts[:-1][order] - (ends - count), count)
    return dataclasses.replace(plan, row_starts=np.append(0, ends), sources=plan.sources[pieces], lengths=plan.lengths[pieces])


ALGORITHMS: dict[str, Callable[[np.ndarray, np.ndarray, int], Plan]] = {"concatenate": concatenate, "best_fit": best_fit}


def count_rows(lengths: np.ndarray, length: int, algorithm: str) -> int:
    """Returns the rows of an epoch: the same number for every order of the documents."""
    if algorithm == "concatenate":
        return int(lengths.sum()) // length
    return int(np.sum(lengths // length)) + int(_assign(-np.sort(-(lengths % length)[lengths % length > 0]), length).max(initial=-1)) + 1


def cached(path: str, length: int, build: Callable[[], Plan]) -> Plan:
    """Reads the plan in the file `path`, or builds it and writes it there.

    The file is a cache only: a damaged one (the archive has checksums) is made anew, and on a disk that cannot be written the plan
    stays in memory.
    """
    with contextlib.suppress(OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile), np.load(path) as file:
        return Plan(length, file["row_starts"], file["sources"], file["lengths"], bool(file["padded"]))
    plan = build()
    with contextlib.suppress(UserError), new_file(path) as temporary, open(temporary, "wb") as out:
        np.savez(out, row_starts=plan.row_starts, sources=plan.sources, lengths=plan.lengths, padded=np.asarray(plan.padded))
    return plan


def plan_path(data_dir: str, key: str) -> str:
    """Returns the file of a plan (`Mixture.plan_key`)."""
    return os.path.join(data_dir, "plans", key + ".npz")
