"""The shape of a training row (imports no jax): what an objective lays out and the ledger counts."""

import dataclasses
from typing import Optional


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
