"""Reads array_record files whose records are UTF-8 text."""

import pathlib
from collections.abc import Iterator

from lm.data.corpora import places
from lm.data.corpora.faults import Faults
from lm.data.corpora.lines import Part
from lm.errors import UserError

AT_ONCE = 64  # records that are read at a time


def count(path: str) -> int:
    """Returns the number of records of a file."""
    reader = _opened(path)
    try:
        return reader.num_records()
    finally:
        reader.close()


def documents(path: str, faults: Faults, part: Part = (0, None)) -> Iterator[str]:
    """Yields the text of each record; `part` counts records."""
    reader = _opened(path)
    try:
        last = reader.num_records() if part[1] is None else part[1]
        for first in range(part[0], last, AT_ONCE):
            for number, record in enumerate(reader.read(first, min(first + AT_ONCE, last)), first):
                try:
                    text = record.decode()
                except UnicodeDecodeError:
                    faults.meet("document that is not UTF-8", UserError(f"{path} record {number} is not UTF-8 text"))
                else:
                    yield text
    except (RuntimeError, ValueError, IndexError) as error:
        raise UserError(f"{path} cannot be read ({' '.join(str(error).split())[:120]}); copy it again, whole") from error
    finally:
        reader.close()


def _opened(path: str):
    from array_record.python import array_record_module

    if (pathlib.Path(path).parent / "dataset_info.json").exists():
        raise UserError(f"{path} is of a TFDS data set, whose records are not text alone: set --config.data.components.0.corpus=tfds:NAME")
    if places.is_address(path):
        raise UserError(f"{path}: files of array_record are read on this machine only: copy it here")
    reader = array_record_module.ArrayRecordReader(path)
    if not reader.ok():
        raise UserError(f"{path} is not an array_record file, or was cut; copy it again, whole")
    return reader
