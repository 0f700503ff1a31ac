"""Given pairs: `input SEPARATOR target` lines, and the tokenizer that keeps the two parts apart."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Literal, Optional, SupportsInt, Union

import numpy as np

from lm.data.objectives.base import Objective, SpecialIds
from lm.data.objectives.draws import Draws
from lm.data.objectives.examples import Room
from lm.data.objectives.ragged import Ragged, join, single
from lm.data.store import digest
from lm.data.tokenizer import Tokenizer
from lm.errors import UserError


@dataclasses.dataclass(frozen=True)
class Pairs(Objective):
    """Given pairs: every document of the corpus is one, `input SEPARATOR target`, split at the first separator (a line of a TSV file).

    Its parts are tokenised apart, and joined in the token cache by the padding's id, which text never yields. Both end in the
    end-of-document id. Rows hold whole pairs (data.packing="best_fit"); a pair longer than a row is cut into pieces of a row's
    length, and the piece with the separator is what is left of it.
    """

    name: ClassVar[str] = "pairs"
    packing: ClassVar[Optional[Literal["concatenate", "best_fit"]]] = "best_fit"
    shortest_chunk: ClassVar[int] = 1

    separator: str = "\t"  # between input and target
    loss_on_inputs: bool = False  # whether a decoder predicts the inputs too
    opened: bool = False  # whether inputs and targets begin with the tokenizer's own sign of a beginning, as facebook/bart's with <s>

    @property
    def token_key(self) -> tuple[str, ...]:
        return (self.separator, *(["opened"] if self.opened else []))

    def tokenizer(self, base: Tokenizer) -> Tokenizer:
        return PairTokenizer(base, self.separator, self.opening(base))

    def vocabulary(self, tokenizer: Tokenizer) -> int:
        """Returns the vocabulary of the text's tokens: what stands between the parts is in the token cache alone, and in no row."""
        return (tokenizer.base if isinstance(tokenizer, PairTokenizer) else tokenizer).vocab_size

    def require_options(self, chunk: int) -> None:
        if not self.separator:
            raise UserError("objective pairs needs a separator, such as a tab")

    def room(self, length: int) -> Room:
        return Room(length, length, length, length / 2)

    def pairs(self, chunks: Ragged, draws: Draws, ids: SpecialIds, rows: np.ndarray) -> tuple[Ragged, Ragged]:
        """Returns (inputs, targets) of documents, or of as much as a row holds; where no target is left, both are empty."""
        assert isinstance(ids.tokenizer, PairTokenizer)
        positions = np.where(chunks.values == ids.tokenizer.separator_id, chunks.position, len(chunks.values))
        at = np.full(len(chunks), len(chunks.values))
        np.minimum.at(at, chunks.owner, positions)
        whole = at < chunks.lengths
        split_at = np.where(whole, at, 0)
        inputs = join(chunks.part(np.zeros_like(at), split_at), single(ids.eos, whole))
        return inputs, chunks.part(np.where(whole, split_at + 1, 0), np.where(whole, chunks.lengths, 0))


class PairTokenizer:
    """A tokenizer of documents `input SEPARATOR target`, made of another: the parts are encoded apart, with `separator_id` between them.

    Each part begins with `opening`, of one id or none. The separator's id is the padding's, which text never yields, or one beyond the
    tokenizer's where padding is the end of document. `encode`, which
    makes prompts, takes text without a separator too; `encode_batch`, which makes documents, raises UserError for it.
    """

    def __init__(self, base: Tokenizer, separator: str, opening: Sequence[int] = ()):
        self.base, self.separator, self.opening, self.name = base, separator, np.asarray(opening, np.int32), base.name
        self.pad_id, self.eos_id, self.start_id, self.mask_id, self.own = base.pad_id, base.eos_id, base.start_id, base.mask_id, base.own
        self.unk_id = getattr(base, "unk_id", None)
        self.separator_id = base.vocab_size if base.pad_id == base.eos_id else base.pad_id
        self.vocab_size = max(base.vocab_size, self.separator_id + 1)
        self.fingerprint = digest("pairs", 1, base.fingerprint, separator, *opening)

    def encode(self, text: str) -> np.ndarray:
        return self.encode_batch([text])[0][len(self.opening) :] if self.separator in text else self.base.encode(text)

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        parts = []
        for text in texts:
            first, found, second = text.partition(self.separator)
            if not found:
                raise UserError(f"a document has no separator {self.separator!r} between its input and its target: {text[:40]!r}")
            parts += [first, second]
        ids, between = self.base.encode_batch(parts), np.asarray([self.separator_id], np.int32)
        begin = self.opening
        return [np.concatenate([begin, ids[i], between, begin, ids[i + 1]]) for i in range(0, len(ids), 2)]

    def require_documents(self, documents: Any) -> None:
        """Raises UserError for a piece of a text file that is many pairs, one per line. Rows of a table and objects are one pair each.

        Args:
          documents: the documents of a split; of those without `name(i)` nothing is known.
        """
        from lm.data.corpora.text_files import is_piece  # which imports this module

        name = getattr(documents, "name", None)
        if name is None:
            return
        for i in range(len(documents)):
            try:
                count = self._lines(documents[i]) if is_piece(name(i)) else 0
            except UserError:
                continue  # cannot be read, which is met when it is tokenised
            if count > 1:
                raise UserError(
                    f"a document is {count:,} lines that each hold the separator {self.separator!r}, so that all but the first would be one"
                    " target; name the file .tsv or set --config.data.components.0.lines=true, and each line is a pair"
                )

    def _lines(self, text: str) -> int:
        """Returns the number of lines if each is a pair of its own, else 0."""
        lines = [line for line in text.split("\n") if line.strip()]
        return len(lines) if all(line.partition(self.separator)[0].strip() and self.separator in line for line in lines) else 0

    def decode(self, ids: Union[np.ndarray, Iterable[SupportsInt]]) -> str:
        """Returns the text without the separator."""
        array = np.asarray(ids if isinstance(ids, np.ndarray) else list(ids), np.int64)
        return self.base.decode(array[array != self.separator_id])
