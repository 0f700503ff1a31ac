"""Every tokenizer checks text, ids and its file by these functions (imports no jax)."""

import re
from collections.abc import Iterable
from typing import SupportsInt, Union

import numpy as np

from lm.errors import UserError

# The files of tokenizers by kind, as lm.data.tokenizer names these, and how they begin.
FILES = {"huggingface": "a tokenizer.json", "sentencepiece_file": "a SentencePiece model", "tiktoken": "a file of tiktoken's ranks"}
STARTS = {"huggingface": rb"\s*\{", "sentencepiece_file": rb"\n.{0,3}\n", "tiktoken": rb"[A-Za-z0-9+/]+=* \d+\r?\n"}


def utf8(text: str) -> bytes:
    """Returns the bytes of a text. Raises UserError where it is not Unicode."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UserError(f"text is not Unicode (lone surrogate at character {error.start}); read the file as UTF-8") from error


def checked(ids: Union[np.ndarray, Iterable[SupportsInt]], vocab_size: int) -> np.ndarray:
    """Returns ids as int64. Raises UserError for one beyond the vocabulary."""
    array = np.asarray(ids if isinstance(ids, np.ndarray) else list(ids), np.int64)
    outside = array[(array < 0) | (array >= vocab_size)]
    if outside.size:
        raise UserError(f"token id {outside[0]} is outside the tokenizer's vocabulary of {vocab_size}; was the text made with another one?")
    return array


def read_file(path: str, kind: str) -> bytes:
    """Returns the content of the file of a tokenizer of this kind (FILES). Raises UserError where it cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"data.tokenizer.path={path!r}: {reason}; name {FILES[kind]} with --config.data.tokenizer.path") from error


def wrong_file(path: str, kind: str, content: bytes, reason: object) -> UserError:
    """Returns the error for a file that is none of a tokenizer of this kind. It names the kind that the file looks like, if another."""
    looks = next((name for name, start in STARTS.items() if re.match(start, content[:200])), kind)
    hint = "" if looks == kind else f"; it looks like {FILES[looks]}, for --config.data.tokenizer={looks}"
    return UserError(f"{path} is not {FILES[kind]}: {' '.join(str(reason).split())[:120]}{hint}")
