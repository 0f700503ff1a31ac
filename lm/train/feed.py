"""From batches on the host to blocks of them on the devices."""

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

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
    """What training needs of the data (lm.data.pipeline.TrainStream)."""

    def iterate(self, start: int, stop: int) -> Iterable[Batch]: ...
    def document_tokens(self, start: int, stop: int) -> int: ...


LENGTH, PREDICTED, SEQUENCES, ENCODER = "length", "predicted", "sequences", "encoder_length"  # the second axis of each optional field
OPTIONAL = {
    "prefix": LENGTH, "token_types": LENGTH, "predict": PREDICTED, "pool": SEQUENCES, "labels": SEQUENCES, "label_weights": SEQUENCES,
    "places": LENGTH, "encoder_tokens": ENCODER, "encoder_segments": ENCODER, "encoder_positions": ENCODER, "encoder_places": ENCODER,
}  # fmt: skip


def abstract_batch(row: RowShape, leading: tuple[int, ...], mesh: Mesh) -> Batch:
    """Shapes, dtypes and shardings of a batch of such rows. The last of the `leading` sizes is that of the rows, split over the devices.

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


def to_device(batches: Sequence[Batch], most: int, shardings: Batch) -> Batch:
    """One array per field with the leading axis `most`, in its shards; rows past the batches are zero.

    Where the mesh splits the sequence, each row is permuted first, so that all devices have the same work (lm.train.zigzag). The memory is
    new at each call: on a CPU the device keeps it as it is, without a copy.
    """

    def stack(*arrays: np.ndarray) -> np.ndarray:
        block = np.zeros((most, *arrays[0].shape), arrays[0].dtype)
        for row, array in zip(block, arrays, strict=False):
            row[...] = array
        return block

    where: Any = shardings.tokens
    ways = where.mesh.shape["context"]
    return jax.device_put(jax.tree.map(stack, *(permute(batch, ways) for batch in batches)), shardings)
