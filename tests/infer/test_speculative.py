"""A draft changes how fast a text is written, and not which texts come, nor how often."""

import functools
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from model.small import params_of
from scipy.stats import chi2

from lm.errors import UserError
from lm.infer.decode import Session
from lm.infer.penalties import NoRepeatNGram
from lm.infer.sampling import Temperature
from lm.infer.speculative import Draft, write
from lm.model.architectures import build
from lm.model.config import AttentionConfig, MLPConfig, ModelConfig
from lm.model.execution import AS_LISTED
from lm.model.layers import listed
from lm.types import Inputs

SIZE = {"d_model": 8, "attention": AttentionConfig(1, None, 8), "mlp": MLPConfig(d_ff=8)}
LARGE, SMALL = ModelConfig(vocab_size=5, num_layers=2, **SIZE), ModelConfig(vocab_size=5, num_layers=1, **SIZE)
PAIR = ModelConfig("encoder_decoder", vocab_size=5, num_layers=1, **SIZE)
END = 2


@functools.cache
def model(config):
    return build(config, AS_LISTED), listed(jax.tree.map(jnp.asarray, params_of(config)))


def test_greedy_texts_are_those_of_the_model_alone():
    """Rows keep different numbers of guesses, and end at different times."""
    prompts, options = [[1], [3, 4, 1], [0, 0]], {"max_new_tokens": 9, "eos_id": END, "strategy": NoRepeatNGram(3)}
    alone = Session(*model(LARGE), prompts, **options)
    alone.advance()
    found = write(*model(LARGE), Draft(*model(SMALL), guesses=3), prompts, **options)
    for ours, theirs in zip(found, alone.written(), strict=True):
        assert (ours.ids, ours.ended) == (theirs.ids, theirs.ended)
        np.testing.assert_allclose(ours.log_probs, theirs.log_probs, atol=1e-5)


def test_draws_have_the_distribution_of_the_model_alone():
    """All texts of 3 ids out of 5, chi-squared against the product of the model's probabilities; the draft has other ones."""
    rows = np.array([(1, a, b, c) for a in range(5) for b in range(5) for c in range(5)], np.int32)
    logits = [np.asarray(build(config).apply(params_of(config), Inputs(rows)).logits, np.float64) for config in (LARGE, SMALL)]
    large, small = (x - np.log(np.exp(x).sum(-1, keepdims=True)) for x in logits)
    assert np.abs(np.exp(large) - np.exp(small)).sum(-1).max() > 0.2
    draws = 100_000 if os.environ.get("INFER") == "all" else 5_000
    found = write(*model(LARGE), Draft(*model(SMALL), guesses=2), [[1]] * draws, max_new_tokens=3, strategy=Temperature())
    expected = draws * np.exp(sum(large[np.arange(125), i, rows[:, i + 1]] for i in range(3)))
    counts = np.bincount([25 * a + 5 * b + c for a, b, c in (text.ids for text in found)], minlength=125)
    rare = expected < 5  # counted together
    expected, counts = (np.append(x[~rare], x[rare].sum() + 1e-9) for x in (expected, counts))
    assert chi2.sf(np.sum((counts - expected) ** 2 / expected), len(expected) - 1) > 1e-3


def test_models_that_do_not_belong_together_are_refused():
    options = {"max_new_tokens": 3, "start_id": 1}
    with pytest.raises(UserError, match="encoder_decoder"):
        write(*model(LARGE), Draft(*model(PAIR)), [[1]], **options)
    with pytest.raises(UserError, match="guesses=0"):
        write(*model(LARGE), Draft(*model(SMALL), guesses=0), [[1]], **options)
