"""Puts batches of the host on the devices, several steps at a time."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Optional, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from lm.rows import RowShape
from lm.sharding import RULES
from lm.train import zigzag
from lm.train.zigzag import permute
from lm.types import Batch


class Stream(Protocol):
    """The part of lm.data.stream.TrainStream that training needs."""

    def iterate(self, start: int, stop: int) -> Iterable[Batch]: ...
    def document_tokens(self, start: int, stop: int) -> int: ...


LENGTH, PREDICTED, SEQUENCES, ENCODER = "length", "predicted", "sequences", "encoder_length"  # the second axis of each optional field
OPTIONAL = {
    "prefix": LENGTH, "original_index": LENGTH, "token_types": LENGTH, "predict": PREDICTED,
    "sequence_positions": SEQUENCES, "labels": SEQUENCES, "label_weights": SEQUENCES,
    "encoder_tokens": ENCODER, "encoder_segments": ENCODER, "encoder_positions": ENCODER, "encoder_original_index": ENCODER,
}  # fmt: skip


def abstract_batch(row: RowShape, leading: tuple[int, ...], mesh: Mesh) -> Batch:
    """Returns shapes, dtypes and shardings of a batch of such rows. The last `leading` size is the number of rows, split over the devices.

    Where the mesh splits the sequence, it is that of a permuted batch (lm.train.zigzag), which `to_device` makes.
    """
    predicted = row.length if row.predicted is None else row.predicted
    sizes = {LENGTH: row.length, PREDICTED: predicted, SEQUENCES: row.sequences, ENCODER: row.encoder_length}

    def field(name: str, axis: str) -> Any:
        along = "act_length" if axis in (LENGTH, ENCODER) or (axis == PREDICTED and row.predicted is None) else None
        spec = RULES.spec((*(None,) * (len(leading) - 1), "act_batch", along))
        dtype = jnp.float32 if name in ("weights", "label_weights") else jnp.int32
        return jax.ShapeDtypeStruct((*leading, sizes[axis]), dtype, sharding=NamedSharding(mesh, spec))

    always = {"tokens": LENGTH, "targets": PREDICTED, "weights": PREDICTED, "segments": LENGTH, "positions": LENGTH}
    optional = row.fields if mesh.shape["context"] == 1 else zigzag.fields(row)
    return Batch(**{name: field(name, axis) for name, axis in {**always, **{name: OPTIONAL[name] for name in optional}}.items()})


def local_rows(mesh: Mesh, batch_size: int) -> np.ndarray:
    """Returns the indices, ascending, of those rows of a global batch that this process's devices hold.

    Where other axes than those of the batch cross hosts, several processes hold the same rows.
    """
    where = NamedSharding(mesh, RULES.spec(("act_batch",)))
    parts = where.addressable_devices_indices_map((batch_size,)).values()
    return np.unique(np.concatenate([np.arange(batch_size)[part] for part in parts]))


def put(value: Any, sharding: Any) -> jax.Array:
    """Puts an array of the host in its shards. Every process has the whole of it and gives what its devices hold."""
    if sharding.is_fully_addressable:
        return jax.device_put(value, sharding)
    value = np.asarray(value)
    return _assembled(value.shape, sharding, lambda index: value[index])


def _put_rows(block: np.ndarray, sharding: Any, rows: np.ndarray, batch_size: int) -> jax.Array:
    """Assembles a global array [K, batch_size, ...] of blocks [K, len(rows), ...], one from each process."""

    def part(index: Any) -> np.ndarray:
        steps, chosen, *rest = index
        first, last, _ = chosen.indices(batch_size)
        return block[(steps, slice(*np.searchsorted(rows, (first, last))), *rest)]

    return _assembled((block.shape[0], batch_size, *block.shape[2:]), sharding, part)


def _assembled(shape: tuple[int, ...], sharding: Any, part: Callable[[Any], np.ndarray]) -> jax.Array:
    """Assembles a global array of `part(index)` for each index that this process's devices hold. The transfer guard allows it."""
    with jax.transfer_guard_host_to_device("allow"):
        return jax.make_array_from_callback(shape, sharding, part)


def to_device(batches: Sequence[Batch], most: int, shardings: Batch, batch_size: Optional[int] = None) -> Batch:
    """Stacks the batches of several steps and puts them on the devices.

    Where the mesh splits the sequence, each row is permuted first, so that all devices have the same work (lm.train.zigzag). The memory is
    new at each call: on a CPU the device keeps it as it is, without a copy.

    Args:
      batches: batches of the host. Each of several processes gives its own rows (`local_rows`).
      most: the leading size K of the result; steps past `batches` are zero.
      shardings: the shardings of the result's fields.
      batch_size: rows of a global batch; needed where several processes train together.
    """

    def stack(*arrays: np.ndarray) -> np.ndarray:
        block = np.zeros((most, *arrays[0].shape), arrays[0].dtype)
        for row, array in zip(block, arrays, strict=False):
            row[...] = array
        return block

    where: Any = shardings.tokens
    ways = where.mesh.shape["context"]
    blocks = jax.tree.map(stack, *(permute(batch, ways) for batch in batches))
    if where.is_fully_addressable:
        return jax.device_put(blocks, shardings)
    assert batch_size is not None
    rows = local_rows(where.mesh, batch_size)
    return jax.tree.map(lambda block, sharding: _put_rows(block, sharding, rows, batch_size), blocks, shardings)


def wait_on_virtual_devices(mesh: Mesh, results: Any) -> Any:
    """Returns the results of a call, and on virtual devices of one CPU waits until they are finished.

    Those devices share their threads: the collectives of a call can wait for threads that the next call holds while it waits for them.
    """
    return jax.block_until_ready(results) if mesh.size > 1 and mesh.devices.flat[0].platform == "cpu" else results
