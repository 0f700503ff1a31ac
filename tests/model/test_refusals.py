"""Every refusal of a model or of its inputs is one line that names what is wrong."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from model.families import BERT, GPT2, LLAMA, NEOX, SHARED, T5_10, rows
from model.small import model_of, params_of

from lm import losses
from lm.errors import UserError
from lm.model.architectures import build
from lm.model.config import MLPConfig, OutputConfig, RopeScaling
from lm.types import Batch, Inputs


def changed(config, **changes: Any):
    attention = {name: changes.pop(name) for name in list(changes) if hasattr(config.attention, name)}
    return dataclasses.replace(config, attention=dataclasses.replace(config.attention, **attention), **changes)


@pytest.mark.parametrize(
    ("config", "names"),
    [
        (changed(GPT2, d_model=0), "model.d_model=0"),
        (changed(GPT2, num_heads=0), "model.attention.num_heads=0"),
        (changed(LLAMA, num_kv_heads=-1), "model.attention.num_kv_heads=-1"),
        (changed(GPT2, mlp=MLPConfig(d_ff=0)), "model.mlp.d_ff=0"),
        (changed(LLAMA, outputs=(OutputConfig(labels=0),)), "model.outputs.0.labels=0"),
        (changed(BERT, token_types=-1), "model.token_types=-1"),
        (changed(GPT2, num_layers=0), "model.num_layers=0"),
        (changed(T5_10, encoder_layers=0), "model.encoder_layers=0"),
        (changed(GPT2, shared_stacks=True), "model.shared_stacks architecture=encoder_decoder"),
        (changed(BERT, encoder_layers=2), "model.encoder_layers architecture=encoder_decoder"),
        (changed(SHARED, encoder_layers=3), "model.encoder_layers=3 shared_stacks num_layers=2"),
        (changed(SHARED, window=4), "model.shared_stacks attention.window"),
        (changed(LLAMA, window=0), "model.attention.window=0"),
        (changed(T5_10, documents="joined"), "model.attention.documents=joined"),
        (changed(NEOX, architecture="encoder_decoder"), "model.parallel_residual architecture"),
        (changed(NEOX, norm_placement="post_inside"), "model.parallel_residual norm_placement=pre"),
        (changed(LLAMA, no_rope_interval=0), "model.no_rope_interval=0"),
        (changed(GPT2, no_rope_interval=4), "model.no_rope_interval=4 model.positions=rope"),
        (changed(LLAMA, qk_norm_over="heads"), "model.attention.qk_norm_over model.attention.qk_norm=true"),
        (changed(NEOX, norm_placement="post"), "model.parallel_residual norm_placement=pre"),
        (
            changed(LLAMA, rope_scaling=RopeScaling(low_frequency_factor=4.0)),
            "model.rope_scaling low_frequency_factor=4 high_frequency_factor=4",
        ),
        (changed(T5_10, relative_buckets=3), "model.relative_buckets=3 4"),
        (changed(T5_10, relative_max_distance=4), "model.relative_max_distance=4"),
        (changed(GPT2, vocabulary_head=False, outputs=(OutputConfig(),)), "model.tied_head model.vocabulary_head"),
        (changed(BERT, vocabulary_head=False, tied_head=False), "model.head_bias head_transform vocabulary_head"),
        (changed(LLAMA, vocabulary_head=False), "model.vocabulary_head model.outputs"),
        (changed(LLAMA, outputs=(OutputConfig(), OutputConfig())), "model.outputs"),
        (changed(LLAMA, outputs=(OutputConfig("a head"),)), "model.outputs"),
        (changed(LLAMA, num_kv_heads=3), "model.attention.num_heads=4 num_kv_heads=3"),
        (changed(LLAMA, head_dim=5), "model.attention.head_dim=5"),
        (changed(LLAMA, rotary_fraction=0.25), "model.attention.head_dim=4 rotary_fraction=0.25"),
        (changed(LLAMA, rotary_fraction=0.1), "rotary_fraction=0.1"),
    ],
)
def test_a_configuration_that_contradicts_itself(config, names):
    with pytest.raises(UserError) as refusal:
        build(config)
    assert [name for name in (*names.split(), "\n") if name not in str(refusal.value)] == ["\n"]


LONG = np.zeros((1, 13), np.int32)
BART_LIKE = dataclasses.replace(T5_10, positions="learned")


@pytest.mark.parametrize(
    ("config", "inputs", "message"),
    [
        (T5_10, Inputs(LONG), "encoder_tokens"),
        (GPT2, Inputs(LONG[:, :3], encoder_tokens=LONG), "encoder_tokens.*architecture=decoder"),
        (GPT2, Inputs(LONG), "13 tokens.*max_length=12"),
        (BART_LIKE, Inputs(LONG), "13 tokens"),
        (BART_LIKE, Inputs(LONG[:, :3], encoder_tokens=LONG), "13 tokens"),
    ],
)
def test_rows_that_the_model_cannot_read(config, inputs, message):
    with pytest.raises(UserError, match=message):
        model_of(config).apply(params_of(config), inputs)


def test_an_encoder_has_no_cache_and_learned_positions_limit_one():
    with pytest.raises(UserError, match="encoder-only"):
        model_of(BERT).init_cache(1, 4)
    with pytest.raises(UserError, match="max_length=12"):
        model_of(GPT2).init_cache(1, 13)


def test_labels_without_one_head_for_them():
    labels = np.zeros((2, 2), np.int32)
    inputs = rows(GPT2)
    given = {"labels": labels, "label_weights": labels.astype(np.float32), "sequence_positions": inputs.sequence_positions}
    batch = Batch(inputs.tokens, inputs.tokens, np.ones(inputs.tokens.shape, np.float32), inputs.segments, inputs.positions, **given)
    scores = jnp.zeros((2, 2, 3))
    for heads, message in (({}, "0 of the model's outputs .none."), ({"a": scores, "b": scores}, "2 of the model's outputs .a, b.")):
        with pytest.raises(UserError, match=message):
            losses.label_loss(heads, batch)
