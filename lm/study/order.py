"""The order in which workers try cells: by what is compiled, and not all the same ones at a time (imports no jax)."""

import collections
import os
import pathlib
import random
from collections.abc import Iterable, Iterator
from typing import Any, Optional

from lm.study import leases


def order(root: pathlib.Path, cells: list[dict[str, Any]], shape_key: Optional[str], *, is_first: bool = False) -> Iterator[dict[str, Any]]:
    """Yields the free cells, best first: those of the shape just compiled, then of shapes that nobody works on, then the rest.

    So one worker compiles each executable, and others read it from the cache when they come to help. Longer cells go first, but for a
    study's first cells (`is_first`), which are its shortest: a broken recipe shows early.
    """
    held = {cell["id"] for cell in cells if leases.holder(root / "cells" / cell["id"]) is not None}
    busy = {cell["shape_key"] for cell in cells if cell["id"] in held}
    work: dict[str, float] = collections.defaultdict(float)  # seconds of free cells, by shape
    for cell in cells:
        work[cell["shape_key"]] += cell["seconds"] * (cell["id"] not in held)

    def rank(cell: dict[str, Any]) -> tuple:
        key = cell["shape_key"]
        if is_first:
            return (cell["seconds"],)
        return (key != shape_key, key in busy, -work[key], key, -cell["seconds"])

    yield from sorted((cell for cell in cells if cell["id"] not in held), key=rank)


def spread(cells: Iterable[dict[str, Any]], at: int, drawn: random.Random) -> Iterator[dict[str, Any]]:
    """Yields cells that are ordered best first, so that workers which look at the same moment do not all try the same ones.

    The first is the one at the worker's place among those that start together. Each further one is asked for because another worker was
    faster: it is drawn among the best two that are left, the best four, and so on, which takes a number of tries that grows with the
    logarithm of the number of workers.

    Args:
        cells: free cells, best first
        at: the worker's place among those that start together
        drawn: where random numbers are drawn
    """
    left, reach = list(cells), 1
    while left:
        yield left.pop(at % len(left) if reach == 1 else drawn.randrange(min(reach, len(left))))
        reach *= 2


def place() -> int:
    """Returns the place of this worker among those of its job array; 0 elsewhere."""
    task = os.environ.get("SLURM_ARRAY_TASK_ID", "")
    return int(task) if task.isdecimal() else 0
