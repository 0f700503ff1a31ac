"""Documents on their way into a corpus: duplicates, the split into train and validation, and a measure of leakage across it."""

import collections
import dataclasses
import hashlib
from collections.abc import Iterable, Sequence

import numpy as np

from lm.data.corpora.near_duplicates import clusters

VALIDATION_SHARE = 0.05  # of the bytes, at least
# Characters from which a line is long. The share that stands in train depends on it: short lines are mostly idioms of the
# language that any two programs share, so all of LENGTHS are recorded beside the one that is judged.
LONG_LINE = 40
LENGTHS = (20, 30, LONG_LINE, 60, 80)


@dataclasses.dataclass(frozen=True)
class Document:
    """One text of a corpus."""

    name: str  # unique in its corpus
    text: str
    group: str = ""  # what is held out as a whole, such as a distribution; '': nothing

    @property
    def size(self) -> int:
        """The number of UTF-8 bytes of the text."""
        return len(self.text.encode())

    @property
    def digest(self) -> bytes:
        return hashlib.sha256(self.text.encode()).digest()


@dataclasses.dataclass(frozen=True)
class Splits:
    """The documents of the two splits, and the facts about them that a corpus records."""

    train: list[Document]
    validation: list[Document]
    info: dict


def without_repeats(documents: Iterable[Document], dropped: collections.Counter) -> list[Document]:
    """Returns the first of each set of equal texts, and counts the others under 'exact duplicate'."""
    first: dict[bytes, Document] = {}
    for document in documents:
        if first.setdefault(document.digest, document) is not document:
            dropped["exact duplicate"] += 1
    return list(first.values())


def split(documents: Sequence[Document], dropped: collections.Counter, largest_group: float = 0.02) -> Splits:
    """Splits documents by cluster of near-duplicates and by group, so that text of one side does not return on the other.

    With groups, whole groups are held out, in the order of a hash of their names and none larger than `largest_group`
    of all bytes, until VALIDATION_SHARE is reached; a document of theirs that resembles a training document is dropped.
    Without groups, whole clusters are held out in the order of a hash of their first text. Neither depends on the order
    of the files. At least one document stays on each side of two documents that do not resemble each other.
    """
    cluster = clusters([document.text for document in documents])
    size = np.asarray([document.size for document in documents], np.int64)
    grouped = any(document.group for document in documents)
    unit = np.asarray([document.group for document in documents] if grouped else [documents[i].digest.hex() for i in cluster.tolist()])
    held_out = _held_out(unit, size, largest_group if grouped else 1.0)
    side = np.isin(unit, list(held_out))
    in_train = np.isin(cluster, cluster[~side])
    dropped["near-duplicate across the split"] += int((side & in_train).sum())
    train = [documents[i] for i in np.flatnonzero(~side).tolist()]
    validation = [documents[i] for i in np.flatnonzero(side & ~in_train).tolist()]
    members = np.bincount(cluster, minlength=len(documents))[cluster]
    return Splits(train, validation, _facts(train, validation, sorted(held_out) if grouped else [], float((members > 1).mean())))


def verbatim_shares(train: Sequence[Document], validation: Sequence[Document]) -> dict[int, tuple[float, int]]:
    """Returns, by minimum length, the share of the validation's lines that stand in train too, and the number of its lines.

    A line is compared without the blanks around it and counts as often as it occurs.
    """
    shortest = min(LENGTHS)
    known = {line for document in train for line in _lines(document.text, shortest)}
    lines = [line for document in validation for line in _lines(document.text, shortest)]
    size = np.asarray([len(line) for line in lines], np.int64)
    stands = np.asarray([line in known for line in lines], bool)
    return {
        length: (float(stands[size >= length].sum() / max((size >= length).sum(), 1)), int((size >= length).sum())) for length in LENGTHS
    }


def _held_out(unit: np.ndarray, size: np.ndarray, largest: float) -> set[str]:
    unique, index = np.unique(unit, return_inverse=True)
    names = [str(name) for name in unique]
    bytes_of = np.bincount(index, weights=size)
    total, held = bytes_of.sum(), 0.0
    chosen: set[str] = set()
    for i in sorted(range(len(names)), key=lambda i: hashlib.sha256(names[i].encode()).digest()):
        if held >= VALIDATION_SHARE * total or len(chosen) == len(names) - 1:
            break
        if bytes_of[i] <= largest * total:
            chosen.add(names[i])
            held += bytes_of[i]
    return chosen


def _facts(train: list[Document], validation: list[Document], held_out: list[str], near_duplicates: float) -> dict:
    shares = verbatim_shares(train, validation)
    sides = {"train": train, "validation": validation}
    return {
        "documents": {name: len(side) for name, side in sides.items()},
        "bytes": {name: sum(document.size for document in side) for name, side in sides.items()},
        "near_duplicate_share": near_duplicates,  # of the documents, before the split: in a cluster of two or more
        "verbatim_share": shares[LONG_LINE][0],
        "verbatim_lines": shares[LONG_LINE][1],
        "verbatim_minimum_length": LONG_LINE,
        "verbatim_shares": {str(length): share for length, (share, _) in shares.items()},
        "held_out": held_out,
    }


def _lines(text: str, shortest: int) -> list[str]:
    return [line for line in map(str.strip, text.split("\n")) if len(line) >= shortest]
