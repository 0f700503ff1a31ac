"""The permuted sequence: nothing is lost, everything travels with its token, and a causal mask gives each device the same work."""

import dataclasses

import jax
import numpy as np
import pytest
from layouts.cases import CASES

from lm.mesh import MeshConfig
from lm.sharding import make_mesh
from lm.train.feed import abstract_batch, to_device
from lm.train.zigzag import fields, permute, zigzag
from lm.types import Batch

WAYS = 2


def test_the_order_of_the_docstring():
    assert zigzag(8, 2).tolist() == [0, 1, 6, 7, 2, 3, 4, 5]
    assert zigzag(8, 1).tolist() == list(range(8))
    with pytest.raises(ValueError, match="12"):
        zigzag(12, 4)


@pytest.mark.parametrize("ways", [2, 4, 8])
def test_causal_work_is_the_same_on_every_device(ways):
    """The number of keys that a device's queries see."""
    parts = zigzag(64, ways).reshape(ways, -1)
    assert sorted(parts.ravel()) == list(range(64))
    assert len({int(np.sum(part + 1)) for part in parts}) == 1


@pytest.mark.parametrize("name", CASES)
def test_everything_travels_with_its_token(name):
    batch = CASES[name].batch(8)
    moved = permute(batch, WAYS)
    assert permute(batch, 1) is batch
    for prefix, per_token in (("", ("tokens", "segments", "positions", "prefix", "token_types")), ("encoder_", ("tokens", "segments"))):
        for field in per_token:
            before, after = getattr(batch, prefix + field, None), getattr(moved, prefix + field, None)
            assert (before is None) == (after is None)
            if before is not None:
                np.testing.assert_array_equal(after, np.take_along_axis(before, getattr(moved, prefix + "original_index"), axis=1))
    if batch.predict is None:
        np.testing.assert_array_equal(moved.targets, np.take_along_axis(batch.targets, moved.original_index, axis=1))
    else:
        np.testing.assert_array_equal(np.take_along_axis(moved.original_index, moved.predict, axis=1), batch.predict)
        np.testing.assert_array_equal(moved.targets, batch.targets)
    if batch.sequence_positions is not None:
        np.testing.assert_array_equal(np.take_along_axis(moved.original_index, moved.sequence_positions, axis=1), batch.sequence_positions)


@pytest.mark.parametrize("name", CASES)
def test_the_loader_permutes_where_the_mesh_splits_the_sequence(name):
    """The batches that come have the shapes that a program is compiled for."""
    case, mesh = CASES[name], make_mesh(MeshConfig(data=4, context=WAYS))
    abstract = abstract_batch(case.row, (2, 8), mesh)
    block = to_device([case.batch(8)], 2, jax.tree.map(lambda x: x.sharding, abstract))
    assert {f.name for f in dataclasses.fields(Batch) if getattr(block, f.name) is not None} >= {"original_index", *fields(case.row)}
    for expected, found in zip(jax.tree.leaves(abstract), jax.tree.leaves(block), strict=True):
        assert (expected.shape, expected.dtype, expected.sharding) == (found.shape, found.dtype, found.sharding)
    np.testing.assert_array_equal(block.tokens[0], permute(case.batch(8), WAYS).tokens)
