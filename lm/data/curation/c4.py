"""The rules of C4 (Raffel et al. 2020, JMLR 21:140, section 2.2, and what its code does beyond the paper)."""

import dataclasses
import re
from typing import ClassVar, Optional, Union

from lm.data.curation.document import Document, Drop
from lm.data.curation.steps import Notes, Step, register

_CITATION = re.compile(r"\[(?:\d*|edit|citation needed)\]")
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"'”’)\]]*\s+")


@register
@dataclasses.dataclass(frozen=True)
class C4(Step):
    """Lines go that are not sentences, and documents in which too few sentences are left.

    Marks of citations, such as [3] and [edit], are taken out of the lines that stay. A sentence ends in . ? or ! before a blank.
    """

    name: ClassVar[str] = "c4_quality"

    terminal: bool = True  # whether lines have to end in one of `ends`; FineWeb leaves this off
    ends: tuple[str, ...] = (".", "?", "!", '"', "'")
    least_words: int = 3  # of a line
    longest_word: int = 1_000  # characters
    least_sentences: int = 5  # of what is left
    policies: tuple[str, ...] = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")

    def apply(self, document: Document, notes: Notes) -> Union[Document, Drop]:
        kept, count = [], 0
        for raw in document.text.splitlines():
            stripped = raw.strip()
            line = _CITATION.sub("", stripped) if "[" in stripped else stripped
            rule = self._against(stripped.split(), line)
            if rule is None or rule in ("lorem ipsum", "curly bracket"):
                if rule:
                    return Drop(rule, line[:200])
                kept.append(line)
                count += len(sentences(line))
            elif line:
                notes.changed(rule, line)
        if count < self.least_sentences:
            return Drop("too few sentences", f"{count}")
        return document.with_text("\n".join(kept).strip())

    def _against(self, line_words: list[str], line: str) -> Optional[str]:
        """Returns the rule by which a line goes; by some of them the whole document does."""
        low = line.lower()
        if any(len(word) > self.longest_word for word in line_words):
            return "line with a long word"
        if self.terminal and (not line.endswith(self.ends) or line.endswith("...")):
            return "line without terminal punctuation"
        if len(line_words) < self.least_words:
            return "line of few words"
        if "lorem ipsum" in low:
            return "lorem ipsum"
        if "javascript" in low:
            return "line with javascript"
        if "{" in line:
            return "curly bracket"
        return "line of a policy" if any(policy in low for policy in self.policies) else None


def sentences(line: str) -> list[str]:
    """Returns the sentences of a line; what stands after the last end is one too."""
    return [part for part in _SENTENCE_END.split(line) if part]
