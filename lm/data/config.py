"""What a data set is: frozen dataclasses without jax or grain."""

import dataclasses
from typing import Literal, Optional, Union

from lm.data.objectives.config import NextToken, Objective
from lm.data.tokenizer import ByteTokenizer, HuggingFaceTokenizer, SentencePieceTokenizer


@dataclasses.dataclass(frozen=True)
class WordChain:
    """Synthetic text of a known entropy rate (lm.data.corpora.word_chain): P(w' | w) = (1 - l) p(w') + l [w' = succ(w)], p(r) ~ r^-s."""

    words: int = 1 << 22  # W, the vocabulary
    exponent: float = 1.5  # s, Zipf's
    successor: float = 0.5  # l, the chance that a word is the successor of the one `lag` places before
    lag: int = 1
    words_per_document: float = 512.0  # the mean: a document ends after each word with the same probability
    train_documents: int = 16_384
    validation_documents: int = 512
    seed: int = 0  # of the spellings, the successors and the text


@dataclasses.dataclass(frozen=True)
class Component:
    """One corpus of a mixture.

    `corpus` is a name from lm.data.corpora ('python_sources', 'text_files', 'word_chain') or 'tfds:NAME[/CONFIG]'; `paths` are the files
    of 'text_files'; `chain` describes 'word_chain' (None: WordChain()); `weight` is its share of the documents' tokens, exact over an
    epoch of the mixture.
    """

    corpus: str = "python_sources"
    paths: tuple[str, ...] = ()
    weight: float = 1.0
    chain: Optional[WordChain] = None


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Text, its tokens, how they are packed into rows of `sequence_length` tokens of text, and what is predicted of them."""

    components: tuple[Component, ...] = (Component(),)
    tokenizer: Union[ByteTokenizer, SentencePieceTokenizer, HuggingFaceTokenizer] = ByteTokenizer()
    sequence_length: int = 128
    packing: Literal["concatenate", "best_fit"] = "concatenate"
    unique_tokens: Optional[int] = None  # nested subset of the corpus: the first documents, in shuffled order, that hold this many
    allow_epochs: bool = False  # whether a run may see a token twice
    objective: Objective = NextToken()
