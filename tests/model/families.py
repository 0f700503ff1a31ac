"""Small configurations of every family and option, rows that try them, and one probe for what their outputs depend on.

Ids 0 to 11 are one row's own tokens, 12 to 23 its encoder's, and the others stand in no row: the probe differentiates the logits of these
towards the table's rows of the first two, so that a tied head adds nothing of its own.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from model.small import model_of, params_of

from lm.model.config import AttentionConfig, MLPConfig, ModelConfig, OutputConfig, RopeScaling
from lm.model.outputs import answer_span, next_sentence, reward, sequence_classes, token_classes
from lm.types import Inputs, Outputs

LENGTH, UNSEEN, VOCAB = 12, 24, 40


# One shape for all, so that what JAX compiles for one family serves the others.
def family(attention: dict[str, Any], mlp: dict[str, Any], **rest: Any) -> ModelConfig:
    sizes: dict[str, Any] = {"vocab_size": VOCAB, "d_model": 16, "num_layers": 2, "max_length": LENGTH}
    heads = AttentionConfig(**{"num_heads": 4, "head_dim": 4, **attention})
    return ModelConfig(attention=heads, mlp=MLPConfig(**{"d_ff": 24, **mlp}), **{**sizes, **rest})


BIASED: dict[str, Any] = {"bias": True}
GATED: dict[str, Any] = {"activation": "silu", "gated": True}
GPT2 = family(BIASED, {"bias": True}, norm="layernorm", positions="learned", tied_head=True)
STRETCHED = RopeScaling(factor=4.0, original_length=32)
LLAMA = family({"num_kv_heads": 2}, GATED, rope_scaling=STRETCHED)
MISTRAL = family({"num_kv_heads": 2, "window": 3}, GATED)
QWEN3 = family({"num_kv_heads": 2, "qk_norm": True}, GATED)
NEOX = family(BIASED, {"bias": True}, norm="layernorm", parallel_residual=True, rotary_fraction=0.5)
PREFIX = dataclasses.replace(LLAMA, architecture="prefix_lm", logit_softcap=8.0)
BOTH: dict[str, Any] = {"architecture": "encoder_decoder"}
T5: dict[str, Any] = {**BOTH, "positions": "relative", "relative_buckets": 8, "relative_max_distance": 10}
T5_10 = family({"scale": 1.0}, {"activation": "relu"}, tied_head=True, logit_scale=16**-0.5, **T5)
T5_11 = family({"scale": 1.0}, {"gated": True}, **T5)
SHARED = dataclasses.replace(T5_10, shared_stacks=True)
DEEP = dataclasses.replace(T5_11, encoder_layers=3, num_layers=1)
POST: dict[str, Any] = {"norm": "layernorm", "norm_placement": "post", "final_norm": False, "tied_head": True}
BART = family(BIASED, {"bias": True, "activation": "gelu_exact"}, embedding_norm=True, positions="learned", head_bias=True, **POST, **BOTH)
ORIGINAL = family({}, {"bias": True, "activation": "relu"}, positions="sinusoidal", embedding_scale=4.0, **POST, **BOTH)
BERT = family(
    BIASED, {"bias": True, "activation": "gelu_exact"}, architecture="encoder", positions="learned", embedding_norm=True, token_types=2,
    head_transform=True, head_bias=True, outputs=(next_sentence(), token_classes(3), answer_span()), **POST,
)  # fmt: skip
FAMILIES = {
    "gpt2": GPT2, "llama": LLAMA, "mistral": MISTRAL, "qwen3": QWEN3, "neox": NEOX, "prefix": PREFIX, "t5_1.0": T5_10, "t5_1.1": T5_11,
    "t5_shared": SHARED, "t5_deep_encoder": DEEP, "bart": BART, "original": ORIGINAL, "bert": BERT,
    "reward": dataclasses.replace(GPT2, outputs=(reward(), sequence_classes(3, last=True))),
    "bart_classes": dataclasses.replace(BART, vocabulary_head=False, tied_head=False, head_bias=False, outputs=(
        sequence_classes(3, pooled=True), OutputConfig("tags", per="token", labels=3))),
}  # fmt: skip

PACKED = np.array([1] * 5 + [2] * 4 + [0] * 3, np.int32)  # segments of a row, and of its encoder's
ENCODER_PACKED = np.array([1] * 3 + [2] * 7 + [0] * 2, np.int32)
PREFIXES = np.array([1, 1, 0, 0, 0, 1, 1, 1, 0, 0, 0, 0], np.int32)
ONE = np.ones(LENGTH, np.int32)


def positions_of(segments: np.ndarray) -> np.ndarray:
    """Positions from 0 in each document."""
    starts = np.flatnonzero(np.diff(segments, prepend=-1))
    return (np.arange(len(segments)) - np.repeat(starts, np.diff([*starts, len(segments)]))).astype(np.int32)


def rows(config: ModelConfig, segments: np.ndarray = PACKED, encoder_segments: np.ndarray = ENCODER_PACKED) -> Inputs:
    """Two rows: ids in order in the first, others in the second; only the fields that the architecture reads."""
    order = np.arange(LENGTH, dtype=np.int32)
    pair = lambda x: np.stack([x, x])  # noqa: E731
    given: dict[str, Any] = {
        "segments": pair(segments),
        "positions": pair(positions_of(segments)),
        "sequence_positions": pair(np.array([0, 5], np.int32)),
    }
    if config.architecture == "prefix_lm":
        given["prefix"] = pair(PREFIXES)
    if config.token_types:
        given["token_types"] = pair(order % 2)
    if config.architecture == "encoder_decoder":
        given["encoder_tokens"] = np.stack([order + LENGTH, (5 * order + 1) % VOCAB])
        given |= {"encoder_segments": pair(encoder_segments), "encoder_positions": pair(positions_of(encoder_segments))}
    return Inputs(np.stack([order, (7 * order + 3) % VOCAB]), **given)


def run(config: ModelConfig, inputs: Inputs, dtype: str = "float32", params: Any = None) -> Outputs:
    """The model's outputs on the host, operation by operation: families share most operations, and so the compilation of them."""
    with jax.disable_jit():
        return jax.device_get(model_of(config).apply(params_of(config) if params is None else params, inputs, compute_dtype=dtype))


@functools.cache
def packed(name: str) -> Outputs:
    return run(FAMILIES[name], rows(FAMILIES[name]))


def influence(config: ModelConfig, inputs: Inputs) -> tuple[np.ndarray, np.ndarray]:
    """Greatest gradient of each of one row's outputs towards each of its tokens, and towards each of its encoder's: both [T, 12]."""
    params = params_of(config)

    def answers(table):
        outputs = model_of(config).apply({**params, "embed": {"embedding": table}}, inputs)
        read = outputs.heads["tags"][0] if outputs.logits is None else outputs.logits[0, :, UNSEEN:]
        return jnp.sum(jnp.square(read), axis=-1)

    with jax.disable_jit():
        _, pull = jax.vjp(answers, params["embed"]["embedding"])
        reached = np.abs(np.asarray(jax.vmap(lambda row: pull(row)[0])(jnp.eye(LENGTH)))).max(axis=-1)
    return reached[:, :LENGTH], reached[:, LENGTH:UNSEEN]
