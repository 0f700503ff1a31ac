"""Reads the texts of a file, whatever its kind.

.jsonl .ndjson .json   a document per object, in its field 'text'; a .json holds a list of them, or one per line
.csv                   a document per row, in its column 'text'
.parquet .arrow        the same
.tsv                   a document per line, as it is: an input, a tab, a target (objective pairs); with a field named, as .csv
all others             text: one document; of more than 64 KiB, pieces of at most that, cut at line ends and in longer lines at blanks; or a
                       document per line

Names may end in .gz, .bz2, .xz or .zst too. No line is read further than the longest document allows (lm.data.corpora.faults).
"""

import collections
import contextlib
import csv
import functools
import glob
import io
import itertools
import json
import os
import pathlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import IO, Any, Optional, cast

from lm.data.corpora.faults import Faults
from lm.errors import UserError, require_local

PIECE = 65_536  # bytes
SAMPLE = 2_000_000  # bytes of a file from which its text is estimated
TEXT = (".txt", ".text", ".md")  # what is taken from a folder, beside data files; other text is taken when it is named
METADATA = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")  # of tables in the same folder or below
FIELD = "--config.data.components.0.field"


class Kind:
    """How a file is read: the suffix of its content, and the compression."""

    def __init__(self, path: str):
        suffixes = [suffix.lower() for suffix in pathlib.Path(path).suffixes]
        self.compression = suffixes.pop() if suffixes and suffixes[-1] in _OPENERS else ""
        self.suffix = suffixes[-1] if suffixes else ""

    @property
    def known(self) -> bool:
        return self.suffix in TEXT or not self.is_text

    @property
    def is_text(self) -> bool:
        """Whether its documents are the file, pieces of it or its lines."""
        return self.suffix not in _READERS and self.suffix not in _TABLES


def expand(paths: Sequence[str], log: Callable[[str], object]) -> list[str]:
    """Returns the files that paths name: files, all files of known kinds in folders and below, and patterns such as data/**/*.py.

    Raises UserError for a path that names nothing. What a folder holds beside is said to `log`.
    """
    found: dict[str, str] = {}
    for path in map(os.path.expanduser, paths):
        require_local(path)
        if os.path.isdir(path):
            files = _in_folder(path, log)
        elif os.path.exists(path):
            files = [path]
        elif glob.has_magic(path):
            files = sorted(name for name in glob.glob(path, recursive=True) if os.path.isfile(name))
            if not files:
                raise UserError(f"no file matches {path}; correct --config.data.components.0.paths")
        else:
            raise UserError(f"{path} does not exist; correct --config.data.components.0.paths")
        for name in files:
            found.setdefault(os.path.realpath(name), name)
    return list(found.values())


def read(path: str, field: Optional[str] = None, lines: bool = False, faults: Optional[Faults] = None) -> Iterator[str]:
    """Yields the texts of a file, '' for one that is null. Raises UserError for a file that cannot be read, naming the place.

    Args:
      path: the file.
      field: the field or column of the text (default: 'text').
      lines: whether each line of a text file is a document.
      faults: what happens to documents that cannot be used (default: the first is raised).
    """
    faults = faults or Faults()
    with reading(path), open(path, "rb") as raw:
        for number, text in enumerate(_texts(path, raw, field, lines, faults), 1):
            if faults.is_long(text):
                faults.meet_long(f"{path} document {number}")
            else:
                yield text


def estimated_bytes(paths: Sequence[str], field: Optional[str] = None) -> float:
    """Returns about how many bytes of text files hold, from their sizes and the beginning of the largest of each kind."""
    kinds: dict[tuple[str, str], list[str]] = collections.defaultdict(list)
    for path in paths:
        kind = Kind(path)
        kinds[kind.suffix, kind.compression].append(path)
    total = 0.0
    for same in kinds.values():
        size = {path: os.path.getsize(path) for path in same}
        largest = max(same, key=size.__getitem__)
        total += sum(size[path] for path in same) * (
            _text_per_byte(largest, field) if size[largest] > SAMPLE or Kind(largest).suffix == ".parquet" else 1.0
        )
    return total


@contextlib.contextmanager
def reading(path: str) -> Iterator[None]:
    """Raises a UserError that names the file when the block cannot read it."""
    import lzma
    import zlib

    try:
        yield
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 (byte {error.start}: {error.reason}); convert it, e.g. with iconv -t utf-8") from error
    except (OSError, EOFError, lzma.LZMAError, zlib.error, csv.Error) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:120]
        raise UserError(f"cannot read {path}: {reason}; restore it, or leave it out of --config.data.components.0.paths") from error


def _in_folder(folder: str, log: Callable[[str], object]) -> list[str]:
    names = sorted(str(path) for path in pathlib.Path(folder).rglob("*") if path.is_file())
    names = [name for name in names if not any(part.startswith(".") for part in pathlib.Path(name).relative_to(folder).parts)]
    tables = {str(pathlib.Path(name).parent) for name in names if Kind(name).suffix in _TABLES}
    files = [name for name in names if Kind(name).known and not _describes(name, tables)]
    others = collections.Counter(pathlib.Path(name).suffix or "no suffix" for name in names if name not in files)
    beside = ", ".join(f"{suffix} {count}" for suffix, count in sorted(others.items()))
    pattern = os.path.join(folder, "**", "*" + next(iter(sorted(others)), ".py"))
    if not files:
        raise UserError(
            f"the folder {folder} holds no file of text ({beside or 'it is empty'}); name files or a pattern such as '{pattern}'"
        )
    if others:
        log(f"text_files: left out of {folder}: {beside}; a pattern such as '{pattern}' takes them in")
    return files


def _describes(path: str, tables: Collection[str]) -> bool:
    """Returns whether a file describes the tables of its folder or of those below: what `datasets.save_to_disk` writes beside them."""
    folder = pathlib.Path(path).parent
    return pathlib.Path(path).name in METADATA and any(folder in (table, *table.parents) for table in map(pathlib.Path, tables))


def _texts(path: str, raw: IO[bytes], field: Optional[str], lines: bool, faults: Faults) -> Iterator[str]:
    kind = Kind(path)
    if kind.suffix in _TABLES:
        if kind.compression:
            raise UserError(f"{path}: a {kind.suffix} is compressed inside; decompress the file ({kind.compression})")
        return _TABLES[kind.suffix](path, raw, field)
    stream = _OPENERS[kind.compression](raw) if kind.compression else raw
    if kind.suffix == ".tsv" and field is None:
        return _lines(path, stream, faults)
    if kind.suffix in _READERS:
        return _READERS[kind.suffix](path, stream, field, faults)
    if field is not None:
        raise UserError(
            f"{path} is text and has no field {field!r}; leave out --config.data.components.0.field, or name .jsonl, .csv or .parquet files"
        )
    return _lines(path, stream, faults) if lines else _pieces(path, stream)


def _pieces(path: str, stream: IO[bytes]) -> Iterator[str]:
    data = stream.read()
    _require_text(path, data[:PIECE])
    text = data.decode("utf-8-sig")
    if len(data) <= PIECE:
        yield text
        return
    piece: list[str] = []
    size = 0
    for line in itertools.chain.from_iterable(map(_cut, text.splitlines(keepends=True))):
        length = len(line.encode())
        if piece and size + length > PIECE:
            yield "".join(piece)
            piece, size = [], 0
        piece.append(line)
        size += length
    yield "".join(piece)


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


def _lines(path: str, stream: IO[bytes], faults: Faults) -> Iterator[str]:
    for number, line in _numbered(path, stream, faults, faults.longest):
        if number == 1:
            _require_text(path, line.encode())
        yield line


def _numbered(path: str, stream: IO[bytes], faults: Faults, longest: int) -> Iterator[tuple[int, str]]:
    """Yields the lines that are not blank with their numbers, without line ends and the mark of byte order."""
    start = 0
    for number, raw in enumerate(iter(functools.partial(stream.readline, longest + 2), b""), 1):
        size = len(raw)
        if size > longest and not raw.endswith(b"\n"):
            faults.meet_long(f"{path} line {number}")
            size += _skip_line(stream)
        else:
            try:
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                if not faults.skip:
                    raise UnicodeDecodeError("utf-8", raw, start + error.start, start + error.end, error.reason) from error
                faults.meet("document that is not UTF-8", UserError(f"{path} line {number} is not UTF-8"))
            else:
                if line.strip():
                    yield number, line.rstrip("\r\n")
        start += size


def _skip_line(stream: IO[bytes]) -> int:
    """Reads the rest of a line and returns its bytes; little of it is in memory at a time."""
    size = 0
    while part := stream.readline(PIECE):
        size += len(part)
        if part.endswith(b"\n"):
            break
    return size


def _jsonl(path: str, stream: IO[bytes], field: Optional[str], faults: Faults) -> Iterator[str]:
    longest = 4 * faults.longest + PIECE  # JSON writes a character in up to three times as many bytes, and there are other fields
    for number, line in _numbered(path, stream, faults, longest):
        try:
            text = _text_of(_parsed(line, f"{path} line {number}"), field, f"{path} line {number}")
        except UserError as error:
            faults.meet("document that cannot be read", error)
        else:
            yield text


def _parsed(line: str, place: str) -> Any:
    try:
        return json.loads(line)
    except RecursionError as error:
        raise UserError(f"{place} is JSON nested too deeply to be read; leave the line out") from error
    except ValueError as error:
        raise UserError(f"{place} is not JSON ({error}); each line of a .jsonl is one JSON object") from error


def _json(path: str, stream: IO[bytes], field: Optional[str], faults: Faults) -> Iterator[str]:
    data = stream.read()
    if not data.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"["):
        if data.removeprefix(b"\xef\xbb\xbf").split(b"\n", 1)[0].strip() == b"{":
            raise UserError(f"{path} is one JSON object over several lines; a .json holds a list of objects, or one object per line")
        yield from _jsonl(path, io.BytesIO(data), field, faults)
        return
    try:
        values = json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise
    except RecursionError as error:
        raise UserError(f"{path} is JSON nested too deeply to be read; leave the file out") from error
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}); a .json holds a list of objects, or one object per line") from error
    for number, value in enumerate(values):
        try:
            text = _text_of(value, field, f"{path} item {number}")
        except UserError as error:
            faults.meet("document that cannot be read", error)
        else:
            yield text


def _text_of(value: Any, field: Optional[str], place: str) -> str:
    name = field or "text"
    if not isinstance(value, dict):
        raise UserError(f"{place} is no JSON object; write {{{json.dumps(name)}: ...}}")
    if name not in value:
        raise _absent(place, "field", name, list(value), [key for key, each in value.items() if isinstance(each, str)])
    text = value[name]
    if text is None:
        return ""
    if not isinstance(text, str):
        raise UserError(f"{place}: the field {name!r} holds no string; name another with {FIELD}=NAME")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = f"\\u{ord(text[error.start]):04x}"
        raise UserError(f"{place} holds half of a surrogate pair ({half}), which is not UTF-8; repair it") from error
    return text


def _absent(place: str, what: str, name: str, names: Sequence[str], texts: Sequence[str]) -> UserError:
    advice = f"name the one of your text: {FIELD}={texts[0]}" if texts else "give it one"
    return UserError(f"{place} has no {what} {name!r} that holds text (it has {', '.join(names) or 'none'}); {advice}")


def _csv(path: str, stream: IO[bytes], field: Optional[str], faults: Faults) -> Iterator[str]:
    csv.field_size_limit(faults.longest)
    rows = _rows(path, _physical_lines(path, stream, faults), "\t" if Kind(path).suffix == ".tsv" else ",", faults)
    (_, header), name = next(rows, (0, [])), field or "text"
    if name not in header:
        raise _absent(path, "column", name, header, header)
    column = header.index(name)
    for line, row in rows:
        if row and len(row) != len(header):
            said = f"{path} line {line} has {len(row)} cells and the header {len(header)}; quote cells that hold the separator"
            faults.meet("document that cannot be read", UserError(said))
        elif row:
            yield row[column]


def _rows(path: str, lines: Iterator[str], delimiter: str, faults: Faults) -> Iterator[tuple[int, list[str]]]:
    """Yields the rows of a table, each with the number of its last line.

    A quote that is not closed, or closed in the middle of a cell, is a fault of the line that its row begins with, and reading goes on
    with the next: otherwise what follows would be one cell of that row.
    """
    again: collections.deque[str] = collections.deque()  # lines to be read once more
    read: list[str] = []  # lines of the present row
    before = 0  # lines before it

    def feed() -> Iterator[str]:
        while (line := again.popleft() if again else next(lines, None)) is not None:
            read.append(line)
            yield line

    while True:
        read.clear()
        try:
            row = next(csv.reader(feed(), delimiter=delimiter, strict=True), None)
        except csv.Error as error:
            said = f"{path} line {before + 1} begins a row whose quotes are not closed, or a cell that is too long ({error})"
            faults.meet("document that cannot be read", UserError(f"{said}; close the quote, and write quotes inside a cell twice"))
            again.extendleft(reversed(read[1:]))
            before += 1
            continue
        if row is None:
            return
        before += len(read)
        yield before, row


def _physical_lines(path: str, stream: IO[bytes], faults: Faults) -> Iterator[str]:
    """Yields the lines of a table, of which a quoted cell may have several. A longer line is an error: what is quoted is not known then."""
    text, longest = io.TextIOWrapper(stream, encoding="utf-8-sig", newline=""), 4 * faults.longest
    for number, line in enumerate(iter(functools.partial(text.readline, longest + 1), ""), 1):
        if len(line) > longest:
            raise UserError(f"{path} line {number} has more than {longest:,} characters; raise --config.data.components.0.longest_document")
        yield line


def _parquet_file(path: str, raw: IO[bytes]) -> Any:
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.ParquetFile(raw)
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise UserError(f"{path} is not a parquet file ({' '.join(str(error).split())[:120]})") from error


def _parquet(path: str, raw: IO[bytes], field: Optional[str]) -> Iterator[str]:
    file = _parquet_file(path, raw)
    name = _column(path, file.schema_arrow, field)
    return _values(_unbroken(path, file.iter_batches(columns=[name]), name))


def _arrow(path: str, raw: IO[bytes], field: Optional[str]) -> Iterator[str]:
    import pyarrow

    try:
        try:
            file = pyarrow.ipc.open_file(raw)
            batches: Iterable[Any] = (file.get_batch(i) for i in range(file.num_record_batches))
        except pyarrow.ArrowInvalid:
            raw.seek(0)
            file = batches = pyarrow.ipc.open_stream(raw)  # what the library `datasets` writes
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise UserError(f"{path} is not an arrow file ({' '.join(str(error).split())[:120]})") from error
    return _values(_unbroken(path, batches, _column(path, file.schema, field)))


def _column(path: str, schema: Any, field: Optional[str]) -> str:
    from pyarrow import types

    def holds_text(kind: Any) -> bool:
        kind = kind.value_type if types.is_dictionary(kind) else kind
        return types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)

    name = field or "text"
    texts = [column.name for column in schema if holds_text(column.type)]
    if name not in schema.names:
        raise _absent(path, "column", name, schema.names, texts)
    if name not in texts:
        advice = f"name the one of your text: {FIELD}={texts[0]}" if texts else "no column of it does"
        raise UserError(f"{path}: the column {name!r} is of type {schema.field(name).type} and holds no text; {advice}")
    return name


def _values(columns: Iterable[Any]) -> Iterator[str]:
    for column in columns:
        for value in column:
            yield value.as_py() or ""


def _unbroken(path: str, batches: Iterable[Any], name: str) -> Iterator[Any]:
    """Yields a column of a table by batches. Raises UserError that names the first that cannot be read, as in a truncated file.

    A column is validated first: values of a damaged one would be read from anywhere in memory.
    """
    import pyarrow

    each, number = iter(batches), 0
    while True:
        try:
            batch = next(each, None)
            column = None if batch is None else batch.column(name)
            if column is not None:
                column.validate(full=True)
        except (pyarrow.ArrowException, OSError) as error:
            reason = " ".join(str(error).split())[:120]
            raise UserError(f"{path} cannot be read from its batch {number} on ({reason}); copy it again, whole") from error
        if column is None:
            return
        yield column
        number += 1


def _require_text(path: str, head: bytes) -> None:
    if b"\0" in head and not head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UserError(
            f"{path} is not text (it holds a NUL byte); name .txt, .jsonl, .csv, .tsv or .parquet files in --config.data.components.0.paths"
        )


def _column_bytes(path: str, field: Optional[str]) -> int:
    """Returns the bytes of the column of text, uncompressed, by what a parquet file says of itself."""
    with reading(path), open(path, "rb") as raw:
        file = _parquet_file(path, raw)
        name, facts = _column(path, file.schema_arrow, field), file.metadata
        columns = [facts.row_group(i).column(j) for i in range(facts.num_row_groups) for j in range(facts.num_columns)]
        return sum(column.total_uncompressed_size for column in columns if column.path_in_schema == name)


def _text_per_byte(path: str, field: Optional[str]) -> float:
    """Returns bytes of text per byte of a file that is larger than SAMPLE, from its beginning."""
    kind, size, position = Kind(path), 0, 1
    if kind.suffix == ".parquet" and not kind.compression:
        return _column_bytes(path, field) / os.path.getsize(path)
    if kind.suffix in _TABLES:
        return 1.0
    with reading(path), open(path, "rb") as raw:
        stream = _OPENERS[kind.compression](raw) if kind.compression else raw
        by_object = kind.suffix in (".jsonl", ".ndjson", ".csv")
        for text in _READERS[kind.suffix](path, stream, field, Faults(skip=True)) if by_object else iter(lambda: stream.read(1 << 16), b""):
            size, position = size + len(text.encode() if isinstance(text, str) else text), raw.tell()
            # Decompression reads ahead (gzip in blocks of 128 kB since Python 3.12): at the file's end what was read is not yet in `size`.
            if min(size, position) >= SAMPLE and position < os.path.getsize(path):
                break
    return size / position


def _gzip(raw: IO[bytes]) -> IO[bytes]:
    import gzip

    return cast(IO[bytes], gzip.GzipFile(fileobj=raw))


def _bz2(raw: IO[bytes]) -> IO[bytes]:
    import bz2

    return bz2.BZ2File(raw)


def _xz(raw: IO[bytes]) -> IO[bytes]:
    import lzma

    return lzma.LZMAFile(raw)


def _zst(raw: IO[bytes]) -> IO[bytes]:
    import pyarrow

    return io.BufferedReader(pyarrow.CompressedInputStream(raw, "zstd"))


_OPENERS: dict[str, Callable[[IO[bytes]], IO[bytes]]] = {".gz": _gzip, ".bz2": _bz2, ".xz": _xz, ".zst": _zst}
_READERS = {".jsonl": _jsonl, ".ndjson": _jsonl, ".json": _json, ".csv": _csv, ".tsv": _csv}
_TABLES = {".parquet": _parquet, ".arrow": _arrow}
