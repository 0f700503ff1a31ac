"""The base class of objectives, and the ids and lengths that they speak of (imports no jax).

An objective makes rows of text into rows that a model trains on. It is a frozen dataclass, derived from `Objective`, that answers every
question about itself: a new one is a file with its class and an entry in the union in lm.data.objectives.config. Most objectives
cut a row into chunks and make a pair (inputs, targets) of each; these define `lengths` and `pairs`, and what the pairs look like in a row
under each architecture is inherited. An objective that lays out its rows by itself defines `row_shape` and `row_maker`.
"""

import dataclasses
import math
from typing import TYPE_CHECKING, ClassVar, Literal, Optional, Protocol, Self

import numpy as np
from numpy.typing import ArrayLike

from lm.data.objectives.draws import Draws
from lm.data.objectives.examples import Examples, PackedRows, Room
from lm.data.objectives.ragged import Ragged
from lm.data.own_ids import OwnIds
from lm.data.tokenizer import Tokenizer
from lm.errors import UserError
from lm.rows import RowShape

if TYPE_CHECKING:
    from lm.types import Batch

Documents = Literal["joined", "isolated"]


@dataclasses.dataclass(frozen=True)
class Spread:
    """A length that may depend on a draw: its mean, its standard deviation and the most it can be."""

    mean: float
    deviation: float
    most: int

    def room(self, examples: int) -> int:
        """Returns the tokens kept for so many examples: their mean and 4 standard deviations, or the most that there can be."""
        return min(examples * self.most, math.ceil(examples * self.mean + 4 * math.sqrt(examples) * self.deviation))


def exactly(length: int) -> Spread:
    """Returns the spread of a length that no draw changes."""
    return Spread(length, 0.0, length)


class RowMaker(Protocol):
    """Makes a Batch of some rows of a plan."""

    def __call__(self, packed: PackedRows) -> "Batch": ...


@dataclasses.dataclass(frozen=True)
class Objective:
    """A way to make rows of text into examples; the defaults are those of objectives that make pairs of chunks.

    A row holds `length` tokens of text. It is cut into `examples_per_row` equal chunks. `documents` says what a chunk is: "joined" (T5),
    all its tokens whatever documents they are of, ends of documents included; or "isolated", each document's part of it on its own.
    `loss_on_inputs`: a decoder, which reads inputs and targets as one sequence, predicts the inputs too (T5's language model baseline).
    """

    name: ClassVar[str]
    architectures: ClassVar[tuple[str, ...]] = ("decoder", "prefix_lm", "encoder_decoder")  # those it can train
    likelihood: ClassVar[Literal["text", "pairs"]] = "pairs"  # held-out loss is that of whole documents, or of the targets of pairs
    packing: ClassVar[Optional[Literal["concatenate", "best_fit"]]] = None  # the only packing of rows it can take; None: any
    shortest_chunk: ClassVar[int] = 2  # chunks of fewer tokens are left out
    inputs_end: ClassVar[bool] = True  # whether inputs end in the end-of-document id
    continues_text: ClassVar[bool] = False  # whether what a model writes continues the prompt

    # Options of an objective on chunks, which overrides them by fields.
    examples_per_row = 1
    documents = "isolated"
    loss_on_inputs = False
    opened = False

    # ---- vocabulary and tokens ----

    def special_ids(self, own: OwnIds) -> int:
        """Returns how many ids it needs at the top of the vocabulary, above the text's, beside those of the tokenizer's own."""
        return 0

    def needed_sentinels(self, chunk: int) -> int:
        """Returns how many sentinels a chunk of so many tokens may need."""
        return 0

    def vocabulary(self, tokenizer: Tokenizer) -> int:
        """Returns the smallest vocabulary of a model: the tokenizer's ids and its own."""
        return tokenizer.vocab_size + self.special_ids(tokenizer.own)

    def require_vocabulary(self, tokenizer: Tokenizer, vocab_size: int, length: int) -> None:
        """Raises UserError if a model's vocabulary is too small, or the tokenizer's own sentinels too few for rows of `length` tokens.

        JAX would clamp ids beyond a vocabulary without a word.
        """
        self.opening(tokenizer)
        chunk, own = length // self.examples_per_row, len(tokenizer.own.sentinels)
        if own and self.needed_sentinels(chunk) > own:
            raise UserError(
                f"chunks of {chunk} tokens need {self.needed_sentinels(chunk)} sentinels and the tokenizer has {own};"
                f" set --config.data.objective.examples_per_row={2 * self.examples_per_row}, or a shorter --config.data.sequence_length"
            )
        needed = self.vocabulary(tokenizer)
        if needed > vocab_size:
            text = tokenizer.vocab_size
            more, other = (f" and objective {self.name} needs {needed - text} more", "objective") if needed > text else ("", "tokenizer")
            raise UserError(
                f"the tokenizer has {text} ids{more} but the model a vocabulary of {vocab_size};"
                f" set --config.model.vocab_size={needed} for a new model, or take another {other}"
            )

    def opening(self, tokenizer: Tokenizer) -> list[int]:
        """Returns the id that inputs and targets begin with, if any. Raises UserError where `opened` asks for one that there is not."""
        if self.opened and not tokenizer.own.ends:
            raise UserError(
                f"objective {self.name} is to open texts as the tokenizer does, which puts no sign before a text: set"
                " --config.data.objective.opened=false"
            )
        return [tokenizer.own.ends[0]] if self.opened else []

    @property
    def token_key(self) -> tuple[str, ...]:
        """The options that change the tokens of a document; part of the name of a prepared data set."""
        return ()

    def tokenizer(self, base: Tokenizer) -> Tokenizer:
        """Returns the tokenizer that makes documents into tokens, given that of plain text."""
        return base

    # ---- refusals ----

    def require(self, length: int, architecture: str, packing: str) -> None:
        """Raises UserError unless its options are in range and rows of `length` tokens can be made (the architecture is one of its own)."""
        if self.loss_on_inputs and architecture != "decoder":
            raise UserError(
                f"loss_on_inputs is for a decoder, and a model of architecture {architecture} sees its inputs:"
                " set --config.data.objective.loss_on_inputs=false"
            )
        if self.packing not in (None, packing):
            raise UserError(f"objective {self.name} needs rows of whole documents; set --config.data.packing={self.packing}")
        examples = self.examples_per_row
        if examples < 1 or length % examples:
            advice = (
                f"--config.data.sequence_length={max(length - length % examples, 2 * examples)}"
                if examples > 0
                else "--config.data.objective.examples_per_row=1"
            )
            raise UserError(f"data.sequence_length={length} cannot be cut into examples_per_row={examples} chunks; set {advice}")
        if length // examples < 2:
            raise UserError(
                "a chunk has fewer than 2 tokens; raise --config.data.sequence_length or lower --config.data.objective.examples_per_row"
            )
        self.require_options(length // examples)

    def require_options(self, chunk: int) -> None:
        """Raises UserError for options that are out of range for chunks of so many tokens."""

    def require_between_0_and_1(self, *options: str, ends: bool) -> None:
        """Raises UserError unless these options lie between 0 and 1, or may be 0 and 1 too (`ends`)."""
        for option in options:
            value = getattr(self, option)
            if not (0 <= value <= 1 if ends else 0 < value < 1):
                raise UserError(f"{option}={value} of objective {self.name} must lie between 0 and 1" + ", or be one of them" * ends)

    # ---- rows ----

    def row_shape(self, length: int, architecture: str) -> RowShape:
        """Returns the shape of a training row that consumes `length` tokens of text."""
        room = self.room(length)
        if architecture == "encoder_decoder":
            fields = ("encoder_tokens", "encoder_segments", "encoder_positions")
            return RowShape(room.targets, room.inputs, document_tokens=length, fields=fields)
        predicted = None if self.loss_on_inputs else room.targets
        if architecture == "decoder":
            return RowShape(room.total, predicted=predicted, document_tokens=length, fields=() if predicted is None else ("predict",))
        visible = room.mean_inputs / self.examples_per_row + 1  # the token that opens a sequence is visible too
        prefix = min(_one_prefix(visible, self.examples_per_row), room.total)
        return RowShape(room.total, predicted=predicted, prefix=prefix, document_tokens=length, fields=("prefix", "predict"))

    def room(self, length: int) -> Room:
        """Returns the tokens kept for a row's pairs.

        Lengths that a draw decides get room for the mean and 4 standard deviations of a row's sum, or for the most there can be if that is
        less. What exceeds the room is cut off the row's end, as T5 does: below 1e-3 of the targets. Isolated documents get further room,
        enough where they average 64 tokens.
        """
        examples = self.examples_per_row
        inputs, targets, total = self.lengths(length // examples)
        slack = length // 16 + 8 if self.documents == "isolated" else 0
        room_in, room_out = inputs.room(examples) + slack, targets.room(examples) + slack
        return Room(room_in, room_out, min(total.room(examples) + 2 * slack, room_in + room_out), examples * inputs.mean)

    def lengths(self, chunk: int) -> tuple[Spread, Spread, Spread]:
        """Returns the lengths of the inputs, of the targets and of both together, for a chunk of so many tokens."""
        raise NotImplementedError  # asked only of objectives that make pairs of chunks

    def pairs(self, chunks: Ragged, draws: Draws, ids: "SpecialIds", rows: np.ndarray) -> tuple[Ragged, Ragged]:
        """Returns (inputs, targets) of chunks; `rows` [n], sorted, are the rows that they lie in."""
        raise NotImplementedError  # likewise

    def examples(self, packed: PackedRows, ids: "SpecialIds") -> Examples:
        """Returns the pairs of some rows, before they are cut to a row's room."""
        size = packed.plan.length // self.examples_per_row
        chunks, rows, draws = packed.chunks(size, self.documents == "isolated", self.shortest_chunk)
        return Examples(*self.pairs(chunks, draws, ids, rows), rows, len(packed.rows_B))

    def row_maker(self, length: int, architecture: str, ids: "SpecialIds") -> RowMaker:
        """Returns the function that makes a Batch of some rows of a plan."""
        from lm.data.objectives import layout  # a Batch is a jax type

        shape, room = self.row_shape(length, architecture), self.room(length)
        lay_out = layout.encoder_decoder if architecture == "encoder_decoder" else layout.causal
        return lambda packed: lay_out(self.examples(packed, ids).fitted(room), shape, ids.start, ids.pad)

    def targets_only(self) -> Self:
        """Returns the objective that makes the same pairs and predicts their targets alone."""
        # mypy sees the default above, which objectives on chunks override by a field; only a field can be True.
        return dataclasses.replace(self, loss_on_inputs=False) if self.loss_on_inputs else self  # type: ignore[call-arg]  # an objective whose flag is True has the field

    # ---- prompts ----

    def prompt(self, parts: list[list[int]], ids: "SpecialIds") -> list[int]:
        """Returns the inputs of a text with blanks between its encoded `parts`. Raises UserError where it has no id for a blank."""
        filled = [i for number, part in enumerate(parts[1:]) for i in (self.blank(number, ids), *part)]
        return [*self.opening(ids.tokenizer), *parts[0], *filled, *([ids.eos] if self.inputs_end else [])]

    def blank(self, number: int, ids: "SpecialIds") -> int:
        """Returns the id of a blank in the inputs, numbered from 0. Raises UserError if there is none."""
        raise UserError(
            f"objective {self.name} has no id for blank {number + 1} of the prompt: give fewer, leave --blank out, or name an"
            " objective that fills it, such as --config.data.objective=span_corruption"
        )


@dataclasses.dataclass(frozen=True, eq=False)
class SpecialIds:
    """The ids that an objective uses beside the text's; its own descend from the top of the model's vocabulary.

    The end of a sequence is the tokenizer's end-of-document id. So is a decoder's first input, unless the tokenizer names another.
    """

    tokenizer: Tokenizer
    objective: Objective
    vocab_size: int

    @property
    def eos(self) -> int:
        return self.tokenizer.eos_id

    @property
    def start(self) -> int:
        return self.tokenizer.start_id

    @property
    def pad(self) -> int:
        return self.tokenizer.pad_id

    @property
    def mask(self) -> int:
        """The tokenizer's mask, or the lowest of the objective's own ids."""
        own = self.tokenizer.own
        return own.mask if own.mask is not None else self.vocab_size - self.objective.special_ids(own)

    @property
    def ends(self) -> tuple[int, ...]:
        """The ids that open an encoder's sequence and close its parts: the tokenizer's own, or the top of the vocabulary."""
        return self.tokenizer.own.ends or tuple(self.top([0, 1]).tolist())

    @property
    def middle(self) -> tuple[int, ...]:
        """The signs of a prefix, a suffix and a middle: the tokenizer's own, or the top of the vocabulary."""
        return self.tokenizer.own.middle or tuple(self.top([0, 1, 2]).tolist())

    def sentinel(self, i: ArrayLike) -> np.ndarray:
        """Returns the i-th sentinel, from 0: the tokenizer's own, or the i-th id from the top of the vocabulary."""
        own = np.asarray(self.tokenizer.own.sentinels, np.int64)
        return own[np.clip(i, 0, len(own) - 1)] if len(own) else self.top(i)

    def count_of_sentinels(self, kept: int) -> int:
        """Returns how many sentinels there are, if the objective keeps so many."""
        return min(kept, len(self.tokenizer.own.sentinels) or kept)

    def top(self, i: ArrayLike) -> np.ndarray:
        """Returns the i-th id from the top of the vocabulary, from 0."""
        return self.vocab_size - 1 - np.asarray(i)


def _one_prefix(length: float, count: int) -> float:
    """Returns the length of one prefix with as many pairs (query, later visible key) as `count` prefixes: x(x-1) = count l(l-1)."""
    return 0.5 + math.sqrt(0.25 + count * length * (length - 1))
