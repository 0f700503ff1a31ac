"""Each step of decoding against transformers' processor of logits, and whole texts, greedy and by beam search, against its generate.

INFER=all compares all families with all strategies, which takes minutes.
"""

import functools
import os
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from cases import BY_NAME, make
from transformers.generation import logits_process as theirs

from lm import hf
from lm.infer import penalties as P
from lm.infer import sampling as S
from lm.infer.beams import Beams, search
from lm.infer.decode import Session
from lm.model.architectures import build
from lm.model.execution import AS_LISTED
from lm.model.layers import listed

VOCAB, END, NEW = 31, 7, 40
LONG = os.environ.get("INFER") == "all"
SHORT = {"gpt2": {}, "llama3": {}, "t5_1.0": {}, "bart": {}}
FAMILIES = [*SHORT, *(["mistral", "qwen3", "gemma", "smollm3", "olmo2", "neox", "t5_1.1", "mt5", "bart_scaled"] if LONG else [])]
PROMPTS = [[5, 9, 2, 8], [11, 3], [6, 4, 22, 13, 30, 12]]
STEPS = {
    "temperature": (S.Temperature(0.7), theirs.TemperatureLogitsWarper(0.7)),
    "top_k": (S.TopK(5), theirs.TopKLogitsWarper(5)),
    "top_p": (S.TopP(0.8), theirs.TopPLogitsWarper(0.8)),
    "min_p": (S.MinP(0.05), theirs.MinPLogitsWarper(0.05)),
    "typical": (S.Typical(0.6), theirs.TypicalLogitsWarper(0.6)),
    "repetition": (P.RepetitionPenalty(1.7), theirs.RepetitionPenaltyLogitsProcessor(1.7)),
    "n_gram_1": (P.NoRepeatNGram(1), theirs.NoRepeatNGramLogitsProcessor(1)),
    "n_gram_2": (P.NoRepeatNGram(2), theirs.NoRepeatNGramLogitsProcessor(2)),
    "n_gram_3": (P.NoRepeatNGram(3), theirs.NoRepeatNGramLogitsProcessor(3)),
    "banned": (P.Banned(((4,), (1, 2), (0, 1, 3))), theirs.NoBadWordsLogitsProcessor([[4], [1, 2], [0, 1, 3]], eos_token_id=END)),
    "min_length_early": (P.MinLength(6), theirs.MinNewTokensLengthLogitsProcessor(4, 6, [END, 3])),
    "min_length_late": (P.MinLength(5), theirs.MinNewTokensLengthLogitsProcessor(4, 5, [END, 3])),
    "suppressed": (P.Banned(((4,), (9,))), theirs.SuppressTokensLogitsProcessor([4, 9])),
    "forced_last": (P.ForcedLast(6), theirs.ForcedEOSTokenLogitsProcessor(10, 6)),
}


@pytest.mark.parametrize("name", STEPS)
def test_a_step_is_transformers_processor(name):
    ours, processor = STEPS[name]
    rng = np.random.default_rng(0)
    logits = (3 * rng.standard_normal((50, VOCAB))).astype(np.float32)
    ids = rng.integers(0, 4, (50, 9)).astype(np.int32)
    padded = np.pad(ids, ((0, 0), (0, 3)), constant_values=2)
    history = S.History(jnp.asarray(padded), jnp.full(50, 9), jnp.full(50, 4), jnp.array([END, 3]), jnp.int32(6))
    found = np.asarray(jax.jit(lambda x, h: ours(x, h))(logits, history))
    expected = processor(torch.from_numpy(ids).long(), torch.from_numpy(logits)).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


@functools.cache
def both(name):
    """(our model, its parameters, transformers' model, whether it has an encoder)."""
    folder = tempfile.mkdtemp()
    transformers.utils.logging.disable_progress_bar()
    case = BY_NAME[name]
    if "n_positions" in case.config or "max_position_embeddings" in case.config:
        key = "n_positions" if "n_positions" in case.config else "max_position_embeddings"
        case = type(case)(case.name, case.architecture, {**case.config, key: 64}, case.padded, case.embedding)
    model = make(case)
    model.save_pretrained(folder)
    config, params = hf.load(folder)
    return build(config, AS_LISTED), listed(jax.tree.map(jnp.asarray, params)), model, case.has_encoder


def expected(name, prompts, **options):
    """The new tokens of transformers, whose prompts are padded on the left; without the id that ends them."""
    _, _, model, is_pair = both(name)
    longest = max(map(len, prompts))
    ids = [[0] * (longest - len(p)) + p if not is_pair else p + [0] * (longest - len(p)) for p in prompts]
    mask = [[0] * (longest - len(p)) + [1] * len(p) if not is_pair else [1] * len(p) + [0] * (longest - len(p)) for p in prompts]
    generation = transformers.GenerationConfig(
        max_new_tokens=NEW, do_sample=False, pad_token_id=0, eos_token_id=[END], bos_token_id=1,
        decoder_start_token_id=1 if is_pair else None, **options,
    )  # fmt: skip
    with torch.no_grad():
        found = model.generate(torch.tensor(ids), attention_mask=torch.tensor(mask), generation_config=generation).tolist()
    new = [row[1 if is_pair else longest :] for row in found]
    return [row[: row.index(END)] if END in row else row for row in new]


@pytest.mark.parametrize("name", FAMILIES)
def test_greedy_texts_are_transformers_token_for_token(name):
    model, params, _, _ = both(name)
    cases = [((), {}), ([P.RepetitionPenalty(1.4), P.NoRepeatNGram(2), P.MinLength(12)],
                       {"repetition_penalty": 1.4, "no_repeat_ngram_size": 2, "min_new_tokens": 12})]  # fmt: skip
    forced = [P.ForcedLast(2)] if name.startswith("bart") else []  # BartConfig's forced_eos_token_id
    for strategy, options in cases:
        session = Session(model, params, PROMPTS, max_new_tokens=NEW, strategy=[*strategy, *forced], eos_id=END, start_id=1)
        session.advance()
        # Its own n-grams and penalties count padding, so rows are compared one by one where they matter.
        told = [expected(name, [prompt], **options)[0] for prompt in PROMPTS] if options else expected(name, PROMPTS, **options)
        assert [text.ids for text in session.written()] == told


@pytest.mark.parametrize("name", FAMILIES)
def test_beams_are_transformers_token_for_token(name):
    model, params, _, _ = both(name)
    cases = [(width, 0.6 if width % 2 else 1.0, early) for width in (2, 3, 4) for early in (True, False)]
    forced = [P.ForcedLast(2)] if name.startswith("bart") else []
    cases = [*cases, (4, 0.6, "never"), *([(4, 0.6, False), (3, 1.0, True), (1, 1.0, False)] if LONG else [])]
    for width, penalty, early in cases:
        options = {"num_beams": width, "length_penalty": penalty, "early_stopping": early}
        found = search(model, params, PROMPTS, Beams(width, penalty, early), strategy=forced, max_new_tokens=NEW, eos_id=END, start_id=1)
        assert [texts[0].ids for texts in found] == expected(name, PROMPTS, **options), options
