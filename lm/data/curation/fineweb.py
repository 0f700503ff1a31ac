"""The rules that FineWeb added to those of C4 and Gopher (Penedo et al. 2024, arXiv:2406.17557, section 3.6, as its code has them)."""

import dataclasses
from typing import ClassVar, Union

from lm.data.curation.document import Document, Drop
from lm.data.curation.steps import Notes, Step, register
from lm.data.curation.words import repeats, share, share_of, words


@register
@dataclasses.dataclass(frozen=True)
class FineWeb(Step):
    """Documents go that are lists, or whose lines are no sentences or repeats. Blank lines do not count, but for newlines over words."""

    name: ClassVar[str] = "fineweb_quality"

    least_punctuated: float = 0.12  # share of the lines that end in one of `ends`
    ends: tuple[str, ...] = (".", "?", "!", '"', "'")
    most_short: float = 0.67  # share of the lines of at most `short` characters
    short: int = 30
    most_repeated: float = 0.01  # characters of repeated lines, as a share of all but newlines
    most_newlines: float = 0.3  # newlines over words

    def apply(self, document: Document, notes: Notes) -> Union[Document, Drop]:
        text = document.text
        lines = [line for line in text.split("\n") if line.strip()]
        punctuated = share_of(lines, lambda line: line.endswith(self.ends))
        if punctuated < self.least_punctuated:
            return Drop("lines without terminal punctuation", f"{punctuated:.4g} of the lines have it")
        short = share_of(lines, lambda line: len(line) <= self.short)
        if short > self.most_short:
            return Drop("short lines", f"{short:.4g} of the lines")
        repeated = share(repeats(lines)[1], len(text) - text.count("\n"))
        if repeated > self.most_repeated:
            return Drop("characters of repeated lines", f"{repeated:.4g} of the characters")
        newlines = share(text.count("\n"), len(words(text)))
        return Drop("newlines", f"{newlines:.4g} a word") if newlines > self.most_newlines else document
