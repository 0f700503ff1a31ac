"""Reads the files that tables of runs come in: CSV and its relatives, JSON, Parquet (by pyarrow) and Excel (by openpyxl).

A file becomes a `RawTable`: its cells as they stand, the line of each row, and notes on what was understood. No cell is dropped in silence.
"""

import csv
import dataclasses
import gzip
import hashlib
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Union

from lm.errors import UserError, require_local

_TEXT = (".csv", ".tsv", ".txt", ".dat")
_NAMES = {"\t": "tabs", ";": "semicolons", ",": "commas"}


@dataclasses.dataclass(frozen=True)
class RawTable:
    """The cells of a table by column, before any is read as a number.

    `lines` [n] are the lines of the rows in the file, counted from 1 (rows of a data frame count from 0). `decimal_comma` says that cells
    may write 3,59 for 3.59, because something else separates them.
    """

    columns: Mapping[str, Sequence[Any]]
    lines: Sequence[int]
    source: str
    decimal_comma: bool = False
    notes: tuple[str, ...] = ()
    sha256: str = ""

    def __len__(self) -> int:
        return len(self.lines)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.columns)

    def take(self, index: Sequence[int], note: str = "") -> "RawTable":
        """Returns the rows of these indices, with one more note."""
        columns = {name: [cells[i] for i in index] for name, cells in self.columns.items()}
        notes = (*self.notes, note) if note else self.notes
        return dataclasses.replace(self, columns=columns, lines=[self.lines[i] for i in index], notes=notes)

    def where(self, i: int) -> str:
        """Returns the words for a row in an error."""
        return f"{self.source}, row {self.lines[i]}"


def require(path: Union[str, pathlib.Path]) -> None:
    """Raises a UserError where no file is."""
    require_local(path)
    path = pathlib.Path(path)
    if path.is_dir():
        raise UserError(f"{path} is a folder: name a file in it, such as {path / 'runs.csv'}")
    if not path.is_file():
        raise UserError(f"no file {path}: give the path of a table, such as runs.csv (.tsv, .jsonl, .json, .parquet and .xlsx serve too)")


def read(path: Union[str, pathlib.Path]) -> RawTable:
    """Reads a table of runs from a file.

    Raises:
      UserError: there is no such file, its kind is unknown, or a row does not fit the header; the line of the row is named.
    """
    path = pathlib.Path(path)
    require(path)
    data = path.read_bytes()
    kind, packed = path.suffix.lower(), data
    if kind == ".gz":
        kind, packed = pathlib.Path(path.stem).suffix.lower(), _unpacked(path, data)
    if kind == ".parquet":
        made = _parquet(path)
    elif kind == ".xlsx":
        made = _excel(path)
    elif kind in (".jsonl", ".ndjson", ".json"):
        made = _json(path, _decoded(path, packed), lines=kind != ".json")
    elif kind in _TEXT or not kind:
        made = _separated(path, _decoded(path, packed), kind)
    else:
        raise UserError(f"{path}: {kind} is no table that is known; write .csv, .tsv, .jsonl, .json, .parquet or .xlsx")
    return dataclasses.replace(made, sha256=hashlib.sha256(data).hexdigest())


def of_frame(frame: Any, source: str = "table") -> RawTable:
    """Returns the cells of a data frame, or of any mapping of names to columns. Rows count from 0."""
    names = [str(name) for name in (frame.columns if hasattr(frame, "columns") else frame.keys())]
    columns = {name: list(frame[key]) for name, key in zip(names, frame.columns if hasattr(frame, "columns") else frame, strict=True)}
    sizes = {name: len(cells) for name, cells in columns.items()}
    if len(set(sizes.values())) > 1:
        raise UserError(f"{source}: its columns differ in length ({', '.join(f'{name} {size}' for name, size in sizes.items())})")
    return RawTable(columns, range(next(iter(sizes.values()), 0)), source)


def _unpacked(path: pathlib.Path, data: bytes) -> bytes:
    try:
        return gzip.decompress(data)
    except (OSError, EOFError) as error:
        raise UserError(f"{path} is not a whole gzip file ({error}): fetch it again") from None


def _decoded(path: pathlib.Path, data: bytes) -> str:
    """Returns the text of a file in UTF-8, or in UTF-16 by its byte-order mark or its zero bytes."""
    encoding = "utf-8-sig"
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        encoding = "utf-16"
    elif data[:4].count(0) == 2:
        encoding = "utf-16-be" if data[0] == 0 else "utf-16-le"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not text in UTF-8 or UTF-16 ({error.reason}): save it as comma-separated text") from None


def _separated(path: pathlib.Path, text: str, kind: str) -> RawTable:
    """Reads separated text. The separator is that of a `sep=` line, else the first of tab, semicolon and comma in the header."""
    kept = list(_numbered(path, text))
    separator, notes = None, []
    if kept and kept[0][1].lower().startswith("sep=") and len(kept[0][1].rstrip("\r\n")) == 5:
        separator, kept = kept[0][1][4], kept[1:]
    if not kept:
        raise UserError(f"{path} is empty: a header and a row per run are needed")
    separator = separator or next((one for one in "\t;," if one in kept[0][1]), "\t" if kind == ".tsv" else ",")
    if separator != ",":
        notes.append(f"cells are separated by {_NAMES.get(separator, separator)}")
    header, *rows = _split(path, kept, separator)
    names = [name.strip() for name in header[1]]
    while names and not names[-1]:
        names.pop()
    if repeated := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise UserError(f"{path} has more than one column {repeated[0]!r}: give each column a name of its own")
    if "" in names:
        raise UserError(f"{path}: column {names.index('') + 1} has no name; name each column in the header")
    for line, cells in rows:
        while len(cells) > len(names) and not cells[-1].strip():
            cells.pop()
        if len(cells) > len(names):
            hint = ": a decimal comma?" if separator == "," else "; mend the row"
            raise UserError(f"{path}, row {line}: {len(cells)} cells, the header has {len(names)}{hint}")
        cells += [""] * (len(names) - len(cells))
    columns = {name: [cells[i] for _, cells in rows] for i, name in enumerate(names)}
    return RawTable(columns, [line for line, _ in rows], str(path), separator != ",", tuple(notes))


def _numbered(path: pathlib.Path, text: str) -> list[tuple[int, str]]:
    """Returns the lines with their numbers, without blank lines and comments; a quoted cell may hold line breaks."""
    found: list[tuple[int, str]] = []
    open_quote = False
    for number, line in enumerate(text.splitlines(keepends=True), start=1):
        if open_quote:
            found[-1] = (found[-1][0], found[-1][1] + line)
        elif line.strip() and not line.lstrip().startswith("#"):
            found.append((number, line))
        else:
            continue
        open_quote = found[-1][1].count('"') % 2 == 1
    return found


def _split(path: pathlib.Path, kept: list[tuple[int, str]], separator: str) -> list[tuple[int, list[str]]]:
    reader = csv.reader((line for _, line in kept), delimiter=separator)
    try:
        return [(number, next(reader)) for number, _ in kept]
    except (csv.Error, StopIteration) as error:
        raise UserError(
            f"{path} is not separated text ({error or 'a quoted cell does not end'}): save it as comma-separated text"
        ) from None


def _json(path: pathlib.Path, text: str, lines: bool) -> RawTable:
    """Reads an object per line, a list of objects, or an object of columns."""
    if lines:
        numbered = [(i, line) for i, line in enumerate(text.splitlines(), start=1) if line.strip()]
        rows = [(i, _value(path, line, f", line {i}")) for i, line in numbered]
        return _of_objects(path, rows)
    value = _value(path, text, "")
    if isinstance(value, list):
        return _of_objects(path, list(enumerate(value, start=1)))
    if isinstance(value, dict) and value and all(isinstance(column, (list, dict)) for column in value.values()):
        columns = {str(name): list(column.values()) if isinstance(column, dict) else column for name, column in value.items()}
        made = of_frame(columns, str(path))
        return dataclasses.replace(made, lines=range(1, len(made) + 1))
    raise UserError(f"{path} is no table: write a list of objects, one per run, or an object with a list per column")


def _value(path: pathlib.Path, text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}{where} is not JSON ({error.msg} at character {error.pos + 1})") from None


def _of_objects(path: pathlib.Path, rows: list[tuple[int, Any]]) -> RawTable:
    for line, row in rows:
        if not isinstance(row, dict):
            raise UserError(f'{path}, row {line} is no object: write one per run, such as {{"N": 1e8, "D": 2e9, "loss": 3.1}}')
    names = list(dict.fromkeys(str(name) for _, row in rows for name in row))
    columns = {name: [row.get(name, "") for _, row in rows] for name in names}
    return RawTable(columns, [line for line, _ in rows], str(path))


def _parquet(path: pathlib.Path) -> RawTable:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise UserError(f"{path}: reading .parquet needs one more package: pip install pyarrow") from None
    try:
        columns = parquet.read_table(path).to_pydict()
    except (ArrowException, OSError) as error:
        raise UserError(f"{path} is not a whole Parquet file ({str(error).splitlines()[0]}): write it again") from None
    made = of_frame(columns, str(path))
    return dataclasses.replace(made, lines=range(1, len(made) + 1))


def _excel(path: pathlib.Path) -> RawTable:
    """Reads the first sheet, whose first row is the header."""
    try:
        import openpyxl
    except ImportError:
        raise UserError(f"{path}: reading .xlsx needs one more package: pip install openpyxl") from None
    try:
        sheet = openpyxl.load_workbook(path, read_only=True, data_only=True).worksheets[0]
        header, *rows = [list(row) for row in sheet.iter_rows(values_only=True)] or [[]]
    except Exception as error:  # openpyxl raises errors of many kinds for a file that is no workbook
        raise UserError(f"{path} is no Excel workbook ({type(error).__name__}): save it again, or as .csv") from None
    names = [str(name).strip() for name in header if name is not None]
    if len(set(names)) < len(names) or (len(names) < len(header) and any(row[len(names)] is not None for row in rows)):
        raise UserError(f"{path}: every column of the first sheet needs a name of its own in its first row")
    kept = [(line, row) for line, row in enumerate(rows, start=2) if any(cell is not None for cell in row)]
    columns = {name: ["" if row[i] is None else row[i] for _, row in kept] for i, name in enumerate(names)}
    return RawTable(columns, [line for line, _ in kept], str(path))
