"""A prepared corpus on disk: shards of text, their record and their fingerprint.

Once the directory is there only its content counts: packages installed later and files edited later change nothing.
"""

import contextlib
import dataclasses
import fcntl
import functools
import hashlib
import itertools
import os
import pathlib
import shutil
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Optional, Union

from lm.data.corpora.text_shards import FILE as SHARDS
from lm.data.corpora.text_shards import LEAST, PARTS, TextShards
from lm.data.store import new_directory, read_json, write_json
from lm.errors import UserError, one_line

RECORD = "corpus.json"
SPLITS = ("train", "validation")


class Texts:
    """Random access to the documents of one split: `len(texts)`, `texts[i] -> str`, `texts.name(i)`; UserError for a damaged one."""

    def __init__(self, directory: str, split: str, feature: str = "text"):
        import tensorflow_datasets as tfds  # half a second, so only when text is read

        self._feature, self._place = feature, f"{directory} ({split})"
        own = os.path.isfile(os.path.join(directory, RECORD))
        self._remedy = f"delete {directory} and run again" if own else "copy that data set again, or prepare it anew"
        with self._sound("the data set"):
            builder = tfds.builder_from_directory(directory)
            self._source = builder.as_data_source(split)
            self._bytes = (
                int(builder.info.dataset_size) * len(self) // max(sum(each.num_examples for each in builder.info.splits.values()), 1)
            )

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> str:
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        try:
            return self._record(index, self._feature).decode()
        except UnicodeDecodeError as error:
            raise UserError(f"document {index} of {self._place} is not UTF-8; prepare that data set from UTF-8 text") from error

    def __iter__(self) -> Iterator[str]:
        return (self[i] for i in range(len(self)))

    def name(self, index: int) -> str:
        """Returns the place that the document came from; '' if that was not recorded."""
        name = self._record(index, "name", b"")
        return name.decode(errors="replace") if isinstance(name, bytes) else str(name)

    def cut(self) -> list[tuple[int, int, int]]:
        """Returns parts of about equal size as (first document, last document + 1, bytes); TFDS has shuffled the documents."""
        count = min(max(self._bytes // LEAST, 1), PARTS, len(self))
        bounds = [len(self) * i // count for i in range(count + 1)]
        return [(a, b, self._bytes * (b - a) // len(self)) for a, b in itertools.pairwise(bounds)]

    def _record(self, index: int, feature: str, default: Any = None) -> Any:
        with self._sound(f"document {index}"):
            record = self._source[index % len(self)]
            return record[feature] if default is None else record.get(feature, default)

    @contextlib.contextmanager
    def _sound(self, what: str) -> Iterator[None]:
        """Raises UserError where the block meets a damaged file, of which array_record and TFDS tell by errors of several types."""
        try:
            yield
        except Exception as error:
            reason = one_line(error)
            raise UserError(f"{what} of {self._place} cannot be read ({reason[:160]}); {self._remedy}") from error


@dataclasses.dataclass(frozen=True)
class Corpus:
    """A corpus on disk, with two splits."""

    directory: str
    fingerprint: str  # 16 hex digits, a hash of the content
    info: dict  # documents and bytes per split, the documents dropped by reason, the shares of duplicates
    parts: dict  # split -> split of the TFDS data set in `directory`
    feature: str = "text"

    def split(self, name: str) -> Union[Texts, TextShards]:
        if name not in self.parts:
            raise UserError(f"a corpus has the splits {' and '.join(self.parts)}, not {name!r}")
        return _open(self.directory, self.parts[name], self.feature)


def load(directory: pathlib.Path) -> Optional[Corpus]:
    """Returns the corpus in a directory, or None. Raises UserError if a file of it is gone or has another size than recorded."""
    try:
        record = read_json(str(directory / RECORD))
    except NotADirectoryError:
        record = None
    if record is None:
        return None
    try:
        place, files = pathlib.Path(record.get("source", directory)), dict(record["files"])
        made = Corpus(str(place), record["fingerprint"], record["info"], record["parts"], record["feature"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"the corpus in {directory} is damaged: {RECORD} has changed; delete {directory} and run again") from error
    for name, size in files.items():
        found = (place / name).stat().st_size if (place / name).is_file() else None
        if found != size:
            state = "is missing" if found is None else f"has {found:,} bytes and not {size:,}"
            raise UserError(f"the corpus in {directory} is damaged: {place / name} {state}; delete {directory} and run again")
    return made


def prepare(directory: pathlib.Path, write: Callable[[str], dict], log: Callable[[str], object]) -> Corpus:
    """Loads the corpus, or has `write(temporary directory) -> record` make it; it appears whole or not at all.

    Processes that want the same corpus wait for the first. Files that a killed process left are removed, never used.
    """
    corpus = load(directory)
    if corpus:
        return corpus
    with _alone(directory, log):
        corpus = load(directory)
        if corpus:
            return corpus
        for stale in directory.parent.glob(directory.name + ".tmp*"):
            shutil.rmtree(stale, ignore_errors=True)
        if directory.is_dir():  # shards without a record were not made here
            raise UserError(f"{directory} holds something that is not a corpus; delete it or choose another --config.data_dir")
        with new_directory(str(directory)) as temporary:
            record = write(temporary)
            write_json(os.path.join(temporary, RECORD), record)
            _flush(pathlib.Path(temporary))
    corpus = load(directory)
    assert corpus is not None
    return corpus


def fingerprint(splits: Iterable[tuple[str, Iterable[str]]]) -> tuple[str, list[bytes]]:
    """Returns a hash of all texts in order, 16 hex digits, and the hash of each."""
    whole, each = hashlib.sha256(), []
    for name, texts in splits:
        whole.update(name.encode())
        for text in texts:
            each.append(hashlib.sha256(text.encode()).digest())
            whole.update(each[-1])
    return whole.hexdigest()[:16], each


@functools.cache
def _open(directory: str, split: str, feature: str) -> Union[Texts, TextShards]:
    if os.path.isfile(os.path.join(directory, SHARDS)):
        return TextShards(directory, split)
    return Texts(directory, split, feature)


@contextlib.contextmanager
def _alone(directory: pathlib.Path, log: Callable[[str], object]) -> Iterator[None]:
    """Holds a lock that the system releases when the process dies, however it dies."""
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        lock = (directory.parent / f".{directory.name}.lock").open("w")
    except OSError as error:
        raise UserError(f"cannot write {directory.parent}: {error.strerror}; choose another --config.data_dir") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log(f"waiting for another process that prepares {directory}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError:
            pass  # a file system without locks: two processes may do the work twice, and the first to finish is kept
        yield


def _flush(directory: pathlib.Path) -> None:
    for path in [*directory.iterdir(), directory]:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
