"""What a model tells of texts, against full passes over them."""

import functools
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from model.small import params_of

from lm.data.objectives import config as objectives
from lm.data.objectives.base import SpecialIds
from lm.data.tokenizer import Bytes
from lm.errors import UserError
from lm.infer import likelihood
from lm.infer.beams import Beams
from lm.infer.decode import Session
from lm.infer.penalties import ForcedFirst
from lm.infer.sampling import Temperature
from lm.infer.text_model import TextModel
from lm.model.architectures import build
from lm.model.config import AttentionConfig, MLPConfig, ModelConfig
from lm.model.execution import AS_LISTED, Execution
from lm.model.layers import listed
from lm.types import Inputs

SIZE = {"vocab_size": 261, "d_model": 8, "num_layers": 1, "attention": AttentionConfig(1, None, 8), "mlp": MLPConfig(d_ff=8)}
DECODER = ModelConfig(**SIZE)
ENCODER = ModelConfig("encoder", positions="learned", max_length=40, **SIZE)
PAIR = ModelConfig("encoder_decoder", **SIZE)
EOS = Bytes.eos_id


@functools.cache
def text_model(config):
    kinds = {"encoder": objectives.MaskedLM(), "encoder_decoder": objectives.PrefixLM()}
    special = SpecialIds(Bytes(), kinds.get(config.architecture, objectives.NextToken()), config.vocab_size)
    return TextModel(config, listed(jax.tree.map(jnp.asarray, params_of(config))), special, {})


@functools.cache
def applied(config):
    return jax.jit(lambda params, inputs: build(config, Execution(unroll=False, attention="xla")).apply(params, inputs))


def log_p(config, ids, inputs=None):
    """Log-probabilities [T, V] of one row, padded to a length that all tests have."""
    tokens, segments = np.zeros((1, 16), np.int32), np.zeros((1, 16), np.int32)
    tokens[0, : len(ids)], segments[0, : len(ids)] = ids, 1
    encoder = {}
    if inputs is not None:
        source, real = np.zeros((1, 16), np.int32), np.zeros((1, 16), np.int32)
        source[0, : len(inputs)], real[0, : len(inputs)] = inputs, 1
        encoder = {"encoder_tokens": source, "encoder_segments": real}
    return np.asarray(jax.nn.log_softmax(applied(config)(params_of(config), Inputs(tokens, segments, **encoder)).logits[0]))


def of(text):
    return Bytes().encode(text).tolist()


def test_a_decoders_score_is_the_sum_over_the_continuation():
    row = [EOS, *of("abc")]
    table = log_p(DECODER, row)
    expected = table[1, row[2]] + table[2, row[3]]
    score = text_model(DECODER).score("a", "bc")
    assert score.log_prob == pytest.approx(expected, abs=1e-5)
    assert (score.ids, score.greedy) == (2, False)


def test_an_encoder_decoders_score_reads_the_prompt_once():
    row = [EOS, *of("bc")]
    table = log_p(PAIR, row, inputs=text_model(PAIR).prompt_ids("a"))
    score = text_model(PAIR).score("a", "bc")
    assert score.log_prob == pytest.approx(table[0, row[1]] + table[1, row[2]], abs=1e-5)


def test_an_encoders_score_masks_each_token_alone():
    special = text_model(ENCODER).special
    row = [special.ends[0], *of("abc"), special.ends[1]]
    expected = 0.0
    for i in (2, 3):
        masked = [*row[:i], special.mask, *row[i + 1 :]]
        expected += log_p(ENCODER, masked)[i, row[i]]
    assert text_model(ENCODER).score("a", "bc").log_prob == pytest.approx(expected, abs=1e-5)


def test_masks_are_filled_by_probability():
    special = text_model(ENCODER).special
    row = [special.ends[0], *of("a"), special.mask, *of("b"), special.mask, special.ends[1]]
    found = text_model(ENCODER).fill_mask("a__b__", mask="__", top=261)
    for candidates, i in zip(found, (2, 4), strict=True):
        assert sum(candidate.probability for candidate in candidates) == pytest.approx(1, abs=1e-5)
        by_id = {candidate.id: candidate.probability for candidate in candidates}
        np.testing.assert_allclose([by_id[i] for i in range(261)], np.exp(log_p(ENCODER, row)[i]), atol=1e-6)
        assert [c.probability for c in candidates] == sorted(by_id.values(), reverse=True)


@pytest.mark.parametrize("config", [DECODER, ENCODER, PAIR], ids=lambda config: config.architecture)
def test_vectors_do_not_depend_on_other_texts(config):
    model = text_model(config)
    for pooling in ("mean", "first", "last"):
        together = model.embed(["abc", "a longer text"], pooling=pooling, normalize=False)
        np.testing.assert_allclose(model.embed("abc", pooling=pooling, normalize=False)[0], together[0], atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(model.embed(["a", "bb"]), axis=1), 1, atol=1e-6)


def test_a_stream_is_the_text_in_whole_characters():
    model, forced = text_model(DECODER), ForcedFirst(tuple(of("zażółć gęślą")))
    pieces = list(model.stream("a", max_new_tokens=19, strategy=forced))
    assert "".join(pieces) == "zażółć gęślą"
    assert len(pieces) > 3
    assert "\ufffd" not in "".join(pieces)
    assert "".join(model.stream("a", max_new_tokens=19, strategy=forced, stop=["zzz", "ć g"])) == "zażół"


def test_the_best_of_some_is_the_likeliest_and_prompts_are_kept_apart():
    model, options = text_model(DECODER), {"max_new_tokens": 6, "strategy": Temperature(2.0)}
    drawn = model.generate(["ab", "c"], samples=3, **options)
    assert len({text.text for text in drawn}) == 6
    assert [text.ids for text in model.generate("c", samples=3, **options)] == [text.ids for text in drawn[3:]]
    best = model.generate(["ab", "c"], best_of=3, **options)
    assert best == [max(drawn[i : i + 3], key=lambda text: text.per_token) for i in (0, 3)]


def test_the_id_that_ends_a_text_counts_when_texts_are_compared():
    """Without it an empty text would be the likeliest of all."""
    model = text_model(DECODER)
    (empty,) = model.generate("a", max_new_tokens=6, strategy=ForcedFirst((EOS,)))
    assert (empty.ids, empty.log_prob, empty.ended) == ([], 0.0, True)
    assert empty.per_token == pytest.approx(log_p(DECODER, [EOS, *of("a")])[1, EOS], abs=1e-5)


class Merging(Bytes):
    """Bytes, of which `und` is one token."""

    def encode(self, text):
        return np.concatenate([np.asarray(part, np.int32) for part in self._parts(text)])

    def _parts(self, text):
        for i, part in enumerate(text.split("und")):
            yield [260] if i else []
            yield Bytes.encode(self, part)


def test_a_token_over_the_border_counts_to_the_continuation():
    model = text_model(DECODER)
    special = SpecialIds(Merging(), objectives.NextToken(), DECODER.vocab_size)
    table, row = log_p(DECODER, [EOS, 260, *of("s")]), [260, *of("s")]
    score = TextModel(DECODER, model.params, special, {}).score("un", "ds")
    assert score.ids == 2
    assert score.log_prob == pytest.approx(table[0, row[0]] + table[1, row[1]], abs=1e-5)


def test_in_bfloat16_a_text_among_others_is_as_likely_as_alone_up_to_rounding():
    trained, forced = text_model(DECODER), ForcedFirst(tuple(of("abcdef")))
    model = TextModel(DECODER, trained.params, trained.special, {}, compute_dtype="bfloat16")
    alone, among = (model.generate(prompts, max_new_tokens=6, strategy=forced)[0] for prompts in ("x", ["x", "yyyyyy"]))
    assert alone.ids == among.ids
    assert alone.log_prob == pytest.approx(among.log_prob, abs=6 * 2**-6)


def test_scores_leave_the_vocabulary_on_the_device():
    model, tokens = text_model(DECODER), np.zeros((1, 16), np.int32)
    program = likelihood._of_targets(model.model, "float32")
    found = jax.eval_shape(program, model.params, Inputs(tokens, tokens, predict=tokens), tokens)
    assert {leaf.shape for leaf in jax.tree.leaves(found)} == {(1, 16)}


def test_an_import_begins_and_is_cut_off_as_its_files_say():
    """BART's files name the ids that its decoder begins with, and one that ends texts which would be too long."""
    trained = text_model(PAIR)
    source = {"before": [5], "after": [6], "first": [EOS, 5], "generation": {"forced_eos_token_id": EOS}}
    imported = TextModel(PAIR, trained.params, trained.special, source)
    (text,) = imported.generate("ab", max_new_tokens=3)
    assert (len(text.ids), text.ended) == (2, True)
    table = log_p(PAIR, [EOS, 5, *text.ids], inputs=[5, *of("ab"), 6])
    assert text.ids == [int(np.argmax(table[1])), int(np.argmax(table[2]))]
    assert text.log_prob == pytest.approx(table[1].max() + table[2].max(), abs=1e-5)


def test_what_cannot_be_told_is_refused():
    with pytest.raises(UserError, match="does not continue"):
        text_model(ENCODER).generate("a")
    with pytest.raises(UserError, match="encoder"):
        text_model(DECODER).fill_mask("a [MASK]")
    with pytest.raises(UserError, match=r"\[MASK\]"):
        text_model(ENCODER).fill_mask("a")
    with pytest.raises(UserError, match="empty"):
        text_model(ENCODER).fill_mask("a", mask="")
    with pytest.raises(UserError, match="no text"):
        text_model(ENCODER).embed([])
    for seed in (-1, 2**32):
        with pytest.raises(UserError, match=f"seed={seed}"):
            text_model(DECODER).generate("a", max_new_tokens=6, strategy=Temperature(2.0), seed=seed)
    with pytest.raises(UserError, match="max_length=40"):
        text_model(ENCODER).embed("a" * 41)
    with pytest.raises(UserError, match="pooling=max"):
        text_model(ENCODER).embed("a", pooling="max")
    with pytest.raises(UserError, match="best_of"):
        text_model(DECODER).generate("a", beams=Beams(2), best_of=2)
    with pytest.raises(UserError, match="list of texts"):
        text_model(DECODER).generate("a", stop="b")


def test_draws_have_the_models_distribution():
    """All texts of 3 ids out of 5, under temperature .8: chi-squared against the product of the model's own probabilities."""
    from scipy.stats import chi2

    from lm.infer.sampling import TopP

    config = ModelConfig(**SIZE | {"vocab_size": 5})
    model, params = build(config, AS_LISTED), listed(jax.tree.map(jnp.asarray, params_of(config)))
    texts = [(a, b, c) for a in range(5) for b in range(5) for c in range(5)]
    rows = np.array([(1, *text) for text in texts], np.int32)
    logits = np.asarray(build(config).apply(params_of(config), Inputs(rows)).logits, np.float64) / 0.8
    long = os.environ.get("INFER") == "all"
    for steps, nucleus in [([Temperature(0.8), TopP(0.9)], 0.9), *([([Temperature(0.8)], 1.0)] if long else [])]:
        share = np.exp(logits - np.log(np.exp(logits).sum(-1, keepdims=True)))
        order = np.argsort(-share, axis=-1)
        ranked = np.take_along_axis(share, order, axis=-1)
        ranked *= np.cumsum(ranked, axis=-1) - ranked < nucleus
        np.put_along_axis(share, order, ranked / ranked.sum(-1, keepdims=True), axis=-1)
        expected = np.prod([share[np.arange(125), i, rows[:, i + 1]] for i in range(3)], axis=0)
        assert expected.sum() == pytest.approx(1)
        draws = 100_000 if long else 4_000
        session = Session(model, params, [[1]] * draws, max_new_tokens=3, strategy=steps)
        session.advance()
        found = np.bincount([25 * a + 5 * b + c for a, b, c in (text.ids for text in session.written())], minlength=125)
        assert (found[expected < 1e-12] == 0).all()
        rare = draws * expected < 5  # counted together
        expected, found = (np.append(x[~rare], x[rare].sum() + 1e-9) for x in (draws * expected, found))
        assert chi2.sf(np.sum((found - expected) ** 2 / expected), len(expected) - 1) > 1e-3
