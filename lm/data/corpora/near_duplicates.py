"""Near-duplicate documents by MinHash over shingles: runs of five lines, and of three words where lines are few.

The resemblance of two documents is the Jaccard index of their sets of shingles (Broder 1997, "On the resemblance and
containment of documents"). The minimum of a random hash over each set agrees with that probability, so a signature of
`HASHES` minima estimates it with a standard error of at most .045. Candidates come from banding: documents that agree in
all `ROWS` minima of one band. Everything is a few numpy passes over all lines at once.

One edit of a line takes away five shingles of lines, and with them the resemblance of a document of ten lines. Its words
then tell: one word changed among W leaves a resemblance of (W - 5) / (W + 1), .5 at 11 words. The threshold for words is
higher, because documents that share the words of a template are no copies of one another. Documents that share boilerplate
and are no copies are told apart by higher thresholds (`closer`).
"""

import functools
import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from lm.data.splitmix import GOLDEN, mix

SHINGLE_LINES = 5
SHINGLE_WORDS = 3
FEW_LINES = 32  # documents of fewer lines are compared by their words too
HASHES = 128
ROWS = 2  # minima per band: 64 bands of 2 find 93% of the pairs at resemblance .2 and 99.8% at .3
THRESHOLD = 0.2  # estimated resemblance of lines from which two documents belong together
WORD_THRESHOLD = 0.5  # that of words
CLOSER_ROWS = 3  # 42 bands of 3 find 99.6% of the pairs at resemblance .5
CLOSER_THRESHOLD = 0.5
CLOSER_WORD_THRESHOLD = 0.8
BATCH = 1 << 22  # words that are hashed at once

# Scripts without blanks between words (Thai to Khmer, kana, Chinese characters): each character is a word.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
WORD = re.compile(f"[{_UNSPACED}]|[^\\s{_UNSPACED}]+")


def clusters(texts: Sequence[str], by_words: bool = False, closer: bool = False) -> np.ndarray:
    """Groups near-duplicates: returns the index of the first document of each one's cluster, int64 [documents].

    Clusters are the connected components of the pairs found: resemblance is not transitive, so two documents of a
    cluster may differ, but no document outside it was found to resemble one inside. Lines are compared without the
    blanks around them; empty lines do not count.

    Args:
      texts: the documents.
      by_words: whether documents of fewer than FEW_LINES lines are compared by their words too.
      closer: whether only closer resemblance joins two documents, by CLOSER_THRESHOLD and CLOSER_WORD_THRESHOLD.
    """
    if not len(texts):
        return np.zeros(0, np.int64)
    lines, words, rows = (CLOSER_THRESHOLD, CLOSER_WORD_THRESHOLD, CLOSER_ROWS) if closer else (THRESHOLD, WORD_THRESHOLD, ROWS)
    pairs = _pairs(signatures(texts), lines, rows)
    if by_words:
        few = np.asarray([i for i, text in enumerate(texts) if len(_lines(text)) < FEW_LINES], np.int64)
        if len(few):
            pairs = np.concatenate([pairs, few[_pairs(word_signatures([texts[i] for i in few.tolist()]), words, rows)]])
    from scipy import sparse  # takes a while to import

    edges = sparse.coo_matrix((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(len(texts), len(texts)))
    _, label = sparse.csgraph.connected_components(edges, directed=False)
    _, first = np.unique(label, return_index=True)
    return first[label].astype(np.int64)


def signatures(texts: Sequence[str]) -> np.ndarray:
    """Returns the MinHash signatures of the documents' lines, uint64 [documents, HASHES]."""
    number: dict[str, int] = {}  # lines in order of first sight, so that the hashes do not depend on the process
    return minima([[number.setdefault(line, len(number) + 1) for line in _lines(text)] for text in texts], SHINGLE_LINES)


def word_signatures(texts: Sequence[str]) -> np.ndarray:
    """Returns the MinHash signatures of the documents' words without regard to case, uint64 [documents, HASHES]."""
    number = functools.cache(hashed)
    found, batch, size = [np.zeros((0, HASHES), np.uint64)], [], 0
    for text in texts:
        batch.append([number(word) for word in WORD.findall(text.lower())])
        size += len(batch[-1])
        if size >= BATCH:
            found.append(minima(batch, SHINGLE_WORDS))
            batch, size = [], 0
    return np.concatenate([*found, minima(batch, SHINGLE_WORDS)] if batch else found)


def hashed(word: str) -> int:
    """Returns 64 bits of a word."""
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")


def _lines(text: str) -> list[str]:
    return [line for line in map(str.strip, text.split("\n")) if line]


def minima(numbers: Iterable[list[int]], size: int, hashes: int = HASHES) -> np.ndarray:
    """Returns the minima of so many hashes over each document's shingles, the runs of `size` numbers: uint64 [documents, hashes]."""
    shingles, starts = shingle_hashes(list(numbers), size)
    draws = np.random.default_rng(0).integers(0, 2**63, hashes, dtype=np.uint64)
    columns = [np.minimum.reduceat((shingles ^ draw) * GOLDEN, starts) for draw in mix(draws)]
    return np.stack(columns, axis=1)


def shingle_hashes(numbers: list[list[int]], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns hashes of all runs of `size` numbers, and where each document's begin; a shorter document is one shingle."""
    counts = np.asarray([len(each) for each in numbers], np.int64)
    flat = np.asarray([number for each in numbers for number in each] + [0], np.uint64)
    windows = np.maximum(counts - size + 1, 1)
    starts = np.cumsum(windows) - windows
    owner = np.repeat(np.arange(len(numbers)), windows)
    offset = np.arange(len(owner)) - starts[owner]
    first = (np.cumsum(counts) - counts)[owner] + offset
    shingles = np.zeros(len(owner), np.uint64)
    for j in range(size):
        inside = offset + j < counts[owner]
        shingles = mix(shingles * GOLDEN + np.where(inside, flat[np.minimum(first + j, len(flat) - 1)], np.uint64(0)))
    return shingles, starts


def _pairs(signature: np.ndarray, threshold: float, rows: int) -> np.ndarray:
    """Returns the documents that share a band and whose estimated resemblance reaches the threshold: [pairs, 2].

    Within a band's bucket a document is compared with the first and with the one before it, not with all: linear in
    the documents, and what one band misses the others find.
    """
    found = []
    for key in band_keys(signature, rows):
        order = np.argsort(key, kind="stable")
        same = key[order][1:] == key[order][:-1]
        position = np.arange(len(order))
        head = np.maximum.accumulate(np.where(np.concatenate([[True], ~same]), position, 0))
        follower = position[1:][same]
        for other in (head[follower], follower - 1):
            found.append(np.stack([order[other], order[follower]], axis=1))
    pairs = np.unique(np.concatenate(found), axis=0)
    resemblance = np.concatenate([(signature[chunk[:, 0]] == signature[chunk[:, 1]]).mean(1) for chunk in _chunks(pairs)])
    return pairs[resemblance >= threshold]


def band_keys(signature: np.ndarray, rows: int) -> Iterator[np.ndarray]:
    """Yields for each band of `rows` minima a key of each document, uint64 [documents], equal where all minima of the band are."""
    for band in range(0, signature.shape[1] - rows + 1, rows):
        key = signature[:, band]
        for row in range(band + 1, band + rows):
            key = mix(key * GOLDEN + signature[:, row])
        yield key


def _chunks(pairs: np.ndarray, size: int = 65536) -> list[np.ndarray]:
    return [pairs[i : i + size] for i in range(0, max(len(pairs), 1), size)]
