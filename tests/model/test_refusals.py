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
    ("config", "message"),
    [
        (changed(GPT2, d_model=0), "d_model=0: give 1 or more"),
        (changed(GPT2, num_heads=0), "num_heads=0: give 1 or more"),
        (changed(LLAMA, num_kv_heads=-1), "num_kv_heads=-1: give 1 or more"),
        (changed(GPT2, mlp=MLPConfig(d_ff=0)), "d_ff=0: give 1 or more"),
        (changed(LLAMA, outputs=(OutputConfig(labels=0),)), "outputs.0.labels=0: give 1 or more"),
        (changed(BERT, token_types=-1), "token_types=-1: give 0 or more"),
        (changed(GPT2, num_layers=0), "num_layers=0"),
        (changed(T5_10, encoder_layers=0), "encoder_layers=0"),
        (changed(GPT2, shared_stacks=True), "shared_stacks belongs to architecture=encoder_decoder"),
        (changed(BERT, encoder_layers=2), "encoder_layers belongs to architecture=encoder_decoder and this is encoder"),
        (changed(SHARED, encoder_layers=3), "one stack, of num_layers=2"),
        (changed(SHARED, window=4), "two-sided"),
        (changed(LLAMA, window=0), "window=0 hides"),
        (changed(T5_10, documents="joined"), "joined is for one stream"),
        (changed(NEOX, architecture="encoder_decoder"), "knows no cross-attention"),
        (changed(NEOX, norm_placement="post"), "norm_placement=pre"),
        (changed(LLAMA, rope_scaling=RopeScaling(low_frequency_factor=4.0)), "low_frequency_factor=4 must lie below"),
        (changed(T5_10, relative_buckets=3), "relative_buckets=3: give 4 or more"),
        (changed(T5_10, relative_max_distance=4), "give more than 4"),
        (changed(GPT2, vocabulary_head=False, outputs=(OutputConfig(),)), "no head to tie"),
        (changed(BERT, vocabulary_head=False, tied_head=False), "parts of the vocabulary's head"),
        (changed(LLAMA, vocabulary_head=False), "the model has no head"),
        (changed(LLAMA, outputs=(OutputConfig(), OutputConfig())), "a plain name of its own"),
        (changed(LLAMA, outputs=(OutputConfig("a head"),)), "a plain name of its own"),
        (changed(LLAMA, num_kv_heads=3), "num_heads=4 is no multiple of num_kv_heads=3"),
        (changed(LLAMA, head_dim=5), "is 5, which is odd"),
        (changed(LLAMA, rotary_fraction=0.25), "head_dim=4 x rotary_fraction=0.25 is 1, which is odd"),
        (changed(LLAMA, rotary_fraction=0.1), "is 0, which is nothing"),
    ],
)
def test_a_configuration_that_contradicts_itself(config, message):
    with pytest.raises(UserError, match=message) as refusal:
        build(config)
    assert "\n" not in str(refusal.value)


LONG = np.zeros((1, 13), np.int32)
BART_LIKE = dataclasses.replace(T5_10, positions="learned")


@pytest.mark.parametrize(
    ("config", "inputs", "message"),
    [
        (T5_10, Inputs(LONG), "give encoder_tokens"),
        (GPT2, Inputs(LONG[:, :3], encoder_tokens=LONG), "encoder_tokens are for an encoder-decoder"),
        (GPT2, Inputs(LONG), "13 tokens, and the learned positions end at max_length=12"),
        (BART_LIKE, Inputs(LONG), "13 tokens"),
        (BART_LIKE, Inputs(LONG[:, :3], encoder_tokens=LONG), "13 tokens"),
    ],
)
def test_rows_that_the_model_cannot_read(config, inputs, message):
    with pytest.raises(UserError, match=message):
        model_of(config).apply(params_of(config), inputs)


def test_an_encoder_has_no_cache_and_learned_positions_limit_one():
    with pytest.raises(UserError, match="does not continue texts"):
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
