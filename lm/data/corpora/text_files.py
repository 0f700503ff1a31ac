"""Local files of text as a corpus; lm.data.corpora.readers says what is read of which kind of file."""

import collections
import hashlib
import os
import pathlib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Optional, Union

from tqdm import tqdm

from lm.data.corpora import places, readers
from lm.data.corpora.documents import LEAST_SHARE, VALIDATION_SHARE, Document, Splits, split, without_repeats
from lm.data.corpora.faults import LONGEST, Faults
from lm.data.store import digest
from lm.errors import UserError, counted

VERSION = "1.3.0"  # of the recipe: another one is another data set
LARGEST = 1_000_000_000  # bytes of a split: beyond it TFDS sorts on disk, which needs TensorFlow


def key(paths: Sequence[str], field: Optional[str] = None, lines: bool = False, faults: Optional[Faults] = None) -> str:
    """Returns the name of the corpus of these files: a hash of the absolute paths as they are given, and of what is read of them."""
    if not paths:
        raise UserError("text_files needs files: name files, folders or patterns in --config.data.components.0.paths")
    where = [places.real(path) for path in paths]
    special = faults is not None and (faults.skip or faults.longest != LONGEST)
    how = [field, lines, *([faults.longest, faults.skip] if faults and special else [])]
    return digest("text_files", where, *(how if field is not None or lines or special else []))


def stamp(paths: Sequence[str]) -> dict[str, list]:
    """Returns path -> [bytes, time of modification in ns, SHA-256], by which `changed` knows a file again."""
    stamps = {}
    for path in paths:
        with readers.reading(path):
            stamps[os.path.realpath(path)] = [os.stat(path).st_size, os.stat(path).st_mtime_ns, _sha256(path)]
    return stamps


def changed(stamps: dict[str, list]) -> Optional[str]:
    """Returns the first file whose content differs from its stamp. Files that are gone do not count: the corpus no longer needs them."""
    for path, (size, modified, sha256) in stamps.items():
        if os.path.exists(path):
            now = os.stat(path)
            if (now.st_size, now.st_mtime_ns) != (size, modified) and (now.st_size != size or not _has(path, sha256)):
                return path
    return None


def added(stamps: dict[str, list], paths: Sequence[str]) -> Optional[str]:
    """Returns the first file in the folders and patterns among `paths` that has no stamp. Addresses are not looked at again."""
    try:
        now = readers.expand([path for path in paths if not places.is_address(path)], lambda line: None)
    except UserError:  # gone since
        return None
    return next((path for path in now if os.path.realpath(path) not in stamps), None)


def is_large(paths: Sequence[str], field: Optional[str] = None) -> bool:
    """Returns whether the files, by their sizes, hold more text than is prepared in memory; nothing but a sample is read."""
    if sum(os.path.getsize(path) for path in paths) < LARGEST / 50:  # no text is compressed further
        return False
    return readers.estimated_bytes(paths, field) > 1.1 * LARGEST


def require_room(paths: Sequence[str], field: Optional[str] = None) -> None:
    """Raises UserError if the files, by their sizes, hold more text than is prepared in memory; nothing but a sample is read."""
    if is_large(paths, field):
        expected = readers.estimated_bytes(paths, field)
        raise UserError(
            f"text_files holds up to {LARGEST / 1e9:.3g} GB of text in memory, and the files named here are about {expected / 1e9:.3g} GB;"
            " leave out --config.data.components.0.streamed=false, or name fewer"
        )


def name(number: int, path: str, index: int) -> str:
    """Returns the name of a document: the number of its file among those named, the file's own name, and its place in it."""
    return f"{number}:{os.path.basename(path)}:{index}"


def is_piece(document: str) -> bool:
    """Returns whether a document, by its name, is a file of text or a piece of one: not a row of a table nor an object."""
    match = re.fullmatch(r"\d+:(.+):\d+", document)
    return match is not None and readers.Kind(match[1]).is_text


def collect(
    paths: Sequence[str],
    log: Callable[[str], object],
    field: Optional[str] = None,
    lines: bool = False,
    faults: Optional[Faults] = None,
) -> Splits:
    """Reads, cleans and splits the files. Raises UserError for an empty or unreadable one, naming it and the place."""
    dropped: collections.Counter = collections.Counter()
    kinds = collections.Counter(pathlib.Path(path).suffix or "without suffix" for path in paths)
    of_each = f" ({', '.join(f'{suffix} {count:,}' for suffix, count in kinds.most_common())})" if len(paths) > 1 else ""
    log(f"text_files: reading {counted(len(paths), 'file')}{of_each}, once")
    faults = faults or Faults()
    documents = list(_documents(paths, field, lines, dropped, faults))
    faults.require_few(len(documents))
    dropped.update(faults.counts)
    unique = without_repeats(documents, dropped)
    result = split(unique, dropped) if len(unique) > 1 else None
    if result is not None:
        _require_unlike(result.info)
    if result is None or not result.train or not result.validation:
        places = ", ".join(paths[:3]) + (f" and {len(paths) - 3:,} more" if len(paths) > 3 else "")
        raise UserError(
            f"text_files needs two or more documents that do not resemble each other, to hold one out, and found {len(unique)} in {places};"
            " a .txt gives one per 64 KiB: add text, use .jsonl, or set --config.data.components.0.lines=true where each line is a document"
        )
    for line in _said(result.info):
        log(f"text_files: {line}")
    result.info.update(dropped=dict(sorted(dropped.items())), files=len(paths))
    return result


def _require_unlike(info: dict) -> None:
    """Raises UserError where the text is, but for a few bytes, copies of one text or of several."""
    if info["alike"]:
        sets = [
            f"{counted(each['documents'], 'document')}, {each['share']:.1%} of the bytes, like {each['example']}"
            for each in info["largest_clusters"]
        ]
        raise UserError(
            "text_files holds out no document that is a copy of one in train with few changes, and there are next to no others"
            f" ({'; '.join(sets)}): keep one of each set, or add other text"
        )


def _said(info: dict) -> Iterator[str]:
    """Yields what a reader of held-out losses should know of the split."""
    share = info["bytes"]["validation"] / max(sum(info["bytes"].values()), 1)
    if share < LEAST_SHARE:
        yield (
            f"the validation split has {share:.2%} of the bytes, in {counted(info['documents']['validation'], 'document')}, where"
            f" {VALIDATION_SHARE:.0%} are wanted: its loss may not be that of the rest of the text"
        )
    if info["told_apart"]:
        differ = {
            "closer": "share less than half of their lines, and less than 80% of their words where they have few lines",
            "lines": "share less than half of their lines, if more of their words, as those of a template do",
        }[info["told_apart"]]
        alike = sum(each["share"] for each in info["largest_clusters"] if each["split"] == "both")
        yield f"documents with {alike:.1%} of the bytes resemble one another; some of them are held out, which {differ}"


def _documents(paths: Sequence[str], field: Optional[str], lines: bool, dropped: collections.Counter, faults: Faults) -> Iterator[Document]:
    for number, path in enumerate(tqdm(paths, "text_files", unit=" files", disable=None, leave=False)):
        count = 0
        for index, text in enumerate(readers.read(path, field, lines, faults)):
            if text.strip():
                yield Document(name(number, path, index), text)
                count += 1
            else:
                dropped["empty document"] += 1
        if not count and len(paths) == 1 and not faults.counts:
            raise UserError(f"{path} holds no text; leave it out or fill it")
        dropped["empty file"] += not count


def _has(path: str, sha256: Union[str, list]) -> bool:
    """Returns whether a file's content has a hash, or its parts have theirs (lm.data.corpora.streamed)."""
    if isinstance(sha256, str):
        return _sha256(path) == sha256
    from lm.data.corpora import streamed

    return streamed.same_content(path, sha256)


def _sha256(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
