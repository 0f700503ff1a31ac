"""Clusters of items that share keys, found on disk: the memory is a bound that is given, plus 8 bytes per item.

Each place of the keys (a band of MinHash, or the one hash of an exact comparison) is looked at alone. Its keys are sorted part by part, a
part being the keys with one remainder; in each run of equal keys the first item is linked to the others. The clusters so far are a label
per item, the first item of its cluster, to which the links of each part are added.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

MEMORY = 256_000_000  # bytes of the keys that are sorted at once, with their items
BLOCK = 1 << 20  # labels that are rewritten at once


def of_keys(keys: np.ndarray) -> np.ndarray:
    """Returns for each item the first item of its cluster, int64 [items], from keys in memory, uint64 [places, items]."""
    label = np.arange(keys.shape[1])
    for place in keys:
        for links in _links([place], 1):
            _join(label, links)
    return label


def of_files(files: Sequence[str], out: str, memory: int = MEMORY, watch: Callable[[Iterable], Iterable] = iter) -> np.ndarray:
    """Writes the clusters of keys that lie in files, and returns them, mapped: for each item the first item of its cluster, int64 [items].

    Args:
      files: .npy files of keys, uint64 [places, items of this file]; items are numbered through them.
      out: path of the result, which appears whole or not at all.
      memory: bytes of keys and items that are sorted at once.
      watch: wraps the places as they are gone through, to show progress.
    """
    parts = [np.load(path, mmap_mode="r") for path in files]
    items, places = sum(part.shape[1] for part in parts), parts[0].shape[0]
    temporary = out + ".tmp"
    label: Any = np.lib.format.open_memmap(temporary, "w+", np.int64, (items,)) if items else np.zeros(0, np.int64)
    label[:] = np.arange(items)
    for place in watch(range(places)):
        for links in _links([part[place] for part in parts], -(-16 * items // memory)):
            _join(label, links)
    if items:
        label.flush()
    else:
        with open(temporary, "wb") as file:
            np.save(file, label)
    os.replace(temporary, out)
    return label


def sizes(label: np.ndarray) -> np.ndarray:
    """Returns the items of each cluster at the place of its first item, and 0 elsewhere: int64 [items]."""
    return np.bincount(label, minlength=len(label))


def _links(keys: Sequence[np.ndarray], parts: int) -> Iterator[np.ndarray]:
    """Yields pairs of items with equal keys, the first of a run and one that follows, int64 [2, links]; one array for each part."""
    for part in range(max(parts, 1) if any(map(len, keys)) else 0):
        key, item = [], []
        begin = 0
        for each in keys:
            inside = np.flatnonzero(each % np.uint64(parts) == part) if parts > 1 else np.arange(len(each))
            key.append(each[inside])
            item.append(inside + begin)
            begin += len(each)
        found, number = np.concatenate(key), np.concatenate(item)
        if not len(found):  # no key has this remainder
            continue
        order = np.argsort(found, kind="stable")
        found, number = found[order], number[order]
        same = np.concatenate([[False], found[1:] == found[:-1]])
        head = np.maximum.accumulate(np.where(same, 0, np.arange(len(found))))
        yield np.stack([number[head[same]], number[same]])


def _join(label: np.ndarray, links: np.ndarray) -> None:
    """Adds links to the clusters that `label` holds, in place."""
    from scipy import sparse  # takes a while to import

    ends = label[links]
    ends = ends[:, ends[0] != ends[1]]
    if not ends.size:
        return
    old, place = np.unique(ends, return_inverse=True)
    place = place.reshape(2, -1)
    edges = sparse.coo_matrix((np.ones(place.shape[1], bool), (place[0], place[1])), shape=(len(old), len(old)))
    _, component = sparse.csgraph.connected_components(edges, directed=False)
    _, first = np.unique(component, return_index=True)
    new = old[first[component]]  # the least of each component, since `old` is sorted
    for begin in range(0, len(label), BLOCK):
        block = label[begin : begin + BLOCK]
        at = np.minimum(np.searchsorted(old, block), len(old) - 1)
        label[begin : begin + BLOCK] = np.where(old[at] == block, new[at], block)
