"""BERT's masked language model with pairs of sentences.

text        a b c d e f            another row: u v w x y z
tokens      [CLS] a b ? [SEP] d e f [SEP]          [CLS] a b ? [SEP] x ? z [SEP]
types         0   0 0 0   0   1 1 1   1              0   0 0 0   0   1 1 1   1
label       0 (B follows A)                        1
"""

from typing import Any

import numpy as np

from lm.data.objectives.config import MaskedLM
from lm.data.objectives.draws import Draws
from lm.data.objectives.layout import place
from lm.data.objectives.ragged import Ragged, join, ranks, single
from lm.data.objectives.shape import masked_per_example
from lm.data.objectives.special import SpecialIds
from lm.rows import RowShape
from lm.types import Batch


def corrupt(objective: MaskedLM, text: Ragged, draws: Draws, ids: SpecialIds) -> tuple[Ragged, np.ndarray]:
    """(the text with masks, bool [total]: which tokens are predicted: a fixed number of each sequence's, drawn evenly)."""
    sizes, which = np.unique(text.lengths, return_inverse=True)
    count = np.asarray([masked_per_example(int(each), objective) for each in sizes], np.int64)[which]
    chosen = ranks(draws.values("predict", text), text) < count[text.owner]
    fate = draws.values("fate", text)
    other = (draws.values("other", text) * ids.tokenizer.vocab_size).astype(np.int64)
    random = (fate >= objective.replace_by_mask) & (fate < objective.replace_by_mask + objective.replace_by_random)
    replaced = np.where(fate < objective.replace_by_mask, ids.mask, np.where(random, other, text.values))
    return text.with_values(np.where(chosen, replaced, text.values)), chosen


def sentence_pairs(chunks: Ragged, others: Ragged, draws: Draws) -> tuple[Ragged, np.ndarray, np.ndarray]:
    """(text, length of A, label) of chunks of 2 tokens or more.

    B is the rest of the chunk, or in half of the pairs what lies at the same places of the other sequence, where that is as long.
    """
    cut = 1 + draws.integers("sentence", chunks.lengths - 1)
    unlike = (draws.each("pair") < 0.5) & (others.lengths == chunks.lengths)
    swapped = unlike[chunks.owner] & (chunks.place >= cut[chunks.owner])
    values = chunks.values.copy()
    values[swapped] = others.values[(others.starts[chunks.owner] + chunks.place)[swapped]]
    return chunks.with_values(values), cut, unlike.astype(np.int64)


def batch(
    objective: MaskedLM, chunks: Ragged, others: Ragged, rows: np.ndarray, count: int, draws: Draws, ids: SpecialIds, shape: RowShape
) -> Batch:
    """Rows of an encoder. `others` [n] are sequences of other rows; `rows` [n], sorted, says where a chunk lies.

    A label weighs as much as all predictions of its sequence, so that the two losses weigh the same on average, as in BERT.
    """
    text, cut, label = chunks, chunks.lengths, np.zeros(len(chunks), np.int64)
    if objective.next_sentence:
        text, cut, label = sentence_pairs(chunks, others, draws)
    noisy, chosen = corrupt(objective, text, draws, ids)
    every, second = np.ones(len(text), bool), text.place >= cut[text.owner]
    close = single(ids.top(1), every)
    end = close if objective.next_sentence else single(ids.top(1), ~every)
    sequences = join(single(ids.top(0), every), noisy.keep(~second), close, noisy.keep(second), end)
    row = place(sequences, rows, count, shape.length)
    targets = text.keep(chosen)
    out = place(targets, rows, count, int(shape.predicted or 0))
    begin = (row.at % shape.length)[sequences.starts]  # of each sequence in its row
    fields: dict[str, Any] = {}
    if objective.next_sentence:
        per_sequence = place(single(label, every), rows, count, shape.sequences)
        fields = {
            "token_types": row.fill(sequences.place >= (cut + 2)[sequences.owner]),
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
        predict=out.fill(begin[targets.owner] + (text.place + 1 + second)[chosen]),
        **fields,
    )
