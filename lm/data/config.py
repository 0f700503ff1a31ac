"""The configuration of a data set: frozen dataclasses without jax or grain."""

import dataclasses
from typing import Literal, Optional, Union

from lm.data.objectives.config import NextToken, Objective
from lm.data.tokenizer import ByteTokenizer, HuggingFaceTokenizer, SentencePieceFile, SentencePieceTokenizer, TiktokenFile


@dataclasses.dataclass(frozen=True)
class WordChain:
    """Synthetic text of a known entropy rate (lm.data.corpora.word_chain): P(w' | w) = (1 - l) p(w') + l [w' = succ(w)], p(r) ~ r^-s."""

    words: int = 1 << 22  # W: words in the vocabulary
    exponent: float = 1.5  # s: exponent of Zipf's law
    successor: float = 0.5  # l: probability that a word is the successor of the word `lag` places before it
    lag: int = 1  # words between a word and the one that it may follow from
    words_per_document: float = 512.0  # mean; a document ends after each word with the same probability
    train_documents: int = 16_384
    validation_documents: int = 512
    seed: int = 0  # seed of the spellings, the successors and the text


@dataclasses.dataclass(frozen=True)
class Component:
    """One corpus of a mixture."""

    corpus: str = "python_sources"  # python_sources, text_files, word_chain or tfds:NAME[/CONFIG]
    paths: tuple[str, ...] = ()  # files of the corpus text_files, folders of such files, or patterns such as data/**/*.jsonl.gz
    field: Optional[str] = None  # field or column of the text of text_files, or a template such as '{title}: {body}'; none: 'text'
    lines: bool = False  # whether each line of a text file is a document; those of .tsv are (pairs: input, tab, target)
    longest_document: int = 4_000_000  # bytes of the longest document of text_files that is used
    unusable: Literal["refuse", "skip"] = "refuse"  # documents that are too long, cannot be read or have unknown ids: errors, or left out
    streamed: Optional[bool] = None  # whether text_files is prepared in bounded memory; none: where it has more than 1 GB of text
    validation_share: Optional[float] = None  # share of the documents of a streamed text_files that is held out; none: .01
    validation_paths: tuple[str, ...] = ()  # files, folders or patterns that a streamed text_files holds out, beside those of `paths`
    weight: float = 1.0  # share of the training tokens relative to the other components', exact over an epoch of the mixture
    chain: Optional[WordChain] = None  # parameters of the corpus word_chain; none: its defaults


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """The text of a run, its tokens, how they are packed into rows, and what is predicted of them."""

    components: tuple[Component, ...] = (Component(),)
    tokenizer: Union[ByteTokenizer, SentencePieceTokenizer, HuggingFaceTokenizer, SentencePieceFile, TiktokenFile] = ByteTokenizer()
    sequence_length: int = 128  # tokens of text per row
    packing: Literal["concatenate", "best_fit"] = "concatenate"  # documents cut at row ends, or whole documents and padding (best_fit)
    unique_tokens: Optional[int] = None  # train on the first documents, in a fixed shuffled order, that hold this many tokens; none: all
    allow_epochs: bool = False  # whether a run may see a token twice
    objective: Objective = NextToken()
