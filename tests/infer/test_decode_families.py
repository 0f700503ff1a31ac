"""Cached decoding of prefix LMs and encoder-decoders against the full forward pass, in ragged rows."""

import dataclasses
import functools
import os

import jax
import numpy as np
import pytest
from model.small import GPT2, LLAMA, close, params_of, tokens
from model.small import model_of as unrolled_model_of

from lm.errors import UserError
from lm.infer.decode import generate
from lm.infer.penalties import (
    Banned,
    ForcedFirst,
    ForcedLast,
    FrequencyPenalty,
    MinLength,
    NoRepeatNGram,
    PresencePenalty,
    RepetitionPenalty,
)
from lm.infer.sampling import MinP, Temperature, TopK, TopP, Typical
from lm.model.config import AttentionConfig, MLPConfig, ModelConfig
from lm.model.execution import Execution
from lm.types import Inputs

T5 = ModelConfig(
    "encoder_decoder", vocab_size=24, d_model=16, num_layers=2, max_length=12, attention=AttentionConfig(2, None, 8, scale=1.0),
    mlp=MLPConfig(d_ff=32, activation="relu"), positions="relative", relative_buckets=8, relative_max_distance=16, tied_head=True,
)  # fmt: skip
BART = dataclasses.replace(GPT2, architecture="encoder_decoder", norm_placement="post", final_norm=False)
FAMILIES = {
    "prefix_rope": dataclasses.replace(
        LLAMA, architecture="prefix_lm", norm_placement="post_inside", no_rope_interval=2,
        attention=dataclasses.replace(LLAMA.attention, qk_norm_over="heads"),
    ),
    "prefix_learned": dataclasses.replace(GPT2, architecture="prefix_lm"),
    "t5": T5,
    "t5_shared": dataclasses.replace(T5, shared_stacks=True),
    "bart": BART,
}  # fmt: skip
model_of = functools.partial(unrolled_model_of, execution=Execution(unroll=False, attention="xla"))  # as lm.infer builds models
PAIRS = [name for name in FAMILIES if not name.startswith("prefix")]
LENGTHS = np.array([1, 6, 3], np.int32)  # of prompts, of what the encoder reads
STEPS = 5


def decoded(config, prefill_inputs, lengths, text, memory=0):
    """Logits after prompts of `lengths` tokens of `text`, then after each of STEPS given tokens."""
    model, params, rows = model_of(config), params_of(config), np.arange(len(text))
    cache = model.init_cache(len(text), text.shape[1], memory=memory)
    logits, cache = jax.jit(model.prefill)(params, prefill_inputs, lengths, cache)
    found, step = [logits], jax.jit(model.decode_step, donate_argnums=2)
    for i in range(STEPS):
        logits, cache = step(params, text[rows, lengths + i], cache)
        found.append(logits)
    return found


def test_a_prefix_lm_decodes_as_its_full_pass_with_the_prompt_as_prefix():
    config, text = FAMILIES["prefix_rope"], tokens(3, 12)
    column = np.arange(12)
    prefix = (column < LENGTHS[:, None]).astype(np.int32)
    full = np.asarray(jax.jit(model_of(config).apply)(params_of(config), Inputs(text, prefix=prefix)).logits)
    padded = np.where(column[:6] < LENGTHS[:, None], text[:, :6], 23)
    for i, logits in enumerate(decoded(config, Inputs(padded), LENGTHS, text)):
        close(logits, full[np.arange(3), LENGTHS - 1 + i], 2e-5)


@pytest.mark.parametrize("name", PAIRS)
def test_an_encoder_decoder_decodes_as_its_full_pass(name):
    """The encoder reads 1, 6 and 3 tokens; the decoder begins with 1, 2 and 1."""
    config, text, source = FAMILIES[name], tokens(3, 12), tokens(3, 6, seed=1)
    segments = (np.arange(6) < LENGTHS[:, None]).astype(np.int32)
    memory = {"encoder_tokens": np.where(segments, source, 23), "encoder_segments": segments}
    full = np.asarray(jax.jit(model_of(config).apply)(params_of(config), Inputs(text, segments=np.ones_like(text), **memory)).logits)
    begun = np.array([1, 2, 1], np.int32)
    for i, logits in enumerate(decoded(config, Inputs(text[:, :2], **memory), begun, text, memory=6)):
        close(logits, full[np.arange(3), begun - 1 + i], 2e-5)


@pytest.mark.parametrize("name", ["t5", "prefix_learned"])
def test_generation_is_the_argmax_of_full_passes_and_rows_do_not_meet(name):
    config, prompts = FAMILIES[name], [[5, 9, 2, 7], [3], [11, 4]]
    together = generate(model_of(config), params_of(config), prompts, max_new_tokens=5, start_id=[1, 4] if name == "t5" else 1)
    apply = jax.jit(lambda params, inputs: model_of(config).apply(params, inputs).logits)
    for prompt, found in zip(prompts, together, strict=True):
        text = [1, 4] if name == "t5" else list(prompt)
        begun = len(text)
        for _ in range(5):
            padded, real = np.zeros((1, 12), np.int32), (np.arange(12) < len(text))[None].astype(np.int32)
            padded[0, : len(text)] = text
            if name == "t5":
                source, is_source = np.zeros((1, 4), np.int32), (np.arange(4) < len(prompt))[None].astype(np.int32)
                source[0, : len(prompt)] = prompt
                inputs = Inputs(padded, segments=real, encoder_tokens=source, encoder_segments=is_source)
            else:
                inputs = Inputs(padded, segments=real, prefix=(np.arange(12) < begun)[None].astype(np.int32))
            text.append(int(np.argmax(apply(params_of(config), inputs)[0, len(text) - 1])))
        assert found == text[begun:]


STRATEGIES = {
    "greedy": (), "temperature": Temperature(1.5), "top_k": TopK(4), "top_p": TopP(0.8), "min_p": MinP(0.1), "typical": Typical(0.7),
    "all_draws": [Temperature(2.0), TopK(9), TopP(0.95), MinP(0.01), Typical(0.9)], "repetition": RepetitionPenalty(1.5),
    "presence": PresencePenalty(0.5), "frequency": FrequencyPenalty(0.5), "n_gram": NoRepeatNGram(2), "banned": Banned(((3,), (4, 5))),
    "least": MinLength(4), "forced": [ForcedFirst((3, 4)), ForcedLast(2)],
}  # fmt: skip
ALL = [(family, name) for family in FAMILIES for name in STRATEGIES] if os.environ.get("INFER") == "all" else [("t5_shared", "all_draws")]


@pytest.mark.parametrize(("family", "strategy"), ALL)
def test_every_row_of_a_ragged_batch_is_its_single_run(family, strategy):
    config, prompts = FAMILIES[family], [[5, 9, 2, 7], [3], [11, 4]]
    options = {"max_new_tokens": 6, "start_id": 1, "eos_id": 2, "strategy": STRATEGIES[strategy], "seed": 5}
    together = generate(model_of(config), params_of(config), prompts, **options)
    assert together == [generate(model_of(config), params_of(config), [prompt], **options)[0] for prompt in prompts]


def test_what_cannot_write_is_refused():
    encoder = dataclasses.replace(GPT2, architecture="encoder")
    with pytest.raises(UserError, match="encoder-only"):
        generate(model_of(encoder), params_of(encoder), [[1]], max_new_tokens=2)
    with pytest.raises(UserError, match="start_id"):
        generate(model_of(T5), params_of(T5), [[1]], max_new_tokens=2)
    with pytest.raises(UserError, match="max_length=12"):
        generate(model_of(BART), params_of(BART), [[1] * 13], max_new_tokens=2, start_id=1)
