"""Documents that cannot be used: the first ends the preparation of a corpus, or they are counted and left out."""

import collections
from collections.abc import Mapping
from typing import Optional

from lm.data.config import Component
from lm.errors import UserError, one_line

LONGEST = Component.longest_document
MOST = 0.1  # share of the documents that may be left out: beyond it the field, or the kind of file, is likely the wrong one
SKIP = "--config.data.components.0.unusable=skip"


class Faults:
    """What happens to documents that cannot be used, and how many there were.

    Args:
      longest: bytes of the longest document that is used.
      skip: whether those that cannot be used are counted and left out; otherwise the first is raised.
      flags: whether a command's flags can change this, which errors then say.
    """

    def __init__(self, longest: int = LONGEST, skip: bool = False, flags: bool = True):
        self.longest, self.skip, self._flags = longest, skip, flags
        self.counts: collections.Counter[str] = collections.Counter()
        self.first: Optional[str] = None

    def fresh(self) -> "Faults":
        """Returns the same policy with nothing counted."""
        return Faults(self.longest, self.skip, self._flags)

    def meet(self, reason: str, error: UserError) -> None:
        """Counts a document under a reason, or raises the error, with the flag that leaves such documents out."""
        if not self.skip:
            raise UserError(one_line(error) + (f"; or leave such documents out: {SKIP}" if self._flags else "")) from error
        self.counts[reason] += 1
        self.first = self.first or one_line(error)

    def meet_long(self, place: str) -> None:
        """Counts a document that is too long, or raises a UserError."""
        remedy = "cut it" + (", or raise --config.data.components.0.longest_document" if self._flags else "")
        self.meet("document too long", UserError(f"{place} has more than {self.longest:,} bytes; {remedy}"))

    def is_long(self, text: str) -> bool:
        """Returns whether a text has more bytes than a document may have."""
        return len(text) > self.longest or (4 * len(text) > self.longest and len(text.encode()) > self.longest)

    def add(self, counts: Mapping[str, int], first: Optional[str]) -> None:
        """Adds what was left out elsewhere."""
        self.counts.update(counts)
        self.first = self.first or first

    def require_few(self, used: int) -> None:
        """Raises UserError if more than a tenth of all documents were left out."""
        left = self.counts.total()
        if left > MOST * (left + used):
            raise UserError(
                f"{left:,} of {left + used:,} documents cannot be used, and at most {MOST:.0%} are left out; the first: {self.first}"
            )
