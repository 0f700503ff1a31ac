"""Reads the lines of a file, and the pieces that a file of text is cut into; of a whole file or of a part of it.

A part is (first, last) in bytes, of a file that is not compressed: the lines that begin there. So parts that follow one another hold each
line once, wherever they are cut. `last` None is the end of the file.
"""

import functools
import itertools
from collections.abc import Iterator
from typing import IO, Optional

from lm.data.corpora.faults import Faults
from lm.errors import UserError

PIECE = 65_536  # bytes
CHUNK = 1 << 20  # bytes of a longer line that are held at once
Part = tuple[int, Optional[int]]


def numbered(path: str, stream: IO[bytes], faults: Faults, longest: int, part: Part = (0, None)) -> Iterator[tuple[str, str]]:
    """Yields (place, line) for lines that are not blank, without line ends and the mark of byte order.

    The place names the file and the number of the line, or of the byte that it begins with in a part that is not the first.
    """
    start, last = _begin(stream, part), part[1]
    number = 0
    while last is None or start < last:
        raw = stream.readline(longest + 2)
        if not raw:
            return
        number, size = number + 1, len(raw)
        place = f"{path} line {number}" if part[0] == 0 else f"{path} line at byte {start}"
        if size > longest and not raw.endswith(b"\n"):
            faults.meet_long(place)
            size += _skip_line(stream)
        else:
            try:
                line = raw.decode("utf-8-sig" if start == 0 else "utf-8")
            except UnicodeDecodeError as error:
                if not faults.skip:
                    raise UnicodeDecodeError("utf-8", raw, start + error.start, start + error.end, error.reason) from error
                faults.meet("document that is not UTF-8", UserError(f"{place} is not UTF-8"))
            else:
                if line.strip():
                    yield place, line.rstrip("\r\n")
        start += size


def documents(path: str, stream: IO[bytes], faults: Faults, part: Part = (0, None)) -> Iterator[str]:
    """Yields each line as a document."""
    first = True
    for _, line in numbered(path, stream, faults, faults.longest, part):
        if first:
            require_text(path, line.encode())
            first = False
        yield line


def pieces(path: str, stream: IO[bytes]) -> Iterator[str]:
    """Yields a file of text, in pieces of at most PIECE bytes where it has more. It is in memory as a whole."""
    data = stream.read()
    require_text(path, data[:PIECE])
    text = data.decode("utf-8-sig")
    if len(data) <= PIECE:
        yield text
        return
    yield from _joined(text.splitlines(keepends=True))


def pieces_of_part(path: str, stream: IO[bytes], faults: Faults, part: Part) -> Iterator[str]:
    """Yields pieces as `pieces` does, of a part and with little of it in memory; a line that is not UTF-8 is a fault."""
    yield from _joined(itertools.chain.from_iterable(text.splitlines(keepends=True) for text in _chunks(path, stream, faults, part)))


def _joined(lines: Iterator[str] | list[str]) -> Iterator[str]:
    piece: list[str] = []
    size = 0
    for line in itertools.chain.from_iterable(map(_cut, lines)):
        length = len(line.encode())
        if piece and size + length > PIECE:
            yield "".join(piece)
            piece, size = [], 0
        piece.append(line)
        size += length
    if piece:
        yield "".join(piece)


def _chunks(path: str, stream: IO[bytes], faults: Faults, part: Part) -> Iterator[str]:
    """Yields the lines of a part, longer ones in chunks that end with a whole character."""
    start, last = _begin(stream, part), part[1]
    carried, inside = b"", False
    for raw in iter(functools.partial(stream.readline, CHUNK), b""):
        if last is not None and start >= last and not carried and not inside:
            return
        if start == part[0]:
            require_text(path, raw[:PIECE])
        data, begin = carried + raw, start - len(carried)
        inside = not raw.endswith(b"\n")
        whole = len(data) - _open_end(data) if inside else len(data)
        carried, start = data[whole:], start + len(raw)
        try:
            yield data[:whole].decode("utf-8-sig" if begin == 0 else "utf-8")
        except UnicodeDecodeError as error:
            place = f"{path} byte {begin + error.start}"
            faults.meet("line that is not UTF-8", UserError(f"{place} is not UTF-8; convert the file, e.g. with iconv -t utf-8"))
    if carried:
        faults.meet("line that is not UTF-8", UserError(f"{path} ends in the middle of a character; convert it, or copy it again, whole"))


def _open_end(data: bytes) -> int:
    """Returns how many bytes at the end begin a character that goes on."""
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte >= 0xC0:  # the first of 2 to 4
            return back if back < (2 if byte < 0xE0 else 3 if byte < 0xF0 else 4) else 0
        if byte < 0x80:
            return 0
    return 0


def _cut(line: str) -> Iterator[str]:
    """Yields a line in parts of at most PIECE bytes, cut after blanks where it has any."""
    if len(line) <= PIECE // 4:  # no character has more than four bytes
        yield line
        return
    data, start = line.encode(), 0
    while len(data) - start > PIECE:
        part = data[start : start + PIECE].decode(errors="ignore")  # the last character may be cut in two
        part = part[: max(part.rfind(blank) for blank in " \t") + 1] or part
        yield part
        start += len(part.encode())
    yield data[start:].decode()


def _begin(stream: IO[bytes], part: Part) -> int:
    """Goes to the first line that begins in a part, and returns its place."""
    if part[0] == 0:
        return 0
    stream.seek(part[0] - 1)  # a line that begins with the part follows a line end
    return part[0] - 1 + _skip_line(stream)


def _skip_line(stream: IO[bytes]) -> int:
    """Reads the rest of a line and returns its bytes; little of it is in memory at a time."""
    size = 0
    while piece := stream.readline(PIECE):
        size += len(piece)
        if piece.endswith(b"\n"):
            break
    return size


def require_text(path: str, head: bytes) -> None:
    """Raises UserError for a file that begins as no text does."""
    if b"\0" in head and not head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UserError(
            f"{path} is not text (it holds a NUL byte); name .txt, .jsonl, .csv, .tsv or .parquet files in --config.data.components.0.paths"
        )
