"""The shapes that a program is compiled for are those of the batches that come."""

import jax
import pytest
from jax.sharding import PartitionSpec

from lm.data.config import DataConfig
from lm.data.objectives import config as C
from lm.data.objectives.shape import row_shape
from lm.mesh import MeshConfig
from lm.sharding import RULES, make_mesh
from lm.train.feed import abstract_batch
from lm.train.zigzag import fields

CASES = [
    (C.NextToken(), "decoder", {}),
    (C.SpanCorruption(), "encoder_decoder", {"encoder_tokens": "encoder_length"}),
    (C.SpanCorruption(), "prefix_lm", {"prefix": "length", "predict": "predicted"}),
    (C.MaskedLM(), "encoder", {"token_types": "length", "predict": "predicted", "labels": "sequences", "label_weights": "sequences"}),
    (C.FillInTheMiddle(), "decoder", {}),
]


@pytest.mark.parametrize(("objective", "architecture", "optional"), CASES)
def test_a_field_is_there_when_the_row_has_it(objective, architecture, optional):
    row, mesh = row_shape(DataConfig(sequence_length=64, objective=objective), architecture), make_mesh(MeshConfig(data=4, context=2))
    batch = abstract_batch(row, (3, 8), mesh)
    there = {name for name, value in vars(batch).items() if value is not None}
    assert there == {"tokens", "targets", "weights", "segments", "positions", *fields(row)}
    for name, size in optional.items():
        assert getattr(batch, name).shape == (3, 8, getattr(row, size)), name
    predicted = row.length if row.predicted is None else row.predicted
    assert batch.tokens.shape == (3, 8, row.length)
    assert batch.targets.shape == batch.weights.shape == (3, 8, predicted)
    floats = {name for name in there if getattr(batch, name).dtype == "float32"}
    assert floats == {"weights"} | ({"label_weights"} & there)
    for leaf in jax.tree.leaves(batch):
        assert leaf.sharding.spec[:2] == (None, RULES.act_batch)
    # Predicted positions are no stretch of the row, so a mesh that splits the row keeps them whole.
    assert batch.targets.sharding.spec == PartitionSpec(None, RULES.act_batch, "context" if row.predicted is None else None)
