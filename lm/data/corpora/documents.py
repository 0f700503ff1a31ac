"""Documents on their way into a corpus: duplicates, the split into train and validation, and a measure of leakage across it."""

import collections
import dataclasses
import hashlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from lm.data.corpora.near_duplicates import clusters

VALIDATION_SHARE = 0.05  # of the bytes, at least where units of that size or less allow it
LARGEST_CLUSTER = 2 * VALIDATION_SHARE  # of the bytes: no cluster of several documents that is larger is held out
LEAST_SHARE = VALIDATION_SHARE / 5  # of the bytes: less is no validation split of a text whose large clusters are in train
# How documents of large clusters are told apart, in this order: by closer resemblance; and by their lines alone, because documents of
# few lines and of one template resemble one another by their words.
CUTS = {"closer": True, "lines": False}  # whether words count
LISTED = 3  # largest clusters that a corpus records
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


def split(documents: Sequence[Document], dropped: collections.Counter, largest_group: float = 0.02, by_words: bool = True) -> Splits:
    """Splits documents by cluster of near-duplicates and by group, so that text of one side does not return on the other.

    With groups, whole groups are held out, in the order of a hash of their names and none larger than `largest_group`
    of all bytes, until VALIDATION_SHARE is reached; a document of theirs that resembles a training document is dropped.
    Without groups, whole clusters are held out in the order of a hash of their first text, none larger than VALIDATION_SHARE
    of all bytes: a large cluster is boilerplate that the documents share, or one text many times, and stays in train. Where
    the smaller ones do not give half of that share, the next larger follow: single documents, and clusters of up to
    LARGEST_CLUSTER. Neither depends on the order of the files. At most half of the clusters are held out, and one of two
    documents that do not resemble each other.

    Where that does not give half of the share either, documents of the large clusters are told apart (CUTS), and the fact
    'told_apart' says how. What remains one cluster is one text many times. The fact 'alike' says that there is such a cluster
    and next to nothing could be held out.

    With `by_words` documents of few lines are compared by their words too.
    """
    texts = [document.text for document in documents]
    size = np.asarray([document.size for document in documents], np.int64)
    found = cluster = clusters(texts, by_words)
    grouped = any(document.group for document in documents)
    name = np.asarray([document.group for document in documents]) if grouped else _names(documents, cluster)
    units, told_apart = _units(name, size), ""
    held_out = _held_out(units, largest_group if grouped else VALIDATION_SHARE, strict=grouped)
    for cut in () if grouped else CUTS:
        large = np.flatnonzero(np.isin(name, [unit.name for unit in units if unit.is_large]))
        if not len(large) or _share(held_out) >= VALIDATION_SHARE / 2:
            break
        cluster = cluster.copy()
        cluster[large] = large[clusters([texts[i] for i in large.tolist()], by_words and CUTS[cut], closer=True)]
        name, told_apart = _names(documents, cluster), cut
        units = _units(name, size)
        held_out = _held_out(units, VALIDATION_SHARE, strict=False)
    side = np.isin(name, [unit.name for unit in held_out])
    in_train = np.isin(cluster, cluster[~side])
    dropped["near-duplicate across the split"] += int((side & in_train).sum())
    train = [documents[i] for i in np.flatnonzero(~side).tolist()]
    validation = [documents[i] for i in np.flatnonzero(side & ~in_train).tolist()]
    facts = _facts(train, validation, sorted(unit.name for unit in held_out) if grouped else [])
    if not grouped:
        facts |= {"told_apart": told_apart, "alike": _share(held_out) < LEAST_SHARE and any(unit.is_large for unit in units)}
    return Splits(train, validation, facts | _clusters(documents, found, size, in_train))


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


def _names(documents: Sequence[Document], cluster: np.ndarray) -> np.ndarray:
    """Returns for each document the least digest in its cluster, which does not depend on the order of the files."""
    digests = [document.digest.hex() for document in documents]
    least: dict[int, str] = {}
    for i, digest in zip(cluster.tolist(), digests, strict=True):
        least[i] = min(digest, least.get(i, digest))
    return np.asarray([least[i] for i in cluster.tolist()])


class _Unit(NamedTuple):
    """A group or cluster of documents that is held out as a whole."""

    name: str
    share: float  # of the bytes
    members: int  # documents

    @property
    def is_large(self) -> bool:
        """True for a cluster of several documents that is too large to be held out."""
        return self.members > 1 and self.share > LARGEST_CLUSTER


def _units(name: np.ndarray, size: np.ndarray) -> list[_Unit]:
    """Returns the units that the documents belong to, in the order of their names' hashes."""
    unique, index, members = np.unique(name, return_inverse=True, return_counts=True)
    share = np.bincount(index, weights=size) / max(size.sum(), 1)
    units = [_Unit(str(each), *facts) for each, *facts in zip(unique, share.tolist(), members.tolist(), strict=True)]
    return sorted(units, key=lambda unit: hashlib.sha256(unit.name.encode()).digest())


def _held_out(units: Sequence[_Unit], largest: float, strict: bool) -> list[_Unit]:
    """Returns the units to hold out: those of a share of at most `largest`, in order, then, unless `strict`, the next larger by size."""
    small = [unit for unit in units if unit.share <= largest]
    larger = sorted((unit for unit in units if unit.share > largest and not unit.is_large), key=lambda unit: unit.share)
    chosen: list[_Unit] = []
    share = 0.0
    for wanted, candidates in ((VALIDATION_SHARE, small), (VALIDATION_SHARE / 2, [] if strict else larger)):
        for unit in candidates:
            if share >= wanted or len(chosen) >= len(units) // 2:
                break
            chosen.append(unit)
            share += unit.share
    return chosen


def _share(units: Sequence[_Unit]) -> float:
    return sum(unit.share for unit in units)


def _clusters(documents: Sequence[Document], cluster: np.ndarray, size: np.ndarray, in_train: np.ndarray) -> dict:
    """Returns the facts about near-duplicates: their share of the documents, and the clusters with the most bytes."""
    members, bytes_of = np.bincount(cluster, minlength=len(documents)), np.bincount(cluster, weights=size, minlength=len(documents))
    sides = {(False,): "validation", (True,): "train", (False, True): "both"}
    several = sorted(np.flatnonzero(members > 1).tolist(), key=lambda i: (-bytes_of[i], documents[i].digest))
    return {
        "near_duplicate_share": float((members[cluster] > 1).mean()),  # of the documents, before the split: in a cluster of two or more
        "clusters": len(several),
        "largest_clusters": [
            {
                "documents": int(members[i]),
                "share": float(bytes_of[i] / max(size.sum(), 1)),  # of the bytes
                "split": sides[tuple(sorted(set(in_train[cluster == i].tolist())))],
                "example": documents[i].name,
            }
            for i in several[:LISTED]
        ],
    }


def _facts(train: list[Document], validation: list[Document], held_out: list[str]) -> dict:
    shares = verbatim_shares(train, validation)
    sides = {"train": train, "validation": validation}
    return {
        "documents": {name: len(side) for name, side in sides.items()},
        "bytes": {name: sum(document.size for document in side) for name, side in sides.items()},
        "verbatim_share": shares[LONG_LINE][0],
        "verbatim_lines": shares[LONG_LINE][1],
        "verbatim_minimum_length": LONG_LINE,
        "verbatim_shares": {str(length): share for length, (share, _) in shares.items()},
        "held_out": held_out,
    }


def _lines(text: str, shortest: int) -> list[str]:
    return [line for line in map(str.strip, text.split("\n")) if len(line) >= shortest]
