"""Beam search finds what a search of the whole space finds, and rows do not meet. (tests/parity compares it with transformers.)"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from model.small import params_of

from lm.errors import UserError
from lm.infer.beams import Beams, search
from lm.infer.decode import generate
from lm.infer.penalties import Banned, MinLength
from lm.infer.sampling import Temperature
from lm.model.architectures import build
from lm.model.config import AttentionConfig, MLPConfig, ModelConfig
from lm.model.execution import AS_LISTED
from lm.model.layers import listed
from lm.types import Inputs

CONFIG = ModelConfig(vocab_size=5, d_model=8, num_layers=1, attention=AttentionConfig(1, None, 8), mlp=MLPConfig(d_ff=8))
END, MOST = 2, 3
PROMPTS = [[1], [3, 4, 1]]


@functools.cache
def model():
    return build(CONFIG, AS_LISTED), listed(jax.tree.map(jnp.asarray, params_of(CONFIG)))


def every_text():
    """All texts of up to MOST ids that end at END, or have MOST."""
    for size in range(1, MOST + 1):
        for text in itertools.product(range(5), repeat=size):
            if END not in text[:-1] and (size == MOST or text[-1] == END):
                yield text


@pytest.mark.parametrize("penalty", [0.6, 2.0, -1.0])
def test_beams_as_wide_as_the_space_are_an_exhaustive_search(penalty):
    found = search(*model(), PROMPTS, Beams(25, penalty, "never"), max_new_tokens=MOST, eos_id=END)
    texts = list(every_text())
    for prompt, best in zip(PROMPTS, found, strict=True):
        rows = np.zeros((len(texts), len(prompt) + MOST), np.int32)
        for row, text in zip(rows, texts, strict=True):
            row[: len(prompt) + len(text)] = [*prompt, *text]
        log_p = np.asarray(jax.nn.log_softmax(build(CONFIG).apply(params_of(CONFIG), Inputs(rows)).logits))
        begin = len(prompt) - 1
        sums = [sum(log_p[i, begin + t, token] for t, token in enumerate(text)) for i, text in enumerate(texts)]
        order = np.argsort([-total / len(text) ** penalty for total, text in zip(sums, texts, strict=True)])
        for text, i in zip(best[:5], order[:5], strict=True):
            assert text.ids == [token for token in texts[i] if token != END]
            assert text.ended == (texts[i][-1] == END)
            np.testing.assert_allclose(
                text.log_probs, [log_p[i, begin + t, token] for t, token in enumerate(texts[i][: len(text.ids)])], atol=1e-5
            )


def test_one_beam_is_greedy_and_rows_do_not_meet():
    options = {"max_new_tokens": MOST, "eos_id": END, "strategy": [MinLength(2), Banned(((1,),))]}
    assert [texts[0].ids for texts in search(*model(), PROMPTS, Beams(1), **options)] == generate(*model(), PROMPTS, **options)
    together = search(*model(), PROMPTS, Beams(2, 0.6), **options)
    assert [[text.ids for text in search(*model(), [prompt], Beams(2, 0.6), **options)[0]] for prompt in PROMPTS] == [
        [text.ids for text in texts] for texts in together
    ]


@pytest.mark.parametrize(
    ("beams", "strategy", "message"),
    [
        (lambda: Beams(0), (), "beams=0"),
        (lambda: Beams(2.5), (), "beams=2.5"),
        (lambda: Beams(2, early_stopping=1), (), "early_stopping=1"),
        (lambda: Beams(2, early_stopping="late"), (), "early_stopping=late"),
        (lambda: Beams(2, float("nan")), (), "length_penalty"),
        (lambda: Beams(2), Temperature(0.5), "draws"),
    ],
)
def test_impossible_searches_are_refused(beams, strategy, message):
    with pytest.raises(UserError, match=message):
        search(*model(), [[1]], beams(), max_new_tokens=2, strategy=strategy)
