"""Cached decoding against the full forward pass, row by row."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from model.small import GPT2, LLAMA, WINDOW, apply_of, close, params_of, tokens
from model.small import model_of as unrolled_model_of

from lm.errors import UserError
from lm.infer.decode import Session, bucket, generate
from lm.infer.penalties import NoRepeatNGram, RepetitionPenalty
from lm.infer.sampling import Temperature, TopK, TopP
from lm.model.architectures import build
from lm.model.config import AttentionConfig, MLPConfig, ModelConfig
from lm.model.execution import Execution
from lm.model.layers import listed
from lm.types import Inputs

LENGTHS = np.array([1, 6, 3], np.int32)
AS_INFER = Execution(unroll=False, attention="xla")  # as lm.infer builds models
model_of = functools.partial(unrolled_model_of, execution=AS_INFER)
NO_ROPE = dataclasses.replace(WINDOW, no_rope_interval=2)
T5 = ModelConfig(
    "encoder_decoder", vocab_size=24, d_model=16, num_layers=2, encoder_layers=3, max_length=12,
    attention=AttentionConfig(2, None, 8, scale=1.0), mlp=MLPConfig(d_ff=32), positions="relative", relative_buckets=8,
)  # fmt: skip
CACHED = {"gpt2": GPT2, "window": WINDOW}  # LLAMA stands in test_decode_families as a prefix LM


@functools.cache
def full_logits(config):
    """Logits of a full pass over 3 rows of 12 tokens."""
    segments, positions = np.ones((3, 12), np.int32), np.tile(np.arange(12, dtype=np.int32), (3, 1))
    return np.asarray(apply_of(config)(params_of(config), tokens(3, 12), segments, positions))


@pytest.mark.parametrize("family", CACHED)
def test_cached_decode_is_the_full_forward_pass(family):
    """Prompts of 1, 6 and 3 tokens, then 6 given tokens each; the windowed cache is a ring of 3 slots and wraps."""
    config, model, text = CACHED[family], model_of(CACHED[family]), tokens(3, 12)
    prompt = np.where(np.arange(6) < LENGTHS[:, None], text[:, :6], 23)
    logits, cache = jax.jit(model.prefill)(params_of(config), Inputs(prompt), LENGTHS, model.init_cache(3, 12))
    assert cache.k.shape[2] == (config.attention.window or 12)
    rows, step = np.arange(3), jax.jit(model.decode_step, donate_argnums=2)
    for i in range(7):
        close(logits, full_logits(config)[rows, LENGTHS - 1 + i], 2e-5)
        if i < 6:
            logits, cache = step(params_of(config), text[rows, LENGTHS + i], cache)
    np.testing.assert_array_equal(cache.length, LENGTHS + 6)


def test_greedy_is_the_argmax_of_full_passes_and_rows_do_not_meet():
    prompts = [[5, 9, 2, 7], [3], [11, 4]]
    together = generate(model_of(LLAMA), params_of(LLAMA), prompts, max_new_tokens=5)
    positions = np.arange(12, dtype=np.int32)[None]
    for prompt, found in zip(prompts, together, strict=True):
        text = list(prompt)
        for _ in range(5):
            padded, segments = np.zeros((3, 12), np.int32), np.zeros((3, 12), np.int32)
            padded[0, : len(text)], segments[0, : len(text)] = text, 1
            logits = apply_of(LLAMA)(params_of(LLAMA), padded, segments, np.tile(positions, (3, 1)))
            text.append(int(np.argmax(logits[0, len(text) - 1])))
        assert found == text[len(prompt) :]


def test_sampling_repeats_with_its_seed_and_ends_before_the_end_of_document():
    options = {"max_new_tokens": 5, "strategy": Temperature(2.0)}
    prompts = [[5, 9, 2, 7], [3], [11, 4]]
    first = generate(model_of(LLAMA), params_of(LLAMA), prompts, **options)
    assert first == generate(model_of(LLAMA), params_of(LLAMA), prompts, **options)
    assert first != generate(model_of(LLAMA), params_of(LLAMA), prompts, seed=1, **options)
    ends = (first[0][2], first[1][3])
    ended = generate(model_of(LLAMA), params_of(LLAMA), prompts, eos_id=ends, **options)
    assert ended == [list(itertools.takewhile(lambda i: i not in ends, row)) for row in first]


def test_a_decode_step_holds_less_than_a_tenth_of_the_cache_beside_it():
    config = ModelConfig(vocab_size=16, d_model=16, num_layers=24, attention=AttentionConfig(2, 1, 16), mlp=MLPConfig(d_ff=16))
    model = build(config, AS_INFER)  # straight code holds slices of every layer's weights
    cache = jax.eval_shape(lambda: model.init_cache(4, 256))
    step = jax.jit(model.decode_step, donate_argnums=2).lower(model.abstract(), jax.ShapeDtypeStruct((4,), jnp.int32), cache)
    held = step.compile().memory_analysis().temp_size_in_bytes
    assert held < 0.1 * sum(leaf.size * leaf.dtype.itemsize for leaf in (cache.k, cache.v))


@pytest.mark.parametrize(
    ("config", "prompts", "message"),
    [
        (LLAMA, [[1], []], "prompt"),
        (LLAMA, [[24]], "24.*vocabulary"),
        (GPT2, [[1] * 10], "max_length=12"),
    ],
)
def test_bad_prompts_are_refused(config, prompts, message):
    with pytest.raises(UserError, match=message):
        generate(model_of(config), params_of(config), prompts, max_new_tokens=5)


def test_ragged_rows_write_what_they_write_alone_whatever_the_draws():
    """A text depends on its prompt, on its number among equal prompts and on the seed."""
    model, params = model_of(LLAMA), params_of(LLAMA)
    options = {"max_new_tokens": 5, "seed": 3, "strategy": [Temperature(2.0), TopP(0.95), RepetitionPenalty(1.3), NoRepeatNGram(2)]}
    prompts = [[5, 9, 2, 7], [3], [11, 4], [3], [3]]
    together = generate(model, params, prompts, **options)
    alone = {prompt: generate(model, params, [list(prompt)], **options)[0] for prompt in {tuple(prompt) for prompt in prompts}}
    assert together[:3] == [alone[tuple(prompt)] for prompt in prompts[:3]]
    assert len({tuple(together[row]) for row in (1, 3, 4)}) == 3


def test_a_text_in_parts_is_the_same_text_and_one_program_serves_a_bucket():
    model, params = model_of(GPT2), params_of(GPT2)
    whole = Session(model, params, [[5, 9, 2], [3]], max_new_tokens=6, eos_id=1)
    whole.advance()
    read, write = whole.programs
    compiled = read._cache_size(), write._cache_size()
    for prompts, new in (([[5, 9, 2], [3]], 6), ([[7] * 5, [3]], 4), ([[7], [3, 4]], 2)):
        parts, written = Session(model, params, prompts, max_new_tokens=new, eos_id=[1, 23]), []
        while not parts.done:
            parts.advance(2)
            written.append([text.ids for text in parts.written()])
        assert written[-1] == generate(model, params, prompts, max_new_tokens=new, eos_id=[1, 23])
        for earlier, later in itertools.pairwise(written):
            assert all(b[: len(a)] == a for a, b in zip(earlier, later, strict=True))
    assert (read._cache_size(), write._cache_size()) == compiled


def test_the_log_probability_of_a_text_is_the_models_whatever_was_drawn_from():
    model, params = model_of(LLAMA), params_of(LLAMA)
    session = Session(model, params, [[5, 9, 2]], max_new_tokens=4, strategy=[Temperature(3.0), TopK(5)])
    session.advance(2)
    session.stop([0])
    session.advance()
    (text,) = session.written()
    assert text.ended
    assert len(text.ids) == 2
    row = np.zeros((3, 12), np.int32)
    row[0, :5] = [5, 9, 2, *text.ids]
    segments, positions = (row > 0).astype(np.int32), np.tile(np.arange(12, dtype=np.int32), (3, 1))
    log_p = jax.nn.log_softmax(apply_of(LLAMA)(params, row, segments, positions)[0])
    np.testing.assert_allclose(text.log_probs, [log_p[2, text.ids[0]], log_p[3, text.ids[1]]], atol=1e-5)


@pytest.mark.parametrize("family", ["window", "t5"])
def test_layers_apart_compute_what_layers_together_do(family):
    """A cache of 3 slots wraps; the encoder of a T5 is read once."""
    config = {"window": NO_ROPE, "t5": T5}[family]
    prompts, options = [[5, 9, 2, 7], [3], [3]], {"max_new_tokens": 5, "start_id": 1, "strategy": [Temperature(1.5)]}
    apart = build(config, dataclasses.replace(AS_INFER, listed=True))
    params = listed(jax.tree.map(jnp.asarray, params_of(config)))
    jax.tree.map(lambda have, want: np.testing.assert_array_equal(have.shape, want.shape), params, apart.abstract())
    assert generate(apart, params, prompts, **options) == generate(model_of(config), params_of(config), prompts, **options)


def test_buckets_are_few_and_near():
    sizes = sorted({bucket(length) for length in range(1, 2000)})
    assert sizes[:6] == [16, 24, 32, 48, 64, 96]
    assert len(sizes) < 16
    assert all(bucket(length) < 1.5 * length + 16 for length in range(1, 2000))
    assert [bucket(100, most=most) for most in (110, 90)] == [110, 100]


def test_windows_hold_only_the_window():
    assert model_of(WINDOW).init_cache(1, 1000).k.shape == (2, 1, 3, 1, 8)
