"""Finds documents that repeat an earlier one, by their hashes, in bounded memory."""

from collections.abc import Sequence

import numpy as np

AT_ONCE = 2_000_000  # documents whose hashes are compared at a time


def find(paths: Sequence[str], starts: np.ndarray, at_once: int = AT_ONCE) -> np.ndarray:
    """Returns the numbers of the documents whose text an earlier document has: int64, ascending.

    Args:
      paths: files of hashes, uint64 [documents, 2], that follow one another.
      starts: int64 [files + 1], the number of the first document of each.
      at_once: the number of documents that are compared at a time. Hashes are told apart by their first bits, and those that begin alike
        are compared; the files are read once for each beginning.
    """
    rounds = max(1, -(-int(starts[-1]) // at_once))
    found = []
    for turn in range(rounds):
        hashes, numbers = [], []
        for path, start in zip(paths, starts.tolist(), strict=False):
            each = np.load(path)
            here = np.flatnonzero((each[:, 0] >> np.uint64(32)) * np.uint64(rounds) >> np.uint64(32) == turn)
            hashes.append(each[here])
            numbers.append(start + here)
        both, number = np.concatenate(hashes), np.concatenate(numbers)
        order = np.lexsort((number, both[:, 1], both[:, 0]))
        same = (both[order[1:]] == both[order[:-1]]).all(axis=1)
        found.append(number[order[1:]][same])
    return np.sort(np.concatenate(found)).astype(np.int64)
