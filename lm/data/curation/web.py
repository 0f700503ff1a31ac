"""Steps that look at where a document comes from, and at its lines, by lists and patterns of the user's."""

import dataclasses
import functools
import re
from typing import ClassVar, Optional, Union
from urllib.parse import urlsplit

from lm.data.curation.document import Document, Drop
from lm.data.curation.steps import Notes, Step, register
from lm.data.curation.words import words
from lm.errors import UserError


@register
@dataclasses.dataclass(frozen=True)
class URL(Step):
    """Documents go by their address, in the metadata `url`: by its domain, or by a word in it. Lists are the user's; none comes with it."""

    name: ClassVar[str] = "url"

    domains: tuple[str, ...] = ()  # these and what is below them: example.com takes www.example.com too
    words: tuple[str, ...] = ()  # of the address, between signs that are no letters or digits
    lists: tuple[str, ...] = ()  # files of domains, one in a line; # begins a comment
    required: bool = False  # whether documents without an address go

    def check(self) -> None:
        self._domains()

    def files(self) -> list[str]:
        return list(self.lists)

    def apply(self, document: Document, notes: Notes) -> Union[Document, Drop]:
        url = document.metadata.get("url")
        if not isinstance(url, str) or not url:
            return Drop("no url") if self.required else document
        try:
            host = urlsplit(url if "://" in url else f"//{url}").hostname or ""
        except ValueError:  # such as brackets that are no IPv6 address
            return Drop("no url", url[:200]) if self.required else document
        parts = host.lower().strip(".").split(".")
        listed = self._domains().intersection(".".join(parts[i:]) for i in range(len(parts)))
        if listed:
            return Drop("domain", min(listed))
        found = set(self.words) and {word.lower() for word in self.words}.intersection(re.split(r"[^a-z0-9]+", url.lower()))
        return Drop("word in the url", min(found)) if found else document

    def _domains(self) -> frozenset[str]:
        return _listed(self.domains, self.lists)


@functools.lru_cache(maxsize=16)
def _listed(domains: tuple[str, ...], lists: tuple[str, ...]) -> frozenset[str]:
    found = set(domains)
    for path in lists:
        try:
            with open(path, encoding="utf-8") as file:
                found.update(line.partition("#")[0].strip() for line in file)
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"url.lists: cannot read {path} as a list of domains ({getattr(error, 'strerror', None) or error})") from error
    return frozenset(name.lower().removeprefix("*.").strip(".") for name in found if name)


@register
@dataclasses.dataclass(frozen=True)
class Lines(Step):
    """Lines go that match a pattern or have too few words; blank lines stay."""

    name: ClassVar[str] = "lines"

    patterns: tuple[str, ...] = ()  # regular expressions; a line goes in which one is found
    least_words: int = 0

    def check(self) -> None:
        for pattern in self.patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                raise UserError(f"lines.patterns: {pattern!r} is no regular expression ({error})") from error

    def apply(self, document: Document, notes: Notes) -> Union[Document, Drop]:
        kept = []
        for line in document.text.split("\n"):
            rule = self._against(line)
            if rule:
                notes.changed(rule, line)
            else:
                kept.append(line)
        return document.with_text("\n".join(kept))

    def _against(self, line: str) -> Optional[str]:
        if not line.strip():
            return None
        if self.least_words and len(words(line)) < self.least_words:
            return "line of few words"
        matched = next((pattern for pattern in self.patterns if re.search(pattern, line)), None)
        return f"line that matches {matched}" if matched is not None else None
