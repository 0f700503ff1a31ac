"""Reads web archives: the text of a .wet, and records of plain text in a .warc (ISO 28500)."""

from collections.abc import Iterator
from typing import IO

from lm.data.corpora.faults import Faults
from lm.errors import UserError

BLOCK = 1 << 20  # bytes that are skipped at a time
HEADER = 65_536  # bytes of the longest line of a header


def documents(path: str, stream: IO[bytes], faults: Faults) -> Iterator[str]:
    """Yields the text of each record that holds plain text. Raises UserError for a file that breaks off, and for one of pages alone."""
    start = pages = texts = 0
    while (found := _header(path, stream, start)) is not None:
        header, size = found
        start += size
        length, place = int(header["content-length"]), f"{path} record at byte {start}"
        kind, content = header.get("warc-type", ""), header.get("content-type", "").split(";")[0].strip()
        wanted = kind in ("conversion", "resource") and content in ("text/plain", "")
        pages += kind == "response"
        texts += wanted
        if not wanted or length > faults.longest:
            if wanted:
                faults.meet_long(place)
            _skip(place, stream, length)
        else:
            data = stream.read(length)
            _require(place, len(data), length)
            try:
                text = data.decode()
            except UnicodeDecodeError:
                faults.meet("document that is not UTF-8", UserError(f"{place} is not UTF-8"))
            else:
                yield text
        start += length
    if pages and not texts:
        raise UserError(f"{path} holds {pages:,} pages as they were fetched and no text of them: name the .wet, or extract the text first")


def _header(path: str, stream: IO[bytes], start: int) -> tuple[dict[str, str], int] | None:
    """Returns the fields of the next record, by small letters, and the bytes up to its content; None at the end."""
    size = 0
    while (line := stream.readline(HEADER)) in (b"\r\n", b"\n"):  # two end a record
        size += len(line)
    if not line:
        return None
    place = f"{path} record at byte {start + size}"
    if not line.startswith(b"WARC/"):
        raise UserError(f"{place} does not begin with WARC/: it is no web archive, or was cut; copy it again, whole")
    fields = {}
    while True:
        size += len(line)
        line = stream.readline(HEADER)
        if line in (b"\r\n", b"\n"):
            break
        if not line.endswith(b"\n"):
            raise UserError(f"{place} ends within its header; copy the file again, whole")
        name, _, value = line.decode("utf-8", "replace").partition(":")
        fields[name.strip().lower()] = value.strip()
    if not fields.get("content-length", "").isdecimal():
        raise UserError(f"{place} does not say its Content-Length; copy the file again, whole")
    return fields, size + len(line)


def _skip(place: str, stream: IO[bytes], length: int) -> None:
    left = length
    while left and (data := stream.read(min(left, BLOCK))):
        left -= len(data)
    _require(place, length - left, length)


def _require(place: str, found: int, length: int) -> None:
    if found != length:
        raise UserError(f"{place} has {length:,} bytes, and the file ends after {found:,}; copy it again, whole")
