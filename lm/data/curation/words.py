"""Words, lines and their shares, as all steps count them.

A word is what stands between blanks, as in Gopher's rules and in Dolma; in scripts without blanks each character is one.
Other tools split punctuation off and count it as words, so their counts are a little higher.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence

from lm.data.corpora.near_duplicates import WORD

_PUNCTUATION = re.compile(r"[^\w\s]|_")
_NUMBER = re.compile(r"\d+")
_LETTER = re.compile(r"[^\W\d_]")
_SIGN = re.compile(r"\w")


def words(text: str) -> list[str]:
    """Returns the words of a text, in order."""
    return text.split() if text.isascii() else WORD.findall(text)


def normal_words(text: str) -> list[str]:
    """Returns the words of a text without regard to case, punctuation, accents and which numbers it has: each number is 0."""
    text = text.lower()
    if not text.isascii():
        text = "".join(sign for sign in unicodedata.normalize("NFD", text) if not unicodedata.combining(sign))
    return words(_NUMBER.sub("0", _PUNCTUATION.sub("", text)))


def has_letter(word: str) -> bool:
    """Returns whether a word has at least one alphabetic character."""
    return _LETTER.search(word) is not None


def is_sign_only(word: str) -> bool:
    """Returns whether a word is punctuation or symbols and nothing else."""
    return _SIGN.search(word) is None


def repeats(parts: Iterable[str]) -> tuple[int, int]:
    """Returns how many parts are equal to one before them, and their characters."""
    seen: set[str] = set()
    count = characters = 0
    for part in parts:
        if part in seen:
            count, characters = count + 1, characters + len(part)
        seen.add(part)
    return count, characters


def share(part: float, whole: float) -> float:
    """Returns part over whole; 0 of nothing."""
    return part / whole if whole else 0.0


def share_of(parts: Sequence[str], test) -> float:
    """Returns the share of the parts that pass a test; 0 of none."""
    return share(sum(map(bool, map(test, parts))), len(parts))
