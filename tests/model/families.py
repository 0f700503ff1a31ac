"""Small configurations of every family and option, rows that try them, and one compiled program for each family."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from model.small import model_of, params_of

from lm.model.config import AttentionConfig, MLPConfig, ModelConfig, OutputConfig, RopeScaling
from lm.model.execution import Execution
from lm.model.outputs import answer_span, next_sentence, reward, sequence_classes, token_classes
from lm.types import Inputs, Outputs

LENGTH, UNSEEN, VOCAB = 12, 24, 40  # ids 0 to 11 are the first row's own tokens, 12 to 23 its encoder's


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
OLMO2 = family(  # with Qwen2's biases, Gemma's scale and SmolLM3's positions
    {"num_kv_heads": 2, "qk_norm": True, "qk_norm_over": "heads", "bias": True, "out_bias": False}, GATED,
    norm_placement="post_inside", no_rope_interval=2, embedding_scale=4.0,
)  # fmt: skip
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
    "gpt2": GPT2, "llama": LLAMA, "mistral": MISTRAL, "qwen3": QWEN3, "olmo2": OLMO2, "neox": NEOX, "prefix": PREFIX,
    "t5_1.0": T5_10, "t5_1.1": T5_11, "t5_shared": SHARED, "t5_deep_encoder": DEEP, "bart": BART, "original": ORIGINAL, "bert": BERT,
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


ITEMS = 6  # of a call of a family's program
ALL = np.tile(np.arange(LENGTH, dtype=np.int32), (2, 1))


@functools.cache
def program(config: ModelConfig, dtype: str) -> Callable[..., Outputs]:
    """The compiled (params, inputs with an axis of items) -> outputs of each item. Equal items give equal bits: one code reads all."""
    apply = functools.partial(model_of(config, Execution(unroll=False)).apply, compute_dtype=dtype)
    # Roundings to bfloat16 are those that the model asks for.
    options = {} if dtype == "float32" else {"xla_allow_excess_precision": False}
    return jax.jit(lambda params, items: jax.lax.map(functools.partial(apply, params), items), compiler_options=options)


def run(config: ModelConfig, *items: Inputs, dtype: str = "float32", params: Any = None) -> list[Outputs]:
    """The model's outputs for each item on the host. Every position is predicted by its number, so that one program serves all choices."""
    if config.vocabulary_head:
        items = tuple(dataclasses.replace(item, predict=ALL if item.predict is None else item.predict) for item in items)
    found: list[Outputs] = []
    for first in range(0, len(items), ITEMS):
        some = items[first : first + ITEMS]
        stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *some, *(ITEMS - len(some)) * some[:1])
        outputs = jax.device_get(program(config, dtype)(params_of(config) if params is None else params, stacked))
        found += [jax.tree.map(lambda leaf, i=i: leaf[i], outputs) for i in range(len(some))]
    return found


@functools.cache
def packed(name: str) -> Outputs:
    return run(FAMILIES[name], rows(FAMILIES[name]))[0]


def with_another(inputs: Inputs, field: str, index: int) -> Inputs:
    """The inputs with one token of the first row replaced by one that stands nowhere in it."""
    tokens = np.array(getattr(inputs, field))
    tokens[0, index] = UNSEEN
    return dataclasses.replace(inputs, **{field: tokens})


def influence(config: ModelConfig, inputs: Inputs) -> tuple[np.ndarray, np.ndarray]:
    """Which of the first row's outputs change with each of its tokens, and with each of its encoder's: both [T, 12]."""
    both = config.architecture == "encoder_decoder"
    changes = [(field, index) for field in ("tokens", "encoder_tokens")[: 1 + both] for index in range(LENGTH)]
    plain, *others = run(config, inputs, *(with_another(inputs, *change) for change in changes))

    def read(outputs: Outputs, row: int) -> np.ndarray:
        return (outputs.heads["tags"] if outputs.logits is None else outputs.logits)[row]

    assert all(np.array_equal(read(other, 1), read(plain, 1)) for other in others), "a row depends on another"
    reached = np.stack([np.any(read(other, 0) != read(plain, 0), axis=-1) for other in others], axis=1)
    return reached[:, :LENGTH], reached[:, LENGTH:] if both else np.zeros_like(reached)
