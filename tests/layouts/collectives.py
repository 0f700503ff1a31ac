"""What collectives of a compiled program carry."""

import re
from typing import NamedTuple

import numpy as np

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
LINE = re.compile(rf"= (?P<shape>.*?) (?P<kind>{'|'.join(KINDS)})(-start)?\(")
SHAPE = re.compile(r"\b([a-z]+)(\d+)\[([\d,]*)\]")


class Collective(NamedTuple):
    kind: str
    shapes: tuple[tuple[int, ...], ...]  # of its results
    bytes: int  # of all results, on one device


def collectives(text: str) -> list[Collective]:
    """Every collective in the text of a compiled program, once each, however often a loop runs it."""
    found = []
    for line in text.splitlines():
        match = LINE.search(line)
        if match:
            arrays = [(int(bits), tuple(map(int, filter(None, dims.split(","))))) for _, bits, dims in SHAPE.findall(match["shape"])]
            total = sum(bits // 8 * int(np.prod(dims)) for bits, dims in arrays)
            found.append(Collective(match["kind"], tuple(dims for _, dims in arrays), total))
    return found
