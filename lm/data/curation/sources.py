"""Reads the documents of files, by the readers of corpora, with fields that are carried along, such as a document's address."""

import itertools
import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Optional

from lm.data.corpora import readers
from lm.data.corpora.faults import Faults
from lm.data.curation.document import Document
from lm.errors import UserError

LEAST = 16 << 20  # bytes of a unit of work, at least, where files allow it
UNITS = 4096  # of a curation, about, at most
_BETWEEN = "\x1f"  # the unit separator of ASCII, between fields that are carried along and the text


class Span(NamedTuple):
    """A part of a file."""

    path: str
    number: int  # of the file
    piece: int  # number of the part
    part: tuple[int, Optional[int]]  # bytes, or groups of rows
    size: int  # bytes


class Reading(NamedTuple):
    """How documents are read: the field of the text or a template, fields to keep, whether each line is one, and what cannot be used."""

    field: Optional[str]
    keep: tuple[str, ...]
    lines: bool
    longest: int
    skip: bool

    def template(self) -> Optional[str]:
        """Returns what readers take for a field: the one of the text, or a template of those that are kept and the text's."""
        if not self.keep:
            return self.field
        text = self.field or "text"
        return _BETWEEN.join([f"{{{name}}}" for name in self.keep] + [text if "{" in text else f"{{{text}}}"])


def units(files: Sequence[str], field: Optional[str], least: int = LEAST) -> list[list[Span]]:
    """Returns the units of work: parts of large files that can be divided, and small files together. They depend on the files alone.

    `field` is what readers take for the field of the text.
    """
    total = sum(map(os.path.getsize, files))
    least = max(least, total // UNITS)
    found: list[list[Span]] = []
    size = least
    for span in itertools.chain.from_iterable(_spans(path, number, field, least) for number, path in enumerate(files)):
        if size >= least:
            found.append([])
            size = 0
        found[-1].append(span)
        size += span.size
    return found


def _spans(path: str, number: int, field: Optional[str], least: int) -> Iterator[Span]:
    size, kind = os.path.getsize(path), readers.Kind(path)
    count = max(size // least, 1) if kind.divisible(field) else 1
    end = size
    if count > 1:
        with readers.reading(path), open(path, "rb") as raw:
            groups = readers.groups(path, raw, field)
        if groups is not None:
            end, count = groups, max(min(count, groups), 1)
    for index in range(count):
        part = (end * index // count, end * (index + 1) // count) if count > 1 else (0, None)
        yield Span(path, number, index, part, size * (index + 1) // count - size * index // count)


def documents(spans: Sequence[Span], reading: Reading, faults: Faults) -> Iterator[Document]:
    """Yields the documents of parts of files, '' for one that is null."""
    for span in spans:
        name = f"{span.number}:{os.path.basename(span.path)}" + f":part {span.piece}" * (span.piece > 0)
        texts = readers.read(span.path, reading.template(), reading.lines, faults, span.part)
        try:
            for index, text in enumerate(texts):
                document = _document(text, f"{name}:{index}", reading.keep, faults)
                if document is not None:
                    yield document
        except UserError as error:
            if any(f"{noun} '{field}'" in str(error) for noun in ("field", "column") for field in reading.keep):
                raise UserError(f"{str(error).partition(';')[0]}; leave it out of --keep") from error
            raise


def _document(text: str, name: str, keep: tuple[str, ...], faults: Faults) -> Optional[Document]:
    if not keep or not text:
        return Document(text, name)
    *values, text = text.split(_BETWEEN)
    if len(values) != len(keep):
        faults.meet("document with a control character", UserError(f"the document {name} has the character U+001F, which parts fields"))
        return None
    return Document(text, name, dict(zip(keep, values, strict=True)))
