"""The token cache: every document of a split, tokenised once (imports neither jax nor grain).

A cache is a directory: `tokens.bin`, all ids back to back (uint16, or uint32 for large vocabularies); `starts.npy`, where each document
begins; `bytes.npy`, UTF-8 bytes per document; `meta.json`, counts and checksums. The ids of a large split lie in several files instead,
000000.tokens and on, which were written by as many processes as there are cores (lm.data.shared_work); counted over all files, they are
the same. A flat memory map rather than array_record, because
packed rows are windows into documents: a window costs one copy of its own tokens, where a record has to be read and decoded whole
(about 1 us against 100). The text itself stays in array_record.

Every document ends in the end-of-document id, and one such id precedes the first document. So the token before any token is the input
that predicts it, the first token of a document included.
"""

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Sequence
from typing import IO, Any, Optional, Union

import numpy as np

from lm.data import shared_work
from lm.data.corpora.faults import Faults
from lm.data.objectives.pairs import PairTokenizer
from lm.data.round_trip import LEAST_SAMPLE, SAMPLE, RoundTrip, in_words, joined
from lm.data.store import digest, new_directory, read_json, write_json
from lm.data.token_file import TokenFile, crc32_of
from lm.data.token_shards import Part, TokenShards, allow_open_files, shard_file, write_numbers
from lm.data.tokenizer import Log, Tokenizer
from lm.errors import UserError, counted
from lm.rows import in_vocabulary

_SCHEMA = 1
BEYOND, UNREADABLE = "document with ids beyond the vocabulary", "document that cannot be read"
_FILES = ("tokens.bin", "starts.npy", "bytes.npy")
LARGE = 64_000_000  # bytes of a split from which every core tokenises a part of it
_MEASURED = "round_trip.json"  # the losses of a cache whose meta.json does not have them


@dataclasses.dataclass(frozen=True, eq=False)
class TokenCache:
    """The tokens of a split, mapped into memory: `cache[i]` is document i, int32 ids, the last of them the end of document."""

    directory: str
    fingerprint: str
    eos_id: int
    vocab_size: int
    flat: Union[
        TokenFile, TokenShards
    ]  # [1 + tokens]: one end-of-document id, then all documents; document i is flat[starts[i] : starts[i + 1]]
    starts: np.ndarray  # int64 [documents + 1]
    byte_counts: np.ndarray  # int64 [documents]: UTF-8 bytes of the text
    round_trip: Optional[dict[str, Any]] = None  # what its tokens lose of the text (lm.data.round_trip); None: not measured

    @property
    def lengths(self) -> np.ndarray:
        """The number of tokens of each document, its end included: int64 [documents]."""
        return np.diff(self.starts)

    @property
    def num_tokens(self) -> int:
        return int(self.starts[-1] - self.starts[0])

    @property
    def num_bytes(self) -> int:
        return int(self.byte_counts.sum())

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, i: int) -> np.ndarray:
        if not 0 <= i < len(self):
            raise IndexError(f"document {i} of {len(self)}")
        return self.flat[self.starts[i] : self.starts[i + 1]].astype(np.int32)


def prepare(corpus: Any, split: str, tokenizer: Tokenizer, data_dir: str, log: Log = print, faults: Optional[Faults] = None) -> TokenCache:
    """Tokenises a split of a corpus, or opens the cache of an earlier call.

    Args:
      corpus: the corpus.
      split: "train" or "validation".
      tokenizer: the tokenizer.
      data_dir: the directory of the cache.
      log: takes lines.
      faults: what becomes of documents with ids beyond the tokenizer's vocabulary: refused, or left out and counted (None: refused).

    Raises:
      UserError: an empty split, a damaged cache, or ids that a document must not have.
    """
    faults = faults.fresh() if faults else Faults(flags=False)
    fingerprint = digest("tokens", _SCHEMA, corpus.fingerprint, split, tokenizer.fingerprint)
    directory = os.path.join(data_dir, "tokens", fingerprint)
    if not os.path.isdir(directory):
        documents = corpus.split(split)
        if len(documents) == 0:
            raise UserError(f"the corpus has no {split} documents; give it more text")
        end = getattr(tokenizer, "eos_token", None)  # of a file, which does not say itself what ends a document
        log(f"tokenising {counted(len(documents), f'{split} document')} ({tokenizer.name}{f'; each ends in {end}' if end else ''})")
        parts = documents.cut() if hasattr(documents, "cut") else []
        if not parts or sum(size for _, _, size in parts) < LARGE:
            with new_directory(directory) as temporary:
                _write(temporary, fingerprint, documents, tokenizer, faults)
        else:
            _write_parts(directory, fingerprint, parts, (corpus, split, tokenizer, faults), log)
    cache = open_cache(directory)
    if left := (read_json(os.path.join(directory, "meta.json")) or {}).get("left_out", 0):
        what = f"cannot be read or have ids beyond the tokenizer's vocabulary of {tokenizer.vocab_size:,}"
        if not faults.skip:
            faults.meet(BEYOND, UserError(f"{left:,} of {left + len(cache):,} {split} documents {what}: mend the text or the tokenizer"))
        log(f"{split}: {counted(left, 'document')} left out, which {what}")
    if cache.round_trip is None:  # made before losses were measured
        cache = dataclasses.replace(cache, round_trip=_round_trip(corpus.split(split), tokenizer))
        with contextlib.suppress(UserError):  # where nothing can be written, it is measured anew each time
            write_json(os.path.join(directory, _MEASURED), cache.round_trip)
    assert cache.round_trip is not None
    if cache.round_trip["lost"]:
        log(f"{split}: {in_words(cache.round_trip)}")
    return cache


def open_cache(directory: str, verify: bool = True) -> TokenCache:
    """Opens a cache, its tokens mapped into memory. Raises UserError if it is damaged.

    Args:
      directory: the directory of the cache.
      verify: whether to read it once and compare it with its checksums (about 1 s per GB).
    """
    damaged = UserError(f"the token cache {directory} is damaged; delete that directory and run again")
    meta = read_json(os.path.join(directory, "meta.json"))
    try:
        expected = meta["files"]
        paths = {name: os.path.join(directory, name) for name in expected}
        shards = [name for name in expected if name.endswith(".tokens")] or ["tokens.bin"]
        if (
            {*_FILES} - {*paths, *(["tokens.bin"] if shards != ["tokens.bin"] else [])}
            or meta["schema"] != _SCHEMA
            or any(os.path.getsize(path) != expected[name]["size"] for name, path in paths.items())
        ):
            raise damaged
        allow_open_files(len(shards))
        files = [TokenFile(paths[name], meta["dtype"], expected[name]["crc32"]) for name in shards]  # now: they see what changes later
        if verify and any(_crc32(path) != expected[name]["crc32"] for name, path in paths.items()):
            raise damaged
        return TokenCache(
            directory,
            meta["fingerprint"],
            meta["eos_id"],
            meta["vocab_size"],
            files[0] if len(files) == 1 else TokenShards(files),
            np.load(paths["starts.npy"]),
            np.load(paths["bytes.npy"]),
            meta.get("round_trip") or read_json(os.path.join(directory, _MEASURED)),
        )
    except (FileNotFoundError, KeyError, TypeError, ValueError) as error:
        raise damaged from error


def write_part(
    corpus: Any, split: str, tokenizer: Tokenizer, faults: Faults, sample: int, part: tuple[int, int, int], folder: str
) -> dict[str, Any]:
    """Tokenises documents part[0] to part[1] of a split into a folder: tokens, lengths.npy, bytes.npy. Returns the facts about them."""
    (first, last, _), faults = part, faults.fresh()
    documents = Part(corpus.split(split), first, last)
    with open(os.path.join(folder, "tokens"), "w+b") as file:
        if first == 0:
            file.write(np.asarray([tokenizer.eos_id], _dtype(tokenizer)).tobytes())
        lengths, byte_counts, round_trip = _append(file, documents, tokenizer, faults, sample, first)
        crc = crc32_of(file)
    np.save(os.path.join(folder, "lengths.npy"), lengths)
    np.save(os.path.join(folder, "bytes.npy"), byte_counts)
    counts = {"documents": len(lengths), "tokens": int(lengths.sum()), "bytes": int(byte_counts.sum()), "left_out": faults.counts.total()}
    return counts | {"crc32": crc, "round_trip": round_trip.record, "first_left_out": faults.first}


def _write(directory: str, fingerprint: str, documents: Any, tokenizer: Tokenizer, faults: Faults) -> None:
    with open(os.path.join(directory, "tokens.bin"), "wb") as file:
        file.write(np.asarray([tokenizer.eos_id], _dtype(tokenizer)).tobytes())
        lengths, byte_counts, round_trip = _append(file, documents, tokenizer, faults)
    faults.require_few(len(lengths))
    np.save(os.path.join(directory, "starts.npy"), 1 + np.concatenate([[0], np.cumsum(lengths)]))
    np.save(os.path.join(directory, "bytes.npy"), byte_counts)
    counts = {"documents": len(lengths), "tokens": int(lengths.sum()), "bytes": int(byte_counts.sum()), "left_out": faults.counts.total()}
    _finish(directory, fingerprint, tokenizer, counts, round_trip.record, {name: _crc32(os.path.join(directory, name)) for name in _FILES})


def _write_parts(
    directory: str, fingerprint: str, parts: Sequence[tuple[int, int, int]], text: tuple[Any, str, Tokenizer, Faults], log: Log
) -> None:
    """Has every core write parts of a cache, and joins them. `text` is (corpus, split, tokenizer, its policy)."""
    _, split, tokenizer, faults = text
    sample = max(SAMPLE // len(parts), LEAST_SAMPLE)
    job = shared_work.Job(directory, write_part, (*text, sample), parts, [size for _, _, size in parts])
    shared_work.carry_out(job, f"tokenising {split}", log)
    shared_work.join(job, lambda temporary: _join(temporary, fingerprint, tokenizer, faults.fresh(), job))


def _join(directory: str, fingerprint: str, tokenizer: Tokenizer, faults: Faults, job: shared_work.Job) -> None:
    """Joins parts of a cache to one: their tokens are linked, and what is known of each document is written anew."""
    folders = [job.folder(i) for i in range(len(job.units))]
    facts = [job.facts(i) for i in range(len(job.units))]
    counts = {name: sum(each[name] for each in facts) for name in ("documents", "tokens", "bytes", "left_out")}
    faults.add({BEYOND: counts["left_out"]}, next((each["first_left_out"] for each in facts if each["left_out"]), None))
    faults.require_few(counts["documents"])
    crcs = {}
    for i, each in enumerate(facts):
        if not each["tokens"] and i:  # all left out
            continue
        target = shard_file(directory, i)
        os.link(folders[i] / "tokens", target)
        crcs[os.path.basename(target)] = each["crc32"]

    def starts() -> Iterator[np.ndarray]:
        at = 1
        yield np.asarray([at])
        for folder in folders:
            lengths = np.load(folder / "lengths.npy")
            yield at + np.cumsum(lengths)
            at += int(lengths.sum())

    write_numbers(os.path.join(directory, "starts.npy"), starts(), counts["documents"] + 1)
    write_numbers(os.path.join(directory, "bytes.npy"), (np.load(folder / "bytes.npy") for folder in folders), counts["documents"])
    crcs |= {name: _crc32(os.path.join(directory, name)) for name in ("starts.npy", "bytes.npy")}
    _finish(directory, fingerprint, tokenizer, counts, joined([each["round_trip"] for each in facts]), crcs)


def _finish(
    directory: str, fingerprint: str, tokenizer: Tokenizer, counts: dict[str, int], round_trip: dict[str, Any], crcs: dict[str, int]
) -> None:
    """Writes meta.json, by which the cache is opened."""
    meta = {
        "schema": _SCHEMA,
        "fingerprint": fingerprint,
        "tokenizer": tokenizer.name,
        "vocab_size": tokenizer.vocab_size,
        "eos_id": tokenizer.eos_id,
        "dtype": _dtype(tokenizer).name,
        **{name: count for name, count in counts.items() if count or name != "left_out"},
        "round_trip": round_trip,
        "files": {name: {"size": os.path.getsize(os.path.join(directory, name)), "crc32": crc} for name, crc in crcs.items()},
    }
    write_json(os.path.join(directory, "meta.json"), meta)


def _append(
    file: IO[bytes], documents: Any, tokenizer: Tokenizer, faults: Faults, sample: int = SAMPLE, number: int = 0
) -> tuple[np.ndarray, np.ndarray, RoundTrip]:
    """Appends the ids of documents to a file. Returns the tokens of each with its end, the bytes of each, and what the tokens lose.

    Args:
      file: the file.
      documents: the documents.
      tokenizer: what makes ids of text.
      faults: counts documents that are left out, where its policy is such.
      sample: bytes that are read back.
      number: that of the first document in its split, for errors.
    """
    if isinstance(tokenizer, PairTokenizer):
        tokenizer.require_documents(documents)
    lengths, byte_counts = np.empty(len(documents), np.int64), np.empty(len(documents), np.int64)
    dtype, at, round_trip = _dtype(tokenizer), 0, RoundTrip(tokenizer, sample)
    for numbers, texts in _groups(documents, faults):
        encoded = zip(numbers, texts, tokenizer.encode_batch(texts), strict=True)
        used = [(number + i, text, ids) for i, text, ids in encoded if _is_known(ids, tokenizer, number + i, faults)]
        round_trip.add([text for _, text, _ in used], [ids for *_, ids in used])
        for i, text, ids in used:
            file.write(_document(ids, tokenizer, i).astype(dtype).tobytes())
            lengths[at], byte_counts[at] = len(ids) + 1, len(text.encode())
            at += 1
    return lengths[:at], byte_counts[:at], round_trip


def _dtype(tokenizer: Tokenizer) -> np.dtype:
    return np.dtype(np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32)


def _round_trip(documents: Any, tokenizer: Tokenizer) -> dict[str, Any]:
    found = RoundTrip(tokenizer)
    for _, texts in _groups(documents, Faults(flags=False)):
        if found.full:
            break
        found.add(texts, tokenizer.encode_batch(texts))
    return found.record


def _is_known(ids: np.ndarray, tokenizer: Tokenizer, i: int, faults: Faults) -> bool:
    """Returns whether all ids are of the vocabulary. Where they are not, the document is refused or counted."""
    known = in_vocabulary(ids, tokenizer.vocab_size)
    if not known:
        vocabulary = f"the tokenizer's vocabulary of {tokenizer.vocab_size}"
        faults.meet(BEYOND, UserError(f"document {i} has token ids outside {vocabulary}; use another tokenizer"))
    return known


def _document(ids: np.ndarray, tokenizer: Tokenizer, i: int) -> np.ndarray:
    if (ids == tokenizer.eos_id).any():
        raise UserError(f"document {i} holds the end-of-document id as text; mark that token as special in the tokenizer")
    return np.append(ids, tokenizer.eos_id)


def _groups(documents: Any, faults: Faults, characters: int = 1 << 20) -> Iterator[tuple[list[int], list[str]]]:
    """Yields numbers and texts of documents in order, about this many characters at a time: they are encoded at once and held in memory.

    Documents that cannot be read, such as those of a damaged shard, are refused or left out and counted.
    """
    numbers: list[int] = []
    texts: list[str] = []
    size = 0
    for i in range(len(documents)):
        try:
            text = documents[i]
        except UserError as error:
            faults.meet(UNREADABLE, error)
            continue
        numbers.append(i)
        texts.append(text)
        size += len(text)
        if size >= characters:
            yield numbers, texts
            numbers, texts, size = [], [], 0
    if texts:
        yield numbers, texts


def _crc32(path: str) -> int:
    with open(path, "rb") as file:
        return crc32_of(file)
