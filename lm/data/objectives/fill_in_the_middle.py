"""Next-token prediction of documents whose middle is at the end.

Of a document  p m s .  (prefix, middle, suffix, end of document), as in Bavarian et al. 2022 (their SPM is the second variant):

    prefix-suffix-middle    <PRE> p <SUF> s <MID> m .
    suffix-prefix-middle    <PRE> <SUF> s <MID> p m .
"""

import dataclasses
from typing import ClassVar

import numpy as np

from lm.data.objectives.base import Objective, SpecialIds
from lm.data.objectives.draws import Draws
from lm.data.objectives.examples import Room
from lm.data.objectives.ragged import Ragged, group_before, join, single
from lm.data.own_ids import OwnIds
from lm.rows import RowShape


@dataclasses.dataclass(frozen=True)
class FillInTheMiddle(Objective):
    """Next-token prediction on documents whose middle is moved to the end (Bavarian et al. 2022).

    A row's piece of a document is permuted with probability `rate`, into prefix-suffix-middle order or, with probability `spm`,
    suffix-prefix-middle. A permuted piece always ends in the end-of-document id. The signs of prefix, suffix and
    middle are the tokenizer's own, or V-1, V-2 and V-3 of a vocabulary V.
    """

    name: ClassVar[str] = "fill_in_the_middle"
    architectures: ClassVar[tuple[str, ...]] = ("decoder",)
    shortest_chunk: ClassVar[int] = 1
    inputs_end: ClassVar[bool] = False
    continues_text: ClassVar[bool] = True

    rate: float = 0.5  # probability that a document is permuted
    spm: float = 0.5  # share of the permuted documents in suffix-prefix-middle order
    documents_per_row: int = 4  # a row has room for this many permuted pieces (4 tokens each); later ones stay in order

    def special_ids(self, own: OwnIds) -> int:
        return 0 if own.middle else 3

    def require_options(self, chunk: int) -> None:
        self.require_between_0_and_1("rate", "spm", ends=True)

    def row_shape(self, length: int, architecture: str) -> RowShape:
        return RowShape(self.room(length).total, document_tokens=length)

    def room(self, length: int) -> Room:
        """Keeps every token of a row as a target, and 4 more for each permuted piece."""
        most = length + 4 * self.documents_per_row
        return Room(0, most, most, 0.0)

    def pairs(self, chunks: Ragged, draws: Draws, ids: SpecialIds, rows: np.ndarray) -> tuple[Ragged, Ragged]:
        return single(0, np.zeros(len(chunks), bool)), self.permuted(chunks, draws, ids, rows)

    def permuted(self, pieces: Ragged, draws: Draws, ids: SpecialIds, rows: np.ndarray) -> Ragged:
        """Returns the pieces, some of them permuted; `rows` [n], sorted, are the rows they lie in."""
        body = pieces.keep(pieces.values != ids.eos)
        moved = (draws.each("permute") < self.rate) & (body.lengths >= 2)
        moved &= group_before(moved.astype(np.int64), rows) < self.documents_per_row
        suffix_first = moved & (draws.each("order") < self.spm)
        cuts = [draws.integers(f"cut {i}", body.lengths + 1) for i in range(2)]
        begin, end, none = np.minimum(*cuts), np.maximum(*cuts), np.zeros(len(body), np.int64)

        def span(where: np.ndarray, first: np.ndarray, last: np.ndarray) -> Ragged:
            return body.part(np.where(where, first, 0), np.where(where, last, 0))

        return join(
            single(ids.middle[0], moved),
            span(moved & ~suffix_first, none, begin),
            single(ids.middle[1], moved),
            span(moved, end, body.lengths),
            single(ids.middle[2], moved),
            span(suffix_first, none, begin),
            span(moved, begin, end),
            single(ids.eos, moved),
            pieces.keep(~moved[pieces.owner]),
        )

    def prompt(self, parts: list[list[int]], ids: SpecialIds) -> list[int]:
        """Takes one blank for the middle: the model reads what stands around it, and writes it."""
        if len(parts) != 2:
            return super().prompt(parts, ids)
        prefix, suffix, middle = ids.middle
        return [prefix, *parts[0], suffix, *parts[1], middle]
