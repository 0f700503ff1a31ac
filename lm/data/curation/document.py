"""What goes into a step and comes out of it: a document, or the rule under which it is dropped."""

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Document:
    """One text, and what is known of it."""

    text: str
    name: str = ""  # place that it came from, unique in its corpus
    metadata: dict[str, Any] = dataclasses.field(default_factory=dict)  # JSON values, such as url and source

    @property
    def size(self) -> int:
        """The number of UTF-8 bytes of the text."""
        return len(self.text) if self.text.isascii() else len(self.text.encode())

    def with_text(self, text: str) -> "Document":
        """Returns the document with another text, or itself where that is the same."""
        return self if text == self.text else dataclasses.replace(self, text=text)


@dataclasses.dataclass(frozen=True)
class Drop:
    """The verdict that a document goes.

    rule      name of the rule, under which it is counted
    measured  what the rule saw, for whoever reads the samples, such as "31 words, at least 50"
    """

    rule: str
    measured: str = ""
