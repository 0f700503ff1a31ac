"""Measures how much of the held-out text stands in the training text, line by line, in bounded memory.

A line is looked at or not by a hash of its content, so that a line of both splits is looked at in both: the share among those is an
unbiased estimate of the share among all, which lm.data.corpora.documents.verbatim_shares gives.
"""

import hashlib
import zlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from lm.data.corpora.documents import LENGTHS, LONG_LINE

LOOKED_AT = 50_000_000  # bytes of text whose lines are looked at, about
HASHES = np.dtype([("document", "<i8"), ("hash", "<u8"), ("length", "<u2")])
_SHORTEST = min(LENGTHS)


class Lines:
    """Collects the lines of documents that are looked at: a share of all, by a hash."""

    def __init__(self, share: float):
        self._below, self._found = round(share * 2**32), bytearray()

    def add(self, document: int, text: str) -> None:
        """Adds the lines of a document, without the blanks around them."""
        for whole in text.split("\n"):
            if len(whole) < _SHORTEST or zlib.crc32(data := (line := whole.strip()).encode()) >= self._below or len(line) < _SHORTEST:
                continue
            number = int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")
            self._found += np.asarray((document, number, min(len(line), 65_535)), HASHES).tobytes()

    def array(self) -> np.ndarray:
        """Returns what was found: HASHES [lines]."""
        return np.frombuffer(bytes(self._found), HASHES)


def facts(validation: Iterable[np.ndarray], train: Iterable[np.ndarray], share: float) -> dict[str, Any]:
    """Returns the facts about the lines of validation that stand in train too, by minimum length.

    Args:
      validation: HASHES of the lines of the split, in any number of arrays.
      train: the same of the training text; one of its arrays is in memory at a time.
      share: that of the lines that were looked at.
    """
    lines = np.concatenate([np.empty(0, HASHES), *validation])
    known, place = np.unique(lines["hash"], return_inverse=True)
    found = np.zeros(len(known), bool)
    for each in train:
        found |= np.isin(known, each["hash"])
    stands, length = found[place], lines["length"]
    shares = {least: float(stands[length >= least].mean()) if (length >= least).any() else 0.0 for least in LENGTHS}
    return {
        "verbatim_share": shares[LONG_LINE],
        "verbatim_lines": int((length >= LONG_LINE).sum()),
        "verbatim_minimum_length": LONG_LINE,
        "verbatim_shares": {str(least): value for least, value in shares.items()},
        "verbatim_looked_at": share,
    }
