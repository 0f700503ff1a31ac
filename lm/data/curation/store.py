"""Documents on disk between the stages of a curation and at its end: lines of JSON, compressed by zstd.

Compressed files may be joined end to end, so shards of the result are made of the parts without compressing anew.
"""

import contextlib
import io
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from lm.data.curation.document import Document
from lm.errors import UserError, one_line

BATCH = 8_000_000  # UTF-8 bytes of the documents that are worked on at once


@contextlib.contextmanager
def writing(path: str) -> Iterator[Callable[[Document], None]]:
    """Yields what writes a document to a file. A file of none is empty."""
    import pyarrow

    stream: Any = None

    def write(document: Document) -> None:
        nonlocal stream
        stream = stream or pyarrow.CompressedOutputStream(pyarrow.OSFile(path, "wb"), "zstd")
        value = {**document.metadata, "text": document.text, "id": document.name}
        stream.write(json.dumps(value, ensure_ascii=False).encode() + b"\n")

    try:
        yield write
    finally:
        if stream is not None:
            stream.close()
        else:
            open(path, "wb").close()


def read(path: str) -> Iterator[Document]:
    """Yields the documents of a file that `writing` wrote. Raises UserError for a damaged one."""
    import pyarrow

    try:
        with open(path, "rb") as raw:
            if not raw.read(1):
                return
            raw.seek(0)
            for line in io.BufferedReader(pyarrow.CompressedInputStream(raw, "zstd"), 1 << 20):
                value = json.loads(line)
                yield Document(value.pop("text"), value.pop("id"), value)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path} is damaged ({one_line(error)[:120]}); delete the folder .work beside the result, and run again") from error


def batches(documents: Iterable[Document], size: int = BATCH) -> Iterator[list[Document]]:
    """Yields documents in lists of so many UTF-8 bytes or a little more."""
    batch: list[Document] = []
    total = 0
    for document in documents:
        batch.append(document)
        total += document.size
        if total >= size:
            yield batch
            batch, total = [], 0
    if batch:
        yield batch
