"""BERT's masked language model with pairs of sentences.

text        a b c d e f            another row: u v w x y z
tokens      [CLS] a b ? [SEP] d e f [SEP]          [CLS] a b ? [SEP] x ? z [SEP]
types         0   0 0 0   0   1 1 1   1              0   0 0 0   0   1 1 1   1
label       0 (B follows A)                        1
"""

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from lm.data.objectives.base import Objective, RowMaker, SpecialIds
from lm.data.objectives.draws import Draws
from lm.data.objectives.examples import PackedRows
from lm.data.objectives.ragged import Ragged, group_before, join, ranks, single
from lm.data.own_ids import OwnIds
from lm.errors import UserError
from lm.rows import RowShape

if TYPE_CHECKING:
    from lm.types import Batch


@dataclasses.dataclass(frozen=True)
class MaskedLM(Objective):
    """BERT's masked language model (Devlin et al. 2019): a share of the tokens is predicted, most of them behind a mask.

    A chunk becomes [CLS] text [SEP]; with `next_sentence`, [CLS] A [SEP] B [SEP], cut at a place drawn uniformly, where in half of the
    pairs B is text of another row, and a label per pair says whether B follows A (0, as in BERT) or not (1). Chunks are joined.
    Drawn anew in each epoch (RoBERTa's dynamic masking, Liu et al. 2019). [CLS], [SEP] and the mask are
    the tokenizer's own; where it lacks them they take the top of the model's vocabulary, in this order.
    """

    name: ClassVar[str] = "masked"
    architectures: ClassVar[tuple[str, ...]] = ("encoder",)
    inputs_end: ClassVar[bool] = False

    mask_rate: float = 0.15  # share of the tokens that is predicted
    replace_by_mask: float = 0.8  # of the predicted tokens
    replace_by_random: float = 0.1  # of the predicted tokens; the rest stays as it is
    next_sentence: bool = True  # pairs of sentences, and a label that says whether the second follows the first
    examples_per_row: int = 1  # equal chunks that a row is cut into

    def special_ids(self, own: OwnIds) -> int:
        return 2 * (not own.ends) + (own.mask is None)

    def require_options(self, chunk: int) -> None:
        self.require_between_0_and_1("mask_rate", ends=False)
        self.require_between_0_and_1("replace_by_mask", "replace_by_random", ends=True)
        if self.replace_by_mask + self.replace_by_random > 1:
            raise UserError("replace_by_mask and replace_by_random of objective masked sum to more than 1; lower one")

    def row_shape(self, length: int, architecture: str) -> RowShape:
        examples, pair = self.examples_per_row, self.next_sentence
        return RowShape(
            length + examples * (3 if pair else 2),
            predicted=examples * self.predicted(length // examples),
            sequences=examples if pair else 0,
            document_tokens=length,
            fields=("predict", "token_types", "sequence_positions", "labels", "label_weights") if pair else ("predict",),
        )

    def predicted(self, chunk: int) -> int:
        """Returns how many tokens of a chunk are predicted: never none."""
        return min(chunk, max(1, round(chunk * self.mask_rate)))

    def row_maker(self, length: int, architecture: str, ids: SpecialIds) -> RowMaker:
        shape, size = self.row_shape(length, architecture), length // self.examples_per_row

        def make(packed: PackedRows) -> "Batch":
            chunks, rows, draws = packed.chunks(size, isolated=False, shortest=self.shortest_chunk)
            others = _of_other_rows(chunks, rows, size, packed) if self.next_sentence else chunks
            return self.batch(chunks, others, rows, len(packed.rows_B), draws, ids, shape)

        return make

    def batch(
        self, chunks: Ragged, others: Ragged, rows: np.ndarray, count: int, draws: Draws, ids: SpecialIds, shape: RowShape
    ) -> "Batch":
        """Lays out rows of an encoder. `others` [n] are sequences of other rows; `rows` [n], sorted, says where a chunk lies.

        A label weighs as much as all predictions of its sequence, so that the two losses weigh the same on average, as in BERT.
        """
        from lm.data.objectives.layout import place
        from lm.types import Batch

        text, cut, label = chunks, chunks.lengths, np.zeros(len(chunks), np.int64)
        if self.next_sentence:
            text, cut, label = sentence_pairs(chunks, others, draws)
        noisy, chosen = self.corrupt(text, draws, ids)
        every, second = np.ones(len(text), bool), text.position >= cut[text.owner]
        close = single(ids.ends[1], every)
        end = close if self.next_sentence else single(ids.ends[1], ~every)
        sequences = join(single(ids.ends[0], every), noisy.keep(~second), close, noisy.keep(second), end)
        row = place(sequences, rows, count, shape.length)
        targets = text.keep(chosen)
        out = place(targets, rows, count, int(shape.predicted or 0))
        begin = (row.at % shape.length)[sequences.starts]  # of each sequence in its row
        fields: dict[str, Any] = {}
        if self.next_sentence:
            per_sequence = place(single(label, every), rows, count, shape.sequences)
            fields = {
                "token_types": row.fill(sequences.position >= (cut + 2)[sequences.owner]),
                "sequence_positions": per_sequence.fill(begin),
                "labels": per_sequence.fill(label),
                "label_weights": per_sequence.fill(targets.lengths, 0, np.float32),
            }
        return Batch(
            tokens=row.fill(sequences.values, ids.pad),
            targets=out.fill(targets.values, ids.pad),
            weights=out.fill(np.ones(len(targets.values)), 0, np.float32),
            segments=row.fill(row.segments),
            positions=row.fill(row.positions),
            predict=out.fill(begin[targets.owner] + (text.position + 1 + second)[chosen]),
            **fields,
        )

    def corrupt(self, text: Ragged, draws: Draws, ids: SpecialIds) -> tuple[Ragged, np.ndarray]:
        """Returns (the text with masks, which tokens are predicted, bool [total]): a fixed number of each sequence's, drawn evenly."""
        sizes, which = np.unique(text.lengths, return_inverse=True)
        count = np.asarray([self.predicted(int(each)) for each in sizes], np.int64)[which]
        chosen = ranks(draws.values("predict", text), text) < count[text.owner]
        fate = draws.values("fate", text)
        other = (draws.values("other", text) * ids.tokenizer.vocab_size).astype(np.int64)
        random = (fate >= self.replace_by_mask) & (fate < self.replace_by_mask + self.replace_by_random)
        replaced = np.where(fate < self.replace_by_mask, ids.mask, np.where(random, other, text.values))
        return text.with_values(np.where(chosen, replaced, text.values)), chosen


def sentence_pairs(chunks: Ragged, others: Ragged, draws: Draws) -> tuple[Ragged, np.ndarray, np.ndarray]:
    """Returns (text, length of A, label) of chunks of 2 tokens or more.

    B is the rest of the chunk, or in half of the pairs what lies at the same places of the other sequence, where that is as long.
    """
    cut = 1 + draws.integers("sentence", chunks.lengths - 1)
    unlike = (draws.each("pair") < 0.5) & (others.lengths == chunks.lengths)
    swapped = unlike[chunks.owner] & (chunks.position >= cut[chunks.owner])
    values = chunks.values.copy()
    values[swapped] = others.values[(others.starts[chunks.owner] + chunks.position)[swapped]]
    return chunks.with_values(values), cut, unlike.astype(np.int64)


def _of_other_rows(chunks: Ragged, rows: np.ndarray, size: int, packed: PackedRows) -> Ragged:
    """Returns for each chunk what lies at its places in another row, drawn for its row.

    It is empty where that row has padding there, and where the plan has one row.
    """
    plan, rows_B = packed.plan, packed.rows_B
    distance_B = 1 + Draws(packed.keys_B).integers("other", np.full(len(rows_B), len(plan) - 1))
    index_BT, segments_BT, _ = plan.gather((rows_B + distance_B) % len(plan))
    first = group_before(np.ones(len(rows), np.int64), rows) * size
    at = rows[chunks.owner], first[chunks.owner] + chunks.position
    padded = np.bincount(chunks.owner, weights=segments_BT[at] == 0, minlength=len(chunks)) > 0
    taken = Ragged(packed.flat.take(index_BT[at]).astype(np.int64), chunks.lengths)
    real_B = distance_B < len(plan)
    return taken.part(np.zeros_like(chunks.lengths), np.where(real_B[rows] & ~padded, chunks.lengths, 0))
