"""Reads the texts of a file, whatever its kind.

.jsonl .ndjson .json   a document per object, in its field 'text'; a .json holds a list of them, or one per line
.csv                   a document per row, in its column 'text'
.parquet .arrow        the same
.tsv                   a document per line, as it is: an input, a tab, a target (objective pairs); with a field named, as .csv
.wet .warc             a record of plain text
.array_record          a record, UTF-8 (also NAME.array_record-00000-of-00010)
all others             text: one document; of more than 64 KiB, pieces of at most that, cut at line ends and in longer lines at blanks; or a
                       document per line

Names may end in .gz, .bz2, .xz or .zst too. No line is read further than the longest document allows (lm.data.corpora.faults).
"""

import collections
import contextlib
import csv
import glob
import io
import os
import pathlib
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import IO, Optional, cast

from lm.data.corpora import lines, objects, places, record_files, tables, warc
from lm.data.corpora.faults import Faults
from lm.data.corpora.fields import Fields
from lm.data.corpora.lines import Part
from lm.errors import UserError, one_line

SAMPLE = 2_000_000  # bytes of a file from which its text is estimated
TEXT = (".txt", ".text", ".md")  # what is taken from a folder, beside data files; other text is taken when it is named
METADATA = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")  # of tables in the same folder or below
LINES_OF_JSON, ROWS, TABLES = (".jsonl", ".ndjson"), (".csv", ".tsv"), (".parquet", ".arrow")
ARCHIVES, RECORDS = (".wet", ".warc"), ".array_record"


class Kind:
    """How a file is read: the suffix of its content, and the compression."""

    def __init__(self, path: str):
        suffixes = [suffix.lower() for suffix in pathlib.Path(path).suffixes]
        self.compression = suffixes.pop() if suffixes and suffixes[-1] in _OPENERS else ""
        self.suffix = re.sub(r"\.array_?record(-\d+-of-\d+)?$", RECORDS, suffixes[-1]) if suffixes else ""

    @property
    def known(self) -> bool:
        return self.suffix in TEXT or not self.is_text

    def divisible(self, field: Optional[str]) -> bool:
        """Whether parts of the file can be read without what stands before them. A table with a field needs its heading."""
        by_line = self.is_text or self.suffix in LINES_OF_JSON or (self.suffix == ".tsv" and field is None)
        return not self.compression and (by_line or self.suffix in (".parquet", RECORDS))

    @property
    def has_fields(self) -> bool:
        """Whether its documents are rows or objects."""
        return self.suffix in (*LINES_OF_JSON, ".json", *ROWS, *TABLES)

    @property
    def is_text(self) -> bool:
        """Whether its documents are the file, pieces of it or its lines."""
        return self.suffix not in (*LINES_OF_JSON, ".json", *ROWS, *TABLES, *ARCHIVES, RECORDS)


def expand(paths: Sequence[str], log: Callable[[str], object]) -> list[str]:
    """Returns the files that paths name: files, all files of known kinds in folders and below, and patterns such as data/**/*.py.

    Raises UserError for a path that names nothing. What a folder holds beside is said to `log`.
    """
    found: dict[str, str] = {}
    for path in map(os.path.expanduser, paths):
        files, is_folder = places.matching(path)
        if is_folder:
            files = _in_folder(path, files, log)
        elif not files:
            said = f"no file matches {path}" if glob.has_magic(path) else f"{path} does not exist"
            raise UserError(f"{said}; correct --config.data.components.0.paths")
        for name in files:
            found.setdefault(places.real(name), name)
    return list(found.values())


def read(
    path: str, field: Optional[str] = None, lines: bool = False, faults: Optional[Faults] = None, part: Optional[Part] = None
) -> Iterator[str]:
    """Yields the texts of a file, '' for one that is null. Raises UserError for a file that cannot be read, naming the place.

    Args:
      path: the file.
      field: the field or column of the text (default: 'text'), or a template of several, such as '{title}: {content}'.
      lines: whether each line of a text file is a document.
      faults: what happens to documents that cannot be used (default: the first is raised).
      part: the part of the file, of a kind that is `divisible`: bytes, or groups of rows of a parquet file. With a part, (0, None) too, a
        file of text is read with little of it in memory.
    """
    faults = faults or Faults()
    with reading(path), places.opened(path) as raw:
        for number, text in enumerate(_texts(path, raw, field, lines, faults, part), 1):
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
        size = {path: places.size(path) for path in same}
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
    except Exception as error:  # stores raise errors of many types
        if isinstance(error, UserError) or not places.is_address(path):
            raise
        raise UserError(f"cannot read {path}: {one_line(error)[:160]}; give the command again: what is done stays") from error


def _in_folder(folder: str, names: list[str], log: Callable[[str], object]) -> list[str]:
    names = [name for name in names if not any(part.startswith(".") for part in pathlib.Path(name).relative_to(folder).parts)]
    tables = {str(pathlib.Path(name).parent) for name in names if Kind(name).suffix in TABLES}
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


def _texts(path: str, raw: IO[bytes], field: Optional[str], by_line: bool, faults: Faults, part: Optional[Part]) -> Iterator[str]:
    kind, whole = Kind(path), part or (0, None)
    if kind.suffix in (*TABLES, RECORDS):
        if kind.compression:
            raise UserError(f"{path}: a {kind.suffix} is compressed inside; decompress the file ({kind.compression})")
        if kind.suffix == RECORDS:
            return record_files.documents(path, faults, whole)
        if kind.suffix == ".parquet":
            return tables.parquet(path, raw, Fields(field), whole)
        return tables.arrow(path, raw, Fields(field))
    stream = _OPENERS[kind.compression](raw) if kind.compression else raw
    if kind.suffix == ".tsv" and field is None:
        return lines.documents(path, stream, faults, whole)
    if kind.suffix in ARCHIVES:
        return warc.documents(path, stream, faults)
    if kind.suffix in LINES_OF_JSON:
        return objects.jsonl(path, stream, Fields(field), faults, whole)
    if kind.suffix == ".json":
        return objects.json_file(path, stream, Fields(field), faults)
    if kind.suffix in ROWS:
        return tables.csv_file(path, stream, Fields(field), faults, "\t" if kind.suffix == ".tsv" else ",")
    if field is not None:
        raise UserError(
            f"{path} is text and has no field {field!r}; leave out --config.data.components.0.field, or name .jsonl, .csv or .parquet files"
        )
    if by_line:
        return lines.documents(path, stream, faults, whole)
    return lines.pieces(path, stream) if part is None else lines.pieces_of_part(path, stream, faults, part)


def groups(path: str, raw: IO[bytes], field: Optional[str]) -> Optional[int]:
    """Returns how many groups of rows or records a file has, by which its parts are counted; None for one whose parts are of bytes."""
    kind = Kind(path)
    if kind.suffix == RECORDS:
        return record_files.count(path)
    if kind.suffix != ".parquet":
        return None
    file = tables.parquet_file(path, raw)
    tables.columns(path, file.schema_arrow, Fields(field))
    return file.num_row_groups


def _column_bytes(path: str, field: Optional[str]) -> int:
    """Returns the bytes of the columns of text, uncompressed, by what a parquet file says of itself."""
    with reading(path), places.opened(path) as raw:
        file = tables.parquet_file(path, raw)
        names, facts = tables.columns(path, file.schema_arrow, Fields(field)), file.metadata
        columns = [facts.row_group(i).column(j) for i in range(facts.num_row_groups) for j in range(facts.num_columns)]
        return sum(column.total_uncompressed_size for column in columns if column.path_in_schema in names)


def _text_per_byte(path: str, field: Optional[str]) -> float:
    """Returns bytes of text per byte of a file that is larger than SAMPLE, from its beginning."""
    kind, size, position = Kind(path), 0, 1
    if kind.suffix == ".parquet" and not kind.compression:
        return _column_bytes(path, field) / places.size(path)
    if kind.suffix in (*TABLES, RECORDS):
        return 1.0
    with reading(path), places.opened(path) as raw:
        by_object = kind.suffix in (".jsonl", ".ndjson", ".csv")
        texts = (
            _texts(path, raw, field, False, Faults(skip=True), None)
            if by_object
            else _blocks(_OPENERS[kind.compression](raw) if kind.compression else raw)
        )
        for text in texts:
            size, position = size + len(text.encode() if isinstance(text, str) else text), raw.tell()
            # Decompression reads ahead (gzip in blocks of 128 kB since Python 3.12): at the file's end what was read is not yet in `size`.
            if min(size, position) >= SAMPLE and position < places.size(path):
                break
    return size / position


def _blocks(stream: IO[bytes]) -> Iterator[bytes]:
    return iter(lambda: stream.read(1 << 16), b"")


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
