"""The batches of a run.

The batch of step k is rows kB..(k+1)B of an endless sequence of rows, and row g lies in epoch g // R, at the place that Grain's
`index_shuffle` gives it; what an objective draws for it depends on (data set, seed, epoch, place in the epoch). So a batch is a pure
function of (data set, seed, k): no state to save, no matter how many hosts, and batch 10^6 costs what batch 0 costs. A process builds
its own rows only.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any, Optional

import grain
import numpy as np
from grain.experimental import index_shuffle

from lm.data import packing
from lm.data.config import Component, DataConfig
from lm.data.mixture import Mixture, require_unique
from lm.data.objectives.draws import row_keys
from lm.data.objectives.examples import PackedRows
from lm.data.objectives.shape import row_maker
from lm.data.pipeline import Data
from lm.data.store import seed_of
from lm.errors import UserError
from lm.rows import beyond, in_vocabulary
from lm.types import Batch


class TrainStream:
    """The training batches of one run, as this process sees them.

    `stream[k]` is this process's part of the global batch k: a Batch of numpy arrays [len(rows), T] that holds the rows of the batch
    that `rows` names (ascending places in it, below batch_size; None: all of them), and no other rows are built.
    `iterate(start, stop)` yields the same batches in order, read ahead by Grain.
    A batch has the shapes of `row_shape(config, architecture)`. `vocab_size` is the model's, at whose top the objective's own ids lie
    (None: the smallest that holds them). Raises UserError for steps beyond the corpus unless `config.allow_epochs`, for an objective that
    cannot train the architecture, for a vocabulary without room for its ids, and for an id beyond it in a batch, unless
    the component says `unusable="skip"`: then the weights of that row are NaN, which makes the step a bad one that is counted and left out.
    """

    def __init__(
        self,
        data: Data,
        config: DataConfig,
        batch_size: int,
        seed: int,
        rows: Optional[np.ndarray] = None,
        architecture: str = "decoder",
        vocab_size: Optional[int] = None,
    ):
        if batch_size <= 0:
            raise UserError(f"batch_size={batch_size}: give 1 or more")
        self._data, self._config, self._seed, self._batch_size = data, config, seed, batch_size
        if vocab_size is None:
            vocab_size = config.objective.vocabulary(data.tokenizer)
        config.objective.require_vocabulary(data.tokenizer, vocab_size, config.sequence_length)
        self._vocab_size = vocab_size
        self._make_rows = row_maker(config, architecture, data.tokenizer, vocab_size)
        self._mixture = Mixture(data.mixture.sources, config)
        self._places = np.arange(batch_size) if rows is None else np.asarray(rows)
        self._local = len(self._places)
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
        """Returns the document tokens in the global batches of steps start..stop: D, without padding."""
        rows = np.arange(start * self._batch_size, stop * self._batch_size)
        if not len(rows):
            return 0
        if self._mixture.algorithm == "concatenate":
            return len(rows) * self._mixture.length
        return sum(int(packed.plan.row_tokens()[packed.rows_B].sum()) for _, packed, _ in self._groups(rows))

    def __getitem__(self, k: int) -> Batch:
        if k < 0:
            raise IndexError(f"step {k} is before the first")
        return self._block(k, 1)[0]

    def iterate(self, start: int, stop: int, threads: int = 1, ahead: int = 2) -> Iterator[Batch]:
        """Yields batches start..stop in order. Grain's threads read `ahead` blocks of some 16k tokens ahead; 0 threads read on demand."""
        self.require(stop)
        per_block = max(1, (1 << 14) // (self._local * self._mixture.length))
        blocks = _Blocks(functools.partial(self._span, stop, per_block), start, -(-(stop - start) // per_block))
        return _flat(blocks, grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead if threads else 0))

    def _span(self, stop: int, per_block: int, start: int, i: int) -> list[Batch]:
        first = start + i * per_block
        return self._block(first, min(per_block, stop - first))

    def _block(self, k: int, count: int) -> list[Batch]:
        """Returns batches k..k+count, built together: the fixed cost of the numpy calls is shared."""
        self.require(k + count)
        steps = np.arange(k, k + count)[:, None] * self._batch_size
        rows = self._rows((steps + self._places).ravel())
        fields = {name: values for name, values in vars(rows).items() if values is not None}
        firsts = range(0, count * self._local, self._local)
        return [Batch(**{name: values[i : i + self._local] for name, values in fields.items()}) for i in firsts]

    def _rows(self, rows: np.ndarray) -> Batch:
        parts = []
        for source, packed, at in self._groups(rows):
            batch = self._make_rows(packed)
            parts.append((self._with_known_ids(batch, rows[at], self._config.components[source]), at))
        if len(parts) == 1:
            return parts[0][0]
        back = np.argsort(np.concatenate([at for _, at in parts]))
        names = [name for name, values in vars(parts[0][0]).items() if values is not None]
        return Batch(**{name: np.concatenate([getattr(part, name) for part, _ in parts])[back] for name in names})

    def _with_known_ids(self, batch: Batch, rows: np.ndarray, component: Component) -> Batch:
        """Returns the batch. A row with ids beyond the model's vocabulary has weights of NaN, if its component leaves out what is unusable.

        Raises:
          UserError: it does not; the first such row, and the step that would train on it.
        """
        for name in ("tokens", "targets", "encoder_tokens"):
            ids = getattr(batch, name)
            if ids is not None and not in_vocabulary(ids, self._vocab_size):
                wrong = (ids < 0) | (ids >= self._vocab_size)
                if component.unusable == "skip":
                    batch = dataclasses.replace(batch, weights=np.where(wrong.any(axis=1)[:, None], np.float32(np.nan), batch.weights))
                    continue
                row = int(np.flatnonzero(wrong.any(axis=1))[0])
                step, place = divmod(int(rows[row]), self._batch_size)
                where = f"row {place} of batch {step:,} has {name.replace('_', ' ')} with the id {ids[wrong][0]}"
                raise UserError(f"{where}, {beyond(self._vocab_size)}")
        return batch

    def _groups(self, rows: np.ndarray) -> Iterator[tuple[int, PackedRows, np.ndarray]]:
        """Yields (source, rows of a plan, their places in `rows`) for every plan that some rows of the sequence come from."""
        epochs, places = np.divmod(rows, self.rows_per_epoch)
        keys = row_keys(self._data.fingerprint, self._seed, epochs, places)
        last = self.rows_per_epoch - 1
        slots = [
            index_shuffle(place, max_index=last, seed=self._epoch_seed(epoch), rounds=4)
            for epoch, place in zip(epochs.tolist(), places.tolist(), strict=True)
        ]
        source, epoch, row = self._mixture.locate(epochs, np.asarray(slots, np.int64))
        if (source == source[0]).all() and (epoch == epoch[0]).all():
            groups = [(int(source[0]), int(epoch[0]), np.arange(len(rows)))]
        else:
            plans = sorted(set(zip(source.tolist(), epoch.tolist(), strict=True)))
            groups = [(s, e, np.flatnonzero((source == s) & (epoch == e))) for s, e in plans]
        for s, e, at in groups:
            yield s, PackedRows(self._mixture.sources[s].cache.flat, self._plan(s, e), row[at], keys[at]), at

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
