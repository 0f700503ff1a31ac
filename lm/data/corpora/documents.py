"""Documents on their way into a corpus: duplicates, the split into train and validation, and a measure of leakage across it."""

import collections
import dataclasses
import hashlib
from collections.abc import Iterable, Sequence

import numpy as np

from lm.data.corpora.near_duplicates import clusters

VALIDATION_SHARE = 0.05  # of the bytes, at least where units of that size or less allow it
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
    the smaller ones do not give half of that share, the next larger follow. Neither depends on the order of the files. At
    most half of the clusters are held out, and one of two documents that do not resemble each other.

    With `by_words` documents of few lines are compared by their words too, unless all then resemble one another: the words
    are those of a template, and the fact 'one_template' says so.
    """
    texts = [document.text for document in documents]
    cluster = clusters(texts, by_words)
    template = by_words and len(documents) > 1 and not cluster.any()
    cluster = clusters(texts) if template else cluster
    size = np.asarray([document.size for document in documents], np.int64)
    grouped = any(document.group for document in documents)
    unit = np.asarray([document.group for document in documents] if grouped else _names(documents, cluster))
    held_out = _held_out(unit, size, largest_group, strict=True) if grouped else _held_out(unit, size, VALIDATION_SHARE, strict=False)
    side = np.isin(unit, list(held_out))
    in_train = np.isin(cluster, cluster[~side])
    dropped["near-duplicate across the split"] += int((side & in_train).sum())
    train = [documents[i] for i in np.flatnonzero(~side).tolist()]
    validation = [documents[i] for i in np.flatnonzero(side & ~in_train).tolist()]
    facts = _facts(train, validation, sorted(held_out) if grouped else [])
    return Splits(train, validation, facts | _clusters(documents, cluster, size, in_train) | {"one_template": template})


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


def _names(documents: Sequence[Document], cluster: np.ndarray) -> list[str]:
    """Returns for each document the least digest in its cluster, which does not depend on the order of the files."""
    digests = [document.digest.hex() for document in documents]
    least: dict[int, str] = {}
    for i, digest in zip(cluster.tolist(), digests, strict=True):
        least[i] = min(digest, least.get(i, digest))
    return [least[i] for i in cluster.tolist()]


def _held_out(unit: np.ndarray, size: np.ndarray, largest: float, strict: bool) -> set[str]:
    """Returns the units to hold out: those of a share of at most `largest` in the order of their hashes, then, unless `strict`, by size."""
    unique, index = np.unique(unit, return_inverse=True)
    names = [str(name) for name in unique]
    share = np.bincount(index, weights=size) / max(size.sum(), 1)
    order = sorted(range(len(names)), key=lambda i: hashlib.sha256(names[i].encode()).digest())
    small, large = [i for i in order if share[i] <= largest], sorted((i for i in order if share[i] > largest), key=lambda i: share[i])
    chosen: list[int] = []
    for wanted, candidates in ((VALIDATION_SHARE, small), (VALIDATION_SHARE / 2, [] if strict else large)):
        for i in candidates:
            if share[chosen].sum() >= wanted or len(chosen) >= len(names) // 2:
                break
            chosen.append(i)
    return {names[i] for i in chosen}


def _clusters(documents: Sequence[Document], cluster: np.ndarray, size: np.ndarray, in_train: np.ndarray) -> dict:
    """Returns the facts about near-duplicates: their share of the documents, and the clusters with the most bytes."""
    members, bytes_of = np.bincount(cluster, minlength=len(documents)), np.bincount(cluster, weights=size, minlength=len(documents))
    several = sorted(np.flatnonzero(members > 1).tolist(), key=lambda i: (-bytes_of[i], documents[i].digest))
    return {
        "near_duplicate_share": float((members[cluster] > 1).mean()),  # of the documents, before the split: in a cluster of two or more
        "clusters": len(several),
        "largest_clusters": [
            {
                "documents": int(members[i]),
                "share": float(bytes_of[i] / max(size.sum(), 1)),  # of the bytes
                "split": "train" if in_train[i] else "validation",
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
