"""How much of a text its tokens lose: the bytes that decode(encode(text)) does not give back (imports no jax).

The likelihood of a text is that of its tokens only where they determine the text. A tokenizer that drops characters, or writes many
as one, is a likelihood of less text, which divided by all bytes looks low.
"""

import collections
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from lm.data.tokenizer import Tokenizer
from lm.errors import UserError, counted

SAMPLE = 4_000_000  # bytes of a split, from its beginning, that are read back; prepared corpora are shuffled, so it is a fair sample
LEAST_SAMPLE = 50_000  # bytes of each part of a split that is tokenised in parts
TOLERATED = 1e-3  # share of bytes; more than it could shift a loss by what separates neighbouring sizes
LOSSLESS = "take a tokenizer that gives back every byte (bytes, sentencepiece, or one with byte fallback)"
REMEDY = f"{LOSSLESS}, or remove from the text what this one does not keep"


def lost_bytes(text: str, back: str) -> int:
    """Returns the bytes of `text` that are missing in `back`, or those of the blanks that `back` adds, whichever are more.

    Characters are counted and not aligned, which is linear in the length and exact where characters were dropped or replaced by others
    that the text lacks. One blank before a text, which many tokenizers write, tells nothing and is no loss.
    """
    if back in (text, " " + text):
        return 0
    missing, added = collections.Counter(text), collections.Counter(back)
    gone = sum(count * len(character.encode()) for character, count in (missing - added).items())
    blanks = sum(count * len(character.encode()) for character, count in (added - missing).items() if character.isspace())
    return min(max(gone, blanks), len(text.encode()))


class RoundTrip:
    """Counts over the documents given to `add`, until they hold `sample` bytes."""

    def __init__(self, tokenizer: Tokenizer, sample: int = SAMPLE):
        self._sample = sample
        self._tokenizer: Tokenizer = tokenizer
        self._base: Tokenizer = getattr(tokenizer, "base", tokenizer)  # of pairs, that of each part
        self.documents = self.altered = self.bytes = self.lost = 0
        self._example = ""

    def add(self, texts: Sequence[str], ids: Sequence[np.ndarray]) -> None:
        for text, encoded in zip(texts, ids, strict=True):
            if self.full:
                return
            altered = False
            for part, part_ids in self._parts(text, encoded):
                back = self._base.decode(part_ids[part_ids != getattr(self._base, "unk_id", None)])
                lost = lost_bytes(part, back)
                self.bytes, self.lost, altered = self.bytes + len(part.encode()), self.lost + lost, altered or bool(lost)
                if lost and not self._example:
                    self._example = _first_difference(part, back)
            self.documents, self.altered = self.documents + 1, self.altered + altered

    def _parts(self, text: str, ids: np.ndarray) -> Iterable[tuple[str, np.ndarray]]:
        """Returns what was encoded by itself, with its ids: the document, or both parts of a pair (lm.data.objectives.pairs)."""
        if self._base is self._tokenizer:
            return [(text, ids)]
        first, _, second = text.partition(getattr(self._tokenizer, "separator", ""))
        at = int(np.argmax(ids == getattr(self._tokenizer, "separator_id", None)))
        return [(first, ids[:at]), (second, ids[at + 1 :])]

    @property
    def full(self) -> bool:
        return self.bytes >= self._sample

    @property
    def record(self) -> dict[str, Any]:
        """The counts and an example as JSON: documents and bytes read back, those altered and lost, how one began to differ."""
        counts = {"documents": self.documents, "altered": self.altered, "bytes": self.bytes, "lost": self.lost}
        return counts | ({"example": self._example} if self._example else {})


def joined(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the counts of several parts as one record."""
    counts = {name: sum(record[name] for record in records) for name in ("documents", "altered", "bytes", "lost")}
    example = next((record["example"] for record in records if "example" in record), "")
    return counts | ({"example": example} if example else {})


def in_words(record: Mapping[str, Any]) -> str:
    """Says a record of losses in one line."""
    altered, share = f"{record['altered']:,} of {counted(record['documents'], 'document')}", share_of([record])
    return f"the tokenizer does not give {altered} back: {share:.2%} of their bytes are lost (such as {record['example']})"


def share_of(records: Sequence[Mapping[str, Any]]) -> float:
    """Returns the share of the bytes read that were lost."""
    return sum(record["lost"] for record in records) / max(sum(record["bytes"] for record in records), 1)


def is_measured(info: Mapping[str, Any]) -> bool:
    """Returns whether the losses of all splits are known: caches of an earlier version do not have them until they are prepared again."""
    return None not in (info.get("lost_bytes") or {}).values()


def problem(info: Mapping[str, Any], remedy: str = REMEDY) -> str:
    """Says why the likelihood of this text per byte would mislead, and what to do; '' where it does not. `info` is that of lm.data.info."""
    share = max((share for share in (info.get("lost_bytes") or {}).values() if share is not None), default=0.0)
    if share <= TOLERATED:
        return ""
    return f"the tokenizer loses {share:.2%} of the text's bytes, so that nats per byte would be those of less text; {remedy}"


def require(info: Mapping[str, Any], remedy: str = REMEDY) -> None:
    """Raises UserError where a likelihood per byte would mislead."""
    found = problem(info, remedy)
    if found:
        raise UserError(found)


def _first_difference(text: str, back: str) -> str:
    at = next((i for i, (a, b) in enumerate(zip(text, back, strict=False)) if a != b), min(len(text), len(back)))
    start = max(at - 8, 0)
    return f"{text[start : at + 16]!r} -> {back[start : at + 16]!r}"
