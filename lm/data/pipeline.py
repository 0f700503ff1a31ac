"""From a data configuration to the batches of a run.

The batch of step k is rows kB..(k+1)B of an endless sequence of rows, and row g lies in epoch g // R, at the place that Grain's
`index_shuffle` gives it. So a batch is a pure function of (data set, seed, k): no state to save, no matter how many hosts, and batch 10^6
costs what batch 0 costs. A process builds its own rows only.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Optional

import grain
import numpy as np
from grain.experimental import index_shuffle

from lm.data import objectives, packing, tokens
from lm.data.config import DataConfig
from lm.data.info import index_path, info, with_rows
from lm.data.mixture import Mixture, Source, require_unique, shares
from lm.data.store import digest, read_json, seed_of, write_json
from lm.data.tokenizer import Log, Tokenizer
from lm.data.tokenizer import build as build_tokenizer
from lm.errors import UserError
from lm.types import Batch

__all__ = ["Data", "Documents", "TrainStream", "build", "info", "prepare"]


@dataclasses.dataclass(frozen=True, eq=False)
class Documents:
    """Whole documents of one or several token caches, in a fixed order: `documents[i]` is int32 ids ending in the end of document.

    A prefix of the order is a fair sample: documents are shuffled, and corpora alternate by their shares of the tokens.
    """

    caches: tuple[tokens.TokenCache, ...]
    cache_of: np.ndarray  # int64 [documents]
    index_of: np.ndarray  # int64 [documents]
    lengths: np.ndarray  # tokens per document, with the end of document
    byte_counts: np.ndarray  # UTF-8 bytes per document

    def __len__(self) -> int:
        return len(self.index_of)

    def __getitem__(self, i: int) -> np.ndarray:
        return self.caches[self.cache_of[i]][int(self.index_of[i])]


@dataclasses.dataclass(frozen=True, eq=False)
class Data:
    """A prepared data set. `fingerprint` names the text, its weights and its tokens; `info` is described at `lm.data.info.info`."""

    tokenizer: Tokenizer
    fingerprint: str
    info: dict[str, Any]
    train: Documents  # those that the budget of unique tokens admits
    validation: Documents
    mixture: Mixture
    data_dir: str

    @property
    def bytes_per_token(self) -> float:
        """UTF-8 bytes of text per document token that training reads, the corpora weighted by their shares."""
        mixture = self.mixture
        each = [
            source.share * (int(source.cache.byte_counts[chosen].sum()) / int(source.cache.lengths[chosen].sum()))
            for source, chosen in zip(mixture.sources, mixture.documents, strict=True)
        ]
        return sum(each)

    def require_vocabulary(self, vocab_size: int) -> None:
        """Raises UserError if a model of this vocabulary cannot read the data: JAX would clamp such ids without a word."""
        if self.tokenizer.vocab_size > vocab_size:
            raise UserError(
                f"the tokenizer has {self.tokenizer.vocab_size} ids but the model a vocabulary of {vocab_size};"
                f" set model.vocab_size={self.tokenizer.vocab_size}"
            )


def prepare(config: DataConfig, data_dir: str, log: Log = print) -> Data:
    """Prepares corpora, tokenizer and token caches, or opens what an earlier call left; every artefact appears whole or not at all.

    Raises UserError on empty corpora, damaged caches, a directory that cannot be written, and budgets beyond the corpus.
    """
    from lm.data import corpora

    shares(config)
    return build(config, [corpora.prepare(component, data_dir, log) for component in config.components], data_dir, log)


def build(config: DataConfig, corpora: Sequence[Any], data_dir: str, log: Log = print) -> Data:
    """`prepare`, from prepared corpora: `.fingerprint`, `.info`, `.split("train" | "validation")` with random access to text."""
    tokenizer = build_tokenizer(config.tokenizer, corpora, data_dir, log)
    train = [tokens.prepare(corpus, "train", tokenizer, data_dir, log) for corpus in corpora]
    validation = [tokens.prepare(corpus, "validation", tokenizer, data_dir, log) for corpus in corpora]
    weights, fingerprints = shares(config), [corpus.fingerprint for corpus in corpora]
    index = _index(config, corpora, tokenizer, train, validation)
    path = index_path(config, data_dir)
    if read_json(path) != index:
        write_json(path, index)
    sources = [Source(*each) for each in zip(train, fingerprints, weights, strict=True)]
    held_out = [Source(*each) for each in zip(validation, fingerprints, weights, strict=True)]
    mixture = Mixture(sources, config)
    return Data(
        tokenizer,
        index["fingerprint"],
        with_rows(index, mixture),
        _documents(sources, mixture.documents),
        _documents(held_out, [source.order for source in held_out]),
        mixture,
        data_dir,
    )


def _index(
    config: DataConfig,
    corpora: Sequence[Any],
    tokenizer: Tokenizer,
    train: Sequence[tokens.TokenCache],
    validation: Sequence[tokens.TokenCache],
) -> dict[str, Any]:
    splits = {"train": train, "validation": validation}
    return {
        "fingerprint": digest("data", 1, [(cache.fingerprint, share) for cache, share in zip(train, shares(config), strict=True)]),
        "tokenizer": {"name": tokenizer.name, "vocab_size": tokenizer.vocab_size, "fingerprint": tokenizer.fingerprint},
        "documents": {split: sum(len(cache) for cache in caches) for split, caches in splits.items()},
        "tokens": {split: sum(cache.num_tokens for cache in caches) for split, caches in splits.items()},
        "bytes": {split: sum(cache.num_bytes for cache in caches) for split, caches in splits.items()},
        "components": [
            {
                "corpus": component.corpus,
                "weight": component.weight,
                "fingerprint": corpus.fingerprint,
                "tokens": {split: caches[i].fingerprint for split, caches in splits.items()},
                "info": corpus.info,
            }
            for i, (component, corpus) in enumerate(zip(config.components, corpora, strict=True))
        ],
    }


def _documents(sources: Sequence[Source], chosen: Sequence[np.ndarray]) -> Documents:
    lengths = [source.cache.lengths[each] for source, each in zip(sources, chosen, strict=True)]
    # A document's turn comes when its corpus has used up its share of the tokens before it.
    turns = np.concatenate([(np.cumsum(each) - each) / source.share for source, each in zip(sources, lengths, strict=True)])
    order = np.argsort(turns, kind="stable")
    return Documents(
        tuple(source.cache for source in sources),
        np.repeat(np.arange(len(sources)), [len(each) for each in chosen])[order],
        np.concatenate(chosen)[order],
        np.concatenate(lengths)[order],
        np.concatenate([source.cache.byte_counts[each] for source, each in zip(sources, chosen, strict=True)])[order],
    )


class TrainStream:
    """The training batches of one run, as this process sees them.

    `stream[k]` is this process's slice of the global batch k: a Batch of numpy arrays [batch_size / process_count, T].
    `iterate(start, stop)` yields the same batches in order, read ahead by Grain.
    Raises UserError for steps beyond the corpus unless `config.allow_epochs`.
    """

    def __init__(self, data: Data, config: DataConfig, batch_size: int, seed: int, process_index: int = 0, process_count: int = 1):
        if batch_size <= 0 or batch_size % process_count:
            raise UserError(f"batch_size={batch_size} cannot be split over {process_count} processes; make it a multiple of them")
        self._data, self._config, self._seed, self._batch_size = data, config, seed, batch_size
        self._mixture = Mixture(data.mixture.sources, config)
        self._local = batch_size // process_count
        self._first = process_index * self._local
        # Two epochs of every source: the one in use and the one that prefetching reaches into.
        self._plan = functools.lru_cache(maxsize=2 * len(self._mixture.sources))(self._load_plan)
        self._epoch_seed = functools.lru_cache(maxsize=4)(self._shuffle_seed)

    @property
    def rows_per_epoch(self) -> int:
        return self._mixture.rows_per_epoch

    def require(self, steps: int) -> None:
        """Raises UserError if `steps` steps would see a token twice and may not."""
        require_unique(self._config, steps * self._batch_size, self.rows_per_epoch)

    def document_tokens(self, start: int, stop: int) -> int:
        """Document tokens in the global batches of steps start..stop: D, without padding."""
        rows = np.arange(start * self._batch_size, stop * self._batch_size)
        if not len(rows):
            return 0
        if self._mixture.algorithm == "concatenate":
            return len(rows) * self._mixture.length
        return sum(int(plan.row_tokens()[chosen].sum()) for _, plan, chosen, _ in self._groups(rows))

    def __getitem__(self, k: int) -> Batch:
        if k < 0:
            raise IndexError(f"step {k} is before the first")
        return self._block(k, 1)[0]

    def iterate(self, start: int, stop: int, threads: int = 1, ahead: int = 2) -> Iterator[Batch]:
        """Batches start..stop in order. Grain's threads read `ahead` blocks of some 16k tokens ahead; 0 threads read on demand."""
        self.require(stop)
        per_block = max(1, (1 << 14) // (self._local * self._mixture.length))
        blocks = _Blocks(functools.partial(self._span, stop, per_block), start, -(-(stop - start) // per_block))
        return _flat(blocks, grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead if threads else 0))

    def _span(self, stop: int, per_block: int, start: int, i: int) -> list[Batch]:
        first = start + i * per_block
        return self._block(first, min(per_block, stop - first))

    def _block(self, k: int, count: int) -> list[Batch]:
        """Batches k..k+count, built together: the fixed cost of the numpy calls is shared."""
        self.require(k + count)
        steps = np.arange(k, k + count)[:, None] * self._batch_size
        rows = self._rows((steps + self._first + np.arange(self._local)).ravel())
        fields = [getattr(rows, field.name) for field in dataclasses.fields(Batch)]
        return [Batch(*(field[i : i + self._local] for field in fields)) for i in range(0, count * self._local, self._local)]

    def _rows(self, rows: np.ndarray) -> Batch:
        pad = self._data.tokenizer.pad_id
        parts = [(objectives.next_token(flat, plan, chosen, pad), at) for flat, plan, chosen, at in self._groups(rows)]
        if len(parts) == 1:
            return parts[0][0]
        back = np.argsort(np.concatenate([at for _, at in parts]))
        fields: list[Any] = [np.concatenate([getattr(part, field.name) for part, _ in parts])[back] for field in dataclasses.fields(Batch)]
        return Batch(*fields)

    def _groups(self, rows: np.ndarray) -> Iterator[tuple[np.ndarray, packing.Plan, np.ndarray, np.ndarray]]:
        """(flat tokens, plan, rows of that plan, places in `rows`) for every plan that some rows of the sequence come from."""
        epochs, places = np.divmod(rows, self.rows_per_epoch)
        last = self.rows_per_epoch - 1
        slots = [
            index_shuffle(place, max_index=last, seed=self._epoch_seed(epoch), rounds=4)
            for epoch, place in zip(epochs.tolist(), places.tolist(), strict=True)
        ]
        source, epoch, row = self._mixture.locate(epochs, np.asarray(slots, np.int64))
        if (source == source[0]).all() and (epoch == epoch[0]).all():
            groups = [(int(source[0]), int(epoch[0]), np.arange(len(rows)))]
        else:
            keys = sorted(set(zip(source.tolist(), epoch.tolist(), strict=True)))
            groups = [(s, e, np.flatnonzero((source == s) & (epoch == e))) for s, e in keys]
        for s, e, at in groups:
            yield self._mixture.sources[s].cache.flat, self._plan(s, e), row[at], at

    def _shuffle_seed(self, epoch: int) -> int:
        return seed_of("rows", self._data.fingerprint, self._seed, epoch) & 0xFFFFFFFF

    def _load_plan(self, source: int, epoch: int) -> packing.Plan:
        key = self._mixture.plan_key(source, self._seed, epoch)
        build_plan = functools.partial(self._mixture.plan, source, self._seed, epoch)
        return packing.cached(packing.plan_path(self._data.data_dir, key), self._mixture.length, build_plan)


class _Blocks:
    """A Grain data source whose records are lists of batches: Grain's cost per record (20 to 40 us) is shared by a block."""

    def __init__(self, block: Callable[[int, int], list[Batch]], start: int, count: int):
        self._block, self._start, self._count = block, start, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, i: Any) -> Optional[list[Batch]]:
        return self._block(self._start, int(i))

    def __repr__(self) -> str:
        return f"blocks of batches from step {self._start}"


def _flat(blocks: _Blocks, options: grain.ReadOptions) -> Iterator[Batch]:
    if not len(blocks):
        return
    iterator = iter(grain.MapDataset.source(blocks).to_iter_dataset(options))
    try:
        for block in iterator:
            yield from block
    finally:
        iterator.close()
