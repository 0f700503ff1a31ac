"""Reads documents that are rows of tables: csv, tsv, parquet, arrow."""

import collections
import csv
import functools
import io
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, Any

from lm.data.corpora.faults import Faults
from lm.data.corpora.fields import FIELD, Fields, absent
from lm.data.corpora.lines import Part
from lm.errors import UserError

BATCH = 1_024  # rows of a parquet file that are held at once


def csv_file(path: str, stream: IO[bytes], fields: Fields, faults: Faults, delimiter: str = ",") -> Iterator[str]:
    """Yields the text of each row of a table with a header."""
    csv.field_size_limit(faults.longest)
    rows = _rows(path, _physical_lines(path, stream, faults), delimiter, faults)
    _, header = next(rows, (0, []))
    for name in fields.names:
        if name not in header:
            raise absent(path, "column", name, header, header)
    columns = [header.index(name) for name in fields.names]
    for line, row in rows:
        if row and len(row) != len(header):
            said = f"{path} line {line} has {len(row)} cells and the header {len(header)}; quote cells that hold the separator"
            faults.meet("document that cannot be read", UserError(said))
        elif row:
            yield fields.text([row[column] for column in columns])


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


def parquet_file(path: str, raw: IO[bytes]) -> Any:
    """Opens a parquet file, which is then read by pages."""
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.ParquetFile(raw, buffer_size=1 << 20, pre_buffer=False)
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise UserError(f"{path} is not a parquet file ({' '.join(str(error).split())[:120]})") from error


def parquet(path: str, raw: IO[bytes], fields: Fields, part: Part = (0, None)) -> Iterator[str]:
    """Yields the text of each row; `part` counts groups of rows."""
    file = parquet_file(path, raw)
    names = columns(path, file.schema_arrow, fields)
    groups = list(range(file.num_row_groups))[slice(*part)]
    return _texts(_unbroken(path, file.iter_batches(BATCH, groups, columns=list(names)), names), fields)


def arrow(path: str, raw: IO[bytes], fields: Fields) -> Iterator[str]:
    """Yields the text of each row of a file of either of Arrow's formats."""
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
    return _texts(_unbroken(path, batches, columns(path, file.schema, fields)), fields)


def columns(path: str, schema: Any, fields: Fields) -> Sequence[str]:
    """Returns the columns of the text. Raises UserError for one that is not there or holds no text."""
    from pyarrow import types

    def holds_text(kind: Any) -> bool:
        kind = kind.value_type if types.is_dictionary(kind) else kind
        return types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)

    texts = [column.name for column in schema if holds_text(column.type)]
    for name in fields.names:
        if name not in schema.names:
            raise absent(path, "column", name, schema.names, texts)
        if name not in texts:
            advice = f"name the one of your text: {FIELD}={texts[0]}" if texts else "no column of it does"
            raise UserError(f"{path}: the column {name!r} is of type {schema.field(name).type} and holds no text; {advice}")
    return fields.names


def _texts(batches: Iterable[Sequence[Any]], fields: Fields) -> Iterator[str]:
    for batch in batches:
        for values in zip(*batch, strict=True):
            yield fields.text([value.as_py() for value in values])


def _unbroken(path: str, batches: Iterable[Any], names: Sequence[str]) -> Iterator[Sequence[Any]]:
    """Yields columns of a table by batches. Raises UserError that names the first that cannot be read, as in a truncated file.

    A column is validated first: values of a damaged one would be read from anywhere in memory.
    """
    import pyarrow

    each, number = iter(batches), 0
    while True:
        try:
            batch = next(each, None)
            found = None if batch is None else [batch.column(name) for name in names]
            for column in found or ():
                column.validate(full=True)
        except (pyarrow.ArrowException, OSError) as error:
            reason = " ".join(str(error).split())[:120]
            raise UserError(f"{path} cannot be read from its batch {number} on ({reason}); copy it again, whole") from error
        if found is None:
            return
        yield found
        number += 1
