"""Names the fields that hold the text of a document: one, or several in a template."""

import re
from collections.abc import Sequence
from typing import Optional

from lm.errors import UserError

FIELD = "--config.data.components.0.field"
_NAMED = re.compile(r"\{([^{}]+)\}")


class Fields:
    """The fields of a document's text, by what --config.data.components.0.field says: 'content', or '{title}: {content}'; none: 'text'.

    `names` are those that are read, and `text` makes one text of their values; a null counts as ''.
    """

    def __init__(self, said: Optional[str] = None):
        found = tuple(dict.fromkeys(_NAMED.findall(said or "")))
        self.names: tuple[str, ...] = found or (said or "text",)
        self._template = said if found else None

    def text(self, values: Sequence[Optional[str]]) -> str:
        """Returns the text of a document from the values of `names`; '' where all are empty."""
        if self._template is None:
            return values[0] or ""
        if not any(values):
            return ""
        of = dict(zip(self.names, values, strict=True))
        return _NAMED.sub(lambda match: of[match[1]] or "", self._template)


def absent(place: str, what: str, name: str, names: Sequence[str], texts: Sequence[str]) -> UserError:
    """Returns the error for a document or table that lacks a field, with those that it has."""
    advice = f"name the one of your text: {FIELD}={texts[0]}" if texts else "give it one"
    return UserError(f"{place} has no {what} {name!r} that holds text (it has {', '.join(names) or 'none'}); {advice}")
