"""Small models of every family with the shape of a row for each, and abstract inputs of that shape."""

import dataclasses

import jax
import jax.numpy as jnp
from model.small import GPT2, LLAMA, WINDOW

from lm.model.config import AttentionConfig, MLPConfig, ModelConfig, OutputConfig
from lm.rows import RowShape
from lm.types import Inputs

T5 = ModelConfig(
    architecture="encoder_decoder", vocab_size=23, d_model=10, num_layers=2, max_length=16,
    attention=AttentionConfig(num_heads=3, head_dim=4, scale=1.0), mlp=MLPConfig(d_ff=14, activation="relu"),
    positions="relative", relative_buckets=8, tied_head=True, logit_scale=0.3,
)  # fmt: skip
BART = dataclasses.replace(
    T5, attention=AttentionConfig(num_heads=2, head_dim=5, bias=True), mlp=MLPConfig(d_ff=14, activation="gelu_exact", bias=True),
    norm="layernorm", norm_placement="post", embedding_norm=True, final_norm=False, positions="learned", head_bias=True, logit_scale=1.0,
)  # fmt: skip
BERT = dataclasses.replace(
    BART, architecture="encoder", token_types=2, head_transform=True,
    outputs=(OutputConfig("next_sentence", labels=2, pooled=True), OutputConfig("tags", per="token", labels=3)),
)  # fmt: skip
NEOX = dataclasses.replace(
    GPT2, num_layers=3, positions="rope", parallel_residual=True, rotary_fraction=0.5, tied_head=False,
)  # fmt: skip
PREFIX = dataclasses.replace(LLAMA, architecture="prefix_lm")

ROW = RowShape(12)
TARGETS = RowShape(12, predicted=5, prefix=4, document_tokens=9)
STREAMS = RowShape(7, encoder_length=11, document_tokens=13)
SENTENCES = RowShape(12, predicted=4, sequences=3, document_tokens=10)

CASES = {
    "llama": (LLAMA, ROW),
    "gpt2": (GPT2, ROW),
    "window": (WINDOW, ROW),
    "tied llama with biases": (
        dataclasses.replace(LLAMA, tied_head=True, attention=dataclasses.replace(LLAMA.attention, bias=True), num_layers=3), ROW
    ),
    "untied gated gpt2": (dataclasses.replace(GPT2, tied_head=False, mlp=dataclasses.replace(GPT2.mlp, gated=True)), ROW),
    "neox": (NEOX, ROW),
    "prefix": (PREFIX, TARGETS),
    "prefix in a window": (dataclasses.replace(WINDOW, architecture="prefix_lm"), TARGETS),
    "reward": (
        dataclasses.replace(LLAMA, vocabulary_head=False, outputs=(OutputConfig("reward", labels=1, token="last", bias=False),)),
        RowShape(12, sequences=1),
    ),
    "t5": (T5, STREAMS),
    "t5 1.1": (dataclasses.replace(T5, tied_head=False, mlp=MLPConfig(d_ff=14, gated=True), logit_scale=1.0, encoder_layers=3), STREAMS),
    "shared t5": (dataclasses.replace(T5, shared_stacks=True), STREAMS),
    "grouped t5": (dataclasses.replace(T5, attention=LLAMA.attention), dataclasses.replace(STREAMS, predicted=3)),
    "bart": (BART, STREAMS),
    "original": (dataclasses.replace(BART, positions="sinusoidal", embedding_norm=False, head_bias=False), STREAMS),
    "encoder-decoder in windows": (dataclasses.replace(T5, positions="rope", attention=WINDOW.attention), STREAMS),
    "bert": (BERT, SENTENCES),
    "bert in a window": (dataclasses.replace(BERT, attention=WINDOW.attention), SENTENCES),
    "classifier": (
        dataclasses.replace(BERT, vocabulary_head=False, tied_head=False, head_transform=False, head_bias=False), RowShape(12, sequences=3)
    ),
}  # fmt: skip


def abstract(row: RowShape, rows: int = 2) -> Inputs:
    """Inputs of a row's shape without values."""

    def ids(length: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((rows, length), jnp.int32)

    return Inputs(
        ids(row.length),
        prefix=ids(row.length) if row.prefix else None,
        predict=None if row.predicted is None else ids(row.predicted),
        sequence_positions=ids(row.sequences) if row.sequences else None,
        encoder_tokens=ids(row.encoder_length) if row.encoder_length else None,
    )
