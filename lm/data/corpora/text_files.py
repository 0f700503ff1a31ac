"""Local text files as a corpus.

.txt      one document; one of more than 64 KiB is cut at line ends into pieces of at most that
.jsonl    one document per line, in its field 'text'
.parquet  one document per row, in its column 'text'
"""

import collections
import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Optional

from tqdm import tqdm

from lm.data.corpora.documents import Document, Splits, split, without_repeats
from lm.data.store import digest
from lm.errors import UserError

VERSION = "1.1.0"  # of the recipe: another one is another data set
PIECE = 65_536  # bytes


def key(paths: Sequence[str]) -> str:
    """Returns the name of the corpus of these files: a hash of their absolute paths."""
    if not paths:
        raise UserError("text_files needs files: name .txt, .jsonl or .parquet files in data.components.0.paths")
    return digest("text_files", [os.path.realpath(path) for path in paths])


def stamp(paths: Sequence[str]) -> dict[str, list]:
    """Returns path -> [bytes, time of modification in ns, SHA-256], by which `changed` knows a file again."""
    return {os.path.realpath(path): [os.stat(path).st_size, os.stat(path).st_mtime_ns, _sha256(path)] for path in paths}


def changed(stamps: dict[str, list]) -> Optional[str]:
    """Returns the first file whose content differs from its stamp. Files that are gone do not count: the corpus no longer needs them."""
    for path, (size, modified, sha256) in stamps.items():
        if os.path.exists(path):
            now = os.stat(path)
            if (now.st_size, now.st_mtime_ns) != (size, modified) and (now.st_size != size or _sha256(path) != sha256):
                return path
    return None


def collect(paths: Sequence[str], log: Callable[[str], object]) -> Splits:
    """Reads, cleans and splits the files. Raises UserError for a missing, empty or unreadable one, naming it and the place."""
    dropped: collections.Counter = collections.Counter()
    log(f"text_files: reading {len(paths)} file{'s' * (len(paths) != 1)} (once)")
    documents = list(_documents(paths, dropped))
    unique = without_repeats(documents, dropped)
    result = split(unique, dropped) if len(unique) > 1 else None
    if result is None or not result.train or not result.validation:
        raise UserError(
            f"text_files needs two or more documents that do not resemble each other, to hold one out, and found {len(unique)} in"
            f" {', '.join(paths)}; a .txt gives one document per 64 KiB: add text or use .jsonl"
        )
    if result.info["one_template"]:
        log("text_files: by their words all documents resemble one another, as those of a template do, so only lines were compared")
    result.info.update(dropped=dict(sorted(dropped.items())), files=len(paths))
    return result


def _documents(paths: Sequence[str], dropped: collections.Counter) -> Iterator[Document]:
    for number, path in enumerate(tqdm(paths, "text_files", unit=" files", disable=None, leave=False)):
        if not os.path.exists(path):
            raise UserError(f"{path} does not exist; correct data.components.0.paths")
        read = _READERS.get(pathlib.Path(path).suffix)
        if read is None or os.path.isdir(path):
            raise UserError(f"{path} is not a .txt, .jsonl or .parquet file; name such files in data.components.0.paths")
        count = 0
        try:
            for index, text in enumerate(read(path)):
                if text.strip():
                    yield Document(f"{number}:{os.path.basename(path)}:{index}", text)
                    count += 1
                else:
                    dropped["empty document"] += 1
        except UnicodeDecodeError as error:
            raise UserError(f"{path} is not UTF-8 (byte {error.start}: {error.reason}); convert it, e.g. with iconv -t utf-8") from error
        if not count:
            raise UserError(f"{path} holds no text; leave it out or fill it")


def _txt(path: str) -> Iterator[str]:
    text = pathlib.Path(path).read_bytes().decode("utf-8-sig")
    if len(text.encode()) <= PIECE:
        yield text
        return
    piece: list[str] = []
    size = 0
    for line in text.splitlines(keepends=True):
        length = len(line.encode())
        if piece and size + length > PIECE:
            yield "".join(piece)
            piece, size = [], 0
        piece.append(line)
        size += length
    yield "".join(piece)


def _jsonl(path: str) -> Iterator[str]:
    start = 0
    with open(path, "rb") as file:
        for number, raw in enumerate(file, 1):
            try:
                line = raw.decode()
            except UnicodeDecodeError as error:
                raise UnicodeDecodeError("utf-8", raw, start + error.start, start + error.end, error.reason) from error
            start += len(raw)
            if not line.strip():
                continue
            try:
                value = json.loads(line)
            except ValueError as error:
                raise UserError(f"{path} line {number} is not JSON ({error}); each line of a .jsonl is one JSON object") from error
            if not isinstance(value, dict) or not isinstance(value.get("text"), str):
                raise UserError(f"{path} line {number} has no field 'text' that holds a string; rename the field of your text to 'text'")
            yield _encodable(value["text"], f"{path} line {number}")


def _parquet(path: str) -> Iterator[str]:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise UserError(f"{path} is not a parquet file ({' '.join(str(error).split())[:120]})") from error
    columns = {field.name: field.type for field in file.schema_arrow}
    kind = columns.get("text")
    if kind is None or not (pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind)):
        raise UserError(f"{path} has no string column 'text' (it has {', '.join(columns)}); rename the column of your text to 'text'")
    row = 0
    for batch in file.iter_batches(columns=["text"]):
        for value in batch.column(0):
            if value.as_py() is None:
                raise UserError(f"{path} row {row} has no text (null); drop such rows")
            yield value.as_py()
            row += 1


def _encodable(text: str, place: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = f"\\u{ord(text[error.start]):04x}"
        raise UserError(f"{place} holds half of a surrogate pair ({half}), which is not UTF-8; repair it") from error
    return text


_READERS: dict[str, Callable[[str], Iterator[str]]] = {".txt": _txt, ".jsonl": _jsonl, ".parquet": _parquet}


def _sha256(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
