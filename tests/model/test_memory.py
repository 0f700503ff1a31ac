"""The formula for activations against what the compiler allocates."""

import dataclasses
import os

import jax
import jax.numpy as jnp
import pytest
from model.ledger_cases import BART, BERT, T5

from lm.losses import pretraining
from lm.model.architectures import Model
from lm.model.config import AttentionConfig, MLPConfig, ModelConfig
from lm.model.execution import Execution
from lm.model.memory import activation_bytes
from lm.rows import RowShape
from lm.types import Batch

PLAIN = ModelConfig(
    d_model=64, num_layers=4, attention=AttentionConfig(num_heads=4, qk_norm=True), mlp=MLPConfig(activation="squared_relu")
)
GATED = dataclasses.replace(
    PLAIN, attention=AttentionConfig(num_heads=8, num_kv_heads=2), mlp=MLPConfig(d_ff=256, gated=True, activation="silu")
)
WIDE = {"vocab_size": 256, "d_model": 64, "num_layers": 4, "max_length": 160, "mlp": MLPConfig(d_ff=256, activation="relu")}
PREFIX = dataclasses.replace(GATED, architecture="prefix_lm")
SMALL_T5 = dataclasses.replace(T5, **WIDE, attention=AttentionConfig(num_heads=4, scale=1.0))
SMALL_BART = dataclasses.replace(BART, **WIDE, attention=AttentionConfig(num_heads=4, bias=True))
SMALL_BERT = dataclasses.replace(BERT, **WIDE, attention=AttentionConfig(num_heads=4, bias=True), outputs=BERT.outputs[:1])
STREAMS = RowShape(48, encoder_length=128)


NIGHTLY = [(PREFIX, RowShape(128, predicted=32), "none"), (SMALL_T5, STREAMS, "none"), (SMALL_BART, STREAMS, "dots")]
NIGHTLY = NIGHTLY if os.environ.get("LAYOUTS") == "all" else []


def allocated(config: ModelConfig, batch: int, row: RowShape, remat: str) -> int:
    """Bytes of temporaries of a compiled gradient, of abstract parameters and rows."""
    model = Model(config, Execution(remat=remat, unroll=False))
    loss_fn = pretraining(model.apply)

    def ids(length):
        return jax.ShapeDtypeStruct((batch, length), jnp.int32)

    predicted = row.length if row.predicted is None else row.predicted
    weights = jax.ShapeDtypeStruct((batch, predicted), jnp.float32)
    rows = Batch(ids(row.length), ids(predicted), weights, ids(row.length), ids(row.length))
    if row.predicted is not None:
        rows = dataclasses.replace(rows, predict=ids(predicted), prefix=ids(row.length))
    if row.encoder_length:
        source = ids(row.encoder_length)
        rows = dataclasses.replace(rows, encoder_tokens=source, encoder_segments=source, encoder_positions=source)
    step = jax.jit(jax.value_and_grad(lambda params, rows: loss_fn(params, None, rows, jax.random.key(0))[0]))
    compiled = step.lower(model.abstract(), rows).compile({"xla_backend_optimization_level": 0})  # buffers do not depend on it
    return compiled.memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize(
    ("config", "row", "remat"),
    [
        (PLAIN, RowShape(128), "none"),
        (GATED, RowShape(128), "dots_no_batch"),
        (SMALL_T5, STREAMS, "dots"),
        (SMALL_BERT, RowShape(128, predicted=20), "none"),
        *NIGHTLY,
    ],
)
def test_the_estimate_is_within_a_factor_of_1_5_of_the_compiler(config, row, remat):
    found = allocated(config, 4, row, remat)
    assert found / 1.5 < activation_bytes(config, 4, row, remat=remat) < found * 1.5


def test_a_head_that_predicts_less_keeps_fewer_logits():
    everywhere = activation_bytes(PREFIX, 4, RowShape(128))
    assert everywhere - activation_bytes(PREFIX, 4, RowShape(128, predicted=32)) == 4 * (128 - 32) * 3 * PREFIX.vocab_size * 4
