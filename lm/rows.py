"""The shape of a training row, which an objective lays out and the ledger counts, and the ids in it (imports no jax)."""

import dataclasses
from typing import Optional

import numpy as np


@dataclasses.dataclass(frozen=True)
class RowShape:
    """The lengths of one row of a batch, padding included.

    length           T: positions of the decoder's stream, or of the only stream
    encoder_length   S: positions of an encoder-decoder's encoder's stream; 0 without one
    predicted        P: positions that the vocabulary's head reads; None: all of `length`
    sequences        M: positions that heads per sequence read
    prefix           mean length of the part that every query of a prefix LM sees
    document_tokens  tokens of text that a row consumes, which D counts; None: as many as `length`
    fields           names of the optional fields of Batch that are there
    """

    length: int
    encoder_length: int = 0
    predicted: Optional[int] = None
    sequences: int = 0
    prefix: float = 0.0
    document_tokens: Optional[int] = None
    fields: tuple[str, ...] = ()

    @property
    def text(self) -> int:
        """Document tokens per row."""
        return self.length if self.document_tokens is None else self.document_tokens


def in_vocabulary(ids: np.ndarray, vocab_size: int) -> bool:
    """Returns whether all ids are of the vocabulary. A model that reads another one gives NaN."""
    return not ids.size or (int(ids.min()) >= 0 and int(ids.max()) < vocab_size)


def beyond(vocab_size: int) -> str:
    """Returns what an error says of an id beyond the vocabulary. Tokenisation made none, so something has changed since."""
    how = "the tokens on disk have changed since they were made: delete the folder tokens of --config.data_dir, then run it again"
    return f"beyond the model's vocabulary of {vocab_size:,}; {how}"
