"""Each strategy draws the tokens that it may, as often as it should."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.errors import UserError
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
from lm.infer.sampling import NO_ID, Greedy, History, MinP, Temperature, TopK, TopP, Typical
from lm.infer.strategy import ORDER, compose

LOGITS = np.log([0.4, 0.05, 0.3, 0.2, 0.05])
DRAWS = 4000


def history(*rows, begin=0, length=6, ends=(), most=100):
    """The ids of rows, of which those from `begin` on are the model's."""
    ids = np.full((len(rows), length), 3, np.int32)
    for row, found in enumerate(rows):
        ids[row, : len(found)] = found
    return History(
        jnp.asarray(ids), jnp.array([len(row) for row in rows]), jnp.full(len(rows), begin), jnp.array([*ends, NO_ID]), jnp.int32(most)
    )


def after(step, logits, *rows, **options):
    rows = rows or ([],)
    given = jnp.broadcast_to(jnp.asarray(logits, jnp.float32), (len(rows), len(logits)))
    return np.asarray(compose(step).scores(given, history(*rows, **options)))


def kept(step, p):
    return np.isfinite(after(step, np.log(p))[0]).tolist()


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ((), [1, 0, 0, 0, 0]),
        (Greedy(), [1, 0, 0, 0, 0]),
        (Temperature(), [0.4, 0.05, 0.3, 0.2, 0.05]),
        (Temperature(0.5), np.array([16, 0.25, 9, 4, 0.25]) / 29.5),
        (TopK(1), [1, 0, 0, 0, 0]),
        ([TopK(2), Temperature(1.0)], [4 / 7, 0, 3 / 7, 0, 0]),
        (TopP(0.69), [4 / 7, 0, 3 / 7, 0, 0]),
        ([TopP(0.8), TopK(3)], np.array([4, 0, 3, 2, 0]) / 9),  # TopK comes first: of 4/9, 3/9 and 2/9 it takes all three to reach .8
    ],
)
def test_tokens_come_as_often_as_they_should(steps, expected):
    strategy, expected = compose(steps), np.asarray(expected)
    scores = jnp.tile(after(steps, LOGITS), (DRAWS, 1))
    share = np.bincount(strategy.choose(scores, jax.random.split(jax.random.key(0), DRAWS)), minlength=5) / DRAWS
    assert (share[expected == 0] == 0).all()
    assert np.abs(share - expected).max() < 5 * 0.5 / DRAWS**0.5  # five standard errors at most


def test_filters_keep_what_transformers_keeps():
    """The cases of transformers' own tests; and of tokens as likely as one another no more than reach p."""
    assert kept(TopP(0.8), [0.3, 0.1, 0.1, 0.5]) == [True, False, False, True]
    assert kept(TopP(0.8), [0.15, 0.3, 0.3, 0.25]) == [False, True, True, True]
    assert kept(TopP(0.1), [0.15, 0.3, 0.3, 0.25]) == [False, False, True, False]
    assert kept(TopP(0.5), [0.25] * 4) == [False, False, True, True]
    assert kept(MinP(0.05), [0.9, 0.0274, 0.047, 0.0274]) == [True, False, True, False]
    assert kept(Typical(0.5), [0.4, 0.2, 0.2, 0.2]) == [False, True, True, True]
    assert kept(TopK(2), [0.4, 0.2, 0.2, 0.2]) == [True, True, True, True]  # none of three equal ones is preferred


def test_penalties_count_what_they_say():
    logits = [-1.0, 2.0, 4.0, -3.0]
    rows = [[0, 1, 1, 2], [3]]
    np.testing.assert_allclose(after(RepetitionPenalty(2.0), logits, *rows), [[-2, 1, 2, -3], [-1, 2, 4, -6]])
    np.testing.assert_allclose(after(PresencePenalty(0.5), logits, *rows, begin=1), [[-1, 1.5, 3.5, -3], logits])
    np.testing.assert_allclose(after(FrequencyPenalty(0.5), logits, *rows, begin=1), [[-1, 1, 3.5, -3], logits])


@pytest.mark.parametrize("n", [1, 2, 3])
def test_no_n_gram_comes_twice(n):
    """Against a plain search, for every row of four ids out of three, and shorter ones."""
    rows = [list(row) for size in range(5) for row in itertools.product(range(3), repeat=size)]
    found = after(NoRepeatNGram(n), np.zeros(4), *rows)
    for row, scores in zip(rows, found, strict=True):
        grams = {tuple(row[i : i + n]) for i in range(len(row) - n + 1)}
        banned = {token for token in range(4) if tuple([*row, token][-n:]) in grams and len(row) + 1 > n}
        assert set(np.flatnonzero(~np.isfinite(scores)).tolist()) == banned, row


def test_ids_are_banned_and_forced_and_ends_come_late():
    def free(step, *rows, **options):
        return [np.flatnonzero(np.isfinite(scores)).tolist() for scores in after(step, np.zeros(4), *rows, **options)]

    assert free(Banned(((2,), (0, 1, 3))), [0, 1], [1], []) == [[0, 1], [0, 1, 3], [0, 1, 3]]
    assert free(MinLength(2), [0], [0, 0], [0, 0, 0], begin=1, ends=(1, 2)) == [[0, 3], [0, 3], [0, 1, 2, 3]]
    assert free(ForcedFirst((2, 1)), [0], [0, 2], [0, 2, 1], begin=1) == [[2], [1], [0, 1, 2, 3]]
    assert free(ForcedLast(3), [0], [0, 0], [0, 0, 0], begin=1, most=3) == [[0, 1, 2, 3], [0, 1, 2, 3], [3]]


def test_steps_have_one_order():
    steps = [kind(*([0.5] if "p" in kind.__dataclass_fields__ else [])) for kind in (TopP, MinP, Typical, Temperature)] + [TopK(3)]
    for order in (steps, steps[::-1]):
        assert [type(step) for step in compose(order).steps] == [Temperature, TopK, TopP, MinP, Typical]
    assert [kind for kind in ORDER if kind.samples] == [Temperature, TopK, TopP, MinP, Typical]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Temperature(0.0), "greedy"),
        (lambda: Temperature(-1.0), "temperature=-1"),
        (lambda: TopK(0), "top_k=0"),
        (lambda: TopP(0.0), "top_p=0"),
        (lambda: MinP(1.5), "min_p=1.5"),
        (lambda: Typical(0.0), "typical_p=0"),
        (lambda: RepetitionPenalty(0.0), "repetition_penalty=0"),
        (lambda: NoRepeatNGram(0), "no_repeat_ngram=0"),
        (lambda: Banned(((),)), "empty"),
        (lambda: compose([Greedy(), TopK(2)]), "Greedy.*TopK"),
        (lambda: compose([TopK(2), TopK(3)]), "TopK"),
        (lambda: compose([1]), "1 "),
    ],
)
def test_impossible_settings_are_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()
