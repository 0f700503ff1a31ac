"""What any tokenizer asks of text and of ids (imports no jax)."""

from collections.abc import Iterable
from typing import SupportsInt, Union

import numpy as np

from lm.errors import UserError


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
