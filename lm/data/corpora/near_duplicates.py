"""Near-duplicate documents by MinHash over shingles of five lines.

The resemblance of two documents is the Jaccard index of their sets of shingles (Broder 1997, "On the resemblance and
containment of documents"). The minimum of a random hash over each set agrees with that probability, so a signature of
`HASHES` minima estimates it with a standard error of at most .045. Candidates come from banding: documents that agree in
all `ROWS` minima of one band. Everything is a few numpy passes over all lines at once.
"""

from collections.abc import Sequence

import numpy as np
from scipy import sparse

from lm.data.splitmix import GOLDEN, mix

SHINGLE_LINES = 5
HASHES = 128
ROWS = 2  # minima per band: 64 bands of 2 find 93% of the pairs at resemblance .2 and 99.8% at .3
THRESHOLD = 0.2  # estimated resemblance from which two documents belong together


def clusters(texts: Sequence[str]) -> np.ndarray:
    """Groups near-duplicates: returns the index of the first document of each one's cluster, int64 [documents].

    Clusters are the connected components of the pairs found: resemblance is not transitive, so two documents of a
    cluster may differ, but no document outside it was found to resemble one inside. Lines are compared without the
    blanks around them; empty lines do not count.
    """
    if not len(texts):
        return np.zeros(0, np.int64)
    pairs = _pairs(signatures(texts))
    edges = sparse.coo_matrix((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(len(texts), len(texts)))
    _, label = sparse.csgraph.connected_components(edges, directed=False)
    _, first = np.unique(label, return_index=True)
    return first[label].astype(np.int64)


def signatures(texts: Sequence[str]) -> np.ndarray:
    """Returns the MinHash signatures, uint64 [documents, HASHES]."""
    shingles, starts = _shingles(texts)
    draws = np.random.default_rng(0).integers(0, 2**63, HASHES, dtype=np.uint64)
    columns = [np.minimum.reduceat((shingles ^ draw) * GOLDEN, starts) for draw in mix(draws)]
    return np.stack(columns, axis=1)


def _shingles(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Returns hashes of all runs of five lines, and where each document's begin; a shorter document is one shingle."""
    number: dict[str, int] = {}  # lines in order of first sight, so that the hashes do not depend on the process
    lines: list[int] = []
    counts = np.zeros(len(texts), np.int64)
    for document, text in enumerate(texts):
        ids = [number.setdefault(line, len(number) + 1) for line in map(str.strip, text.split("\n")) if line]
        lines += ids
        counts[document] = len(ids)
    windows = np.maximum(counts - SHINGLE_LINES + 1, 1)
    starts = np.cumsum(windows) - windows
    owner = np.repeat(np.arange(len(texts)), windows)
    offset = np.arange(len(owner)) - starts[owner]
    first_line = (np.cumsum(counts) - counts)[owner] + offset
    line = np.asarray([*lines, 0], np.uint64)
    shingles = np.zeros(len(owner), np.uint64)
    for j in range(SHINGLE_LINES):
        inside = offset + j < counts[owner]
        shingles = mix(shingles * GOLDEN + np.where(inside, line[np.minimum(first_line + j, len(lines))], np.uint64(0)))
    return shingles, starts


def _pairs(signature: np.ndarray) -> np.ndarray:
    """Returns the documents that share a band and whose estimated resemblance reaches THRESHOLD: [pairs, 2].

    Within a band's bucket a document is compared with the first and with the one before it, not with all: linear in
    the documents, and what one band misses the others find.
    """
    found = []
    for band in range(0, HASHES, ROWS):
        key = mix(signature[:, band] * GOLDEN + signature[:, band + 1])
        order = np.argsort(key, kind="stable")
        same = key[order][1:] == key[order][:-1]
        position = np.arange(len(order))
        head = np.maximum.accumulate(np.where(np.concatenate([[True], ~same]), position, 0))
        follower = position[1:][same]
        for other in (head[follower], follower - 1):
            found.append(np.stack([order[other], order[follower]], axis=1))
    pairs = np.unique(np.concatenate(found), axis=0)
    resemblance = np.concatenate([(signature[chunk[:, 0]] == signature[chunk[:, 1]]).mean(1) for chunk in _chunks(pairs)])
    return pairs[resemblance >= THRESHOLD]


def _chunks(pairs: np.ndarray, size: int = 65536) -> list[np.ndarray]:
    return [pairs[i : i + size] for i in range(0, max(len(pairs), 1), size)]
