"""Next-token prediction, and the inputs that predict a document."""

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from lm.data.objectives.base import Objective, RowMaker, SpecialIds
from lm.data.objectives.examples import PackedRows
from lm.rows import RowShape

if TYPE_CHECKING:
    from lm.types import Batch


@dataclasses.dataclass(frozen=True)
class NextToken(Objective):
    """Predicts every token from those before it in its document."""

    name: ClassVar[str] = "next_token"
    architectures: ClassVar[tuple[str, ...]] = ("decoder",)
    likelihood: ClassVar[Literal["text", "pairs"]] = "text"
    inputs_end: ClassVar[bool] = False
    continues_text: ClassVar[bool] = True

    def require(self, length: int, architecture: str, packing: str) -> None:
        """Accepts any row of text."""

    def row_shape(self, length: int, architecture: str) -> RowShape:
        return RowShape(length)

    def row_maker(self, length: int, architecture: str, ids: SpecialIds) -> RowMaker:
        return lambda packed: next_token(packed, ids)


def next_token(packed: PackedRows, ids: SpecialIds) -> "Batch":
    """Makes rows of next-token prediction; arrays [B, T], numpy.

    No token is added at the beginning of a document: the input that predicts its first token is the end-of-document id before it
    (GPT-2's convention), or in its place the tokenizer's start id (Llama's), at position 0 of that document's segment. Attention among
    isolated documents therefore never looks across documents, and every token, the first and the end of document included, is predicted
    exactly once per epoch. A document that runs over into another row continues there as a new segment, without its earlier context.

        documents  a b .  c d .           targets    a b . c d .
                                          tokens     . a b . c d
                                          segments   1 1 1 2 2 2
                                          positions  0 1 2 0 1 2
    """
    from lm.types import Batch

    index_BT, segments_BT, positions_BT = packed.plan.gather(packed.rows_B)
    targets_BT, tokens_BT = packed.flat.take(index_BT).astype(np.int32), packed.flat.take(index_BT - 1).astype(np.int32)
    if ids.start != ids.eos:  # no text yields the end-of-document id, so it is an input only where a document begins
        tokens_BT = np.where(tokens_BT == ids.eos, ids.start, tokens_BT)
    weights_BT = np.ones(index_BT.shape, np.float32)
    if packed.plan.padded:
        real_BT = segments_BT > 0
        targets_BT, tokens_BT = np.where(real_BT, targets_BT, ids.pad), np.where(real_BT, tokens_BT, ids.pad)
        weights_BT = real_BT.astype(np.float32)
    fields: list[Any] = [tokens_BT, targets_BT, weights_BT, segments_BT.astype(np.int32), positions_BT.astype(np.int32)]
    return Batch(*fields)


def inputs_of(document: np.ndarray, start_id: int) -> np.ndarray:
    """Returns the inputs [n] that predict a whole document [n] ending in the end of document: the start id first, then all but the last.

    Evaluation feeds these to a model, and so does generation from a prompt, in agreement with `next_token`.
    """
    return np.concatenate([np.asarray([start_id], document.dtype), document[:-1]])
