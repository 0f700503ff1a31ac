"""Held-out likelihood: every token scored once, and the same number whatever the batch, the mesh and the packing."""

import dataclasses
import math
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.data.config import DataConfig
from lm.errors import UserError
from lm.evals import loss
from lm.evals.loss import LossEvaluator, choose, results, span_and_stride, windows
from lm.losses import negative_log_likelihood
from lm.mesh import MeshConfig
from lm.sharding import make_mesh
from lm.train.config import EvalConfig, RunConfig
from lm.types import Inputs
from tests.train.stub import VOCAB, StubModel

EOS = 1
MODEL = StubModel()
CONFIG = RunConfig(data=DataConfig(sequence_length=16), evaluation=EvalConfig(documents_bytes=400, curve_bytes=150, stride=4))


class Split:
    """Documents of many lengths; a token is 1.5 bytes."""

    def __init__(self, lengths):
        rng = np.random.default_rng(0)
        self.documents = [np.append(rng.integers(2, VOCAB, size=n - 1), EOS).astype(np.int32) for n in lengths]
        self.byte_counts = np.asarray([3 * n // 2 for n in lengths])

    def __len__(self):
        return len(self.documents)

    def __getitem__(self, i):
        return self.documents[i]


DATA = types.SimpleNamespace(tokenizer=types.SimpleNamespace(start_id=EOS), validation=Split([5, 16, 17, 3, 60, 1000, 33, 40]))


@pytest.fixture(scope="module")
def params():
    return jax.jit(MODEL.init)(jax.random.key(0))


@pytest.fixture(scope="module")
def evaluator():
    return LossEvaluator(CONFIG, MODEL, make_mesh(MeshConfig(), devices=jax.devices()[:1]), DATA)


@pytest.fixture(scope="module")
def expected(params, evaluator):
    return evaluator(params, "final")


def evaluate(params, config=CONFIG, devices=1, **options):
    mesh = make_mesh(MeshConfig(), devices=jax.devices()[:devices])
    params = jax.device_put(params, MODEL.shardings(mesh))
    return LossEvaluator(config, MODEL, mesh, DATA, **options)(params, "final")


def changed(**options):
    return dataclasses.replace(CONFIG, evaluation=dataclasses.replace(CONFIG.evaluation, **options))


apply = jax.jit(MODEL.apply)


def nats_of(params, tokens, targets, segments, positions):
    logits = apply(params, Inputs(*(np.asarray(x, np.int32)[None] for x in (tokens, segments, positions)))).logits
    return np.asarray(negative_log_likelihood(logits, jnp.asarray(targets)[None])[0][0], np.float64)


@pytest.mark.parametrize("length", [1, 2, 15, 16, 17, 20, 100])
@pytest.mark.parametrize(("span", "stride"), [(16, 4), (16, 16), (9, 5), (16, 1)])
def test_every_token_is_scored_once_with_the_context_promised(length, span, stride):
    document = np.append(np.arange(2, length + 1), EOS).astype(np.int32)
    batch = windows(document, EOS, 16, span, stride)
    scored = [batch.targets[w][batch.weights[w] > 0] for w in range(len(batch.tokens))]
    np.testing.assert_array_equal(np.concatenate(scored), document)
    inputs = np.concatenate([[EOS], document[:-1]])
    for w in range(len(batch.tokens)):
        used = batch.segments[w] > 0
        assert not np.any(batch.weights[w][~used])
        begin = len(document) - len(inputs) if w == 0 else np.flatnonzero(inputs == batch.tokens[w][0])[0]
        np.testing.assert_array_equal(batch.tokens[w][used], inputs[begin : begin + used.sum()])
        context = np.flatnonzero(batch.weights[w])[0]
        assert w == 0 or context >= span - stride


def test_a_short_document_is_its_plain_likelihood(params):
    found = evaluate(params, changed(documents_bytes=7))
    document = DATA.validation[0]
    nats = nats_of(params, np.append(EOS, document[:-1]), document, np.ones(5), np.arange(5)).sum()
    assert (found["documents"], found["tokens"], found["bytes"]) == (1, 5, 7)
    assert found["nats"] == pytest.approx(nats, rel=1e-6)
    assert found["nats_per_byte"] == pytest.approx(nats / 7, rel=1e-6)
    assert found["bits_per_byte"] == pytest.approx(nats / 7 / math.log(2), rel=1e-6)


def test_the_number_does_not_depend_on_batch_size_or_mesh(params, expected):
    for options in ({"rows": 7}, {"devices": 8, "rows": 5}):
        found = evaluate(params, **options)
        assert found.pop("nats") == pytest.approx(expected["nats"], rel=1e-6)
        assert {k: found[k] for k in ("tokens", "bytes", "documents")} == {k: expected[k] for k in ("tokens", "bytes", "documents")}


def test_windows_of_long_text_are_made_as_they_are_scored(params, evaluator, expected, monkeypatch):
    monkeypatch.setattr(loss, "HELD", 0)
    sizes = []
    monkeypatch.setattr(loss, "results", lambda score, params, calls, mesh: sizes.append(len(calls)) or results(score, params, calls, mesh))
    evaluator._subsets.clear()
    try:
        assert evaluator(params, "final") == expected == evaluator(params, "final")
    finally:
        evaluator._subsets.clear()
    assert set(sizes) == {1}
    assert len(sizes) >= 4


def test_the_number_does_not_depend_on_packing(params, expected):
    """Two documents in one row, as training packs them, have the likelihood that their own windows have."""
    assert CONFIG.data.packing == "concatenate"
    assert evaluate(params, dataclasses.replace(CONFIG, data=dataclasses.replace(CONFIG.data, packing="best_fit"))) == expected
    a, b = DATA.validation[0], DATA.validation[3]
    tokens = np.concatenate([[EOS], a[:-1], [EOS], b[:-1]])
    packed = nats_of(params, tokens, np.concatenate([a, b]), [1] * 5 + [2] * 3, [*range(5), *range(3)])
    alone = [nats_of(params, np.append(EOS, d[:-1]), d, np.ones(len(d)), np.arange(len(d))) for d in (a, b)]
    np.testing.assert_allclose(packed, np.concatenate(alone), rtol=1e-5)


def test_more_context_changes_the_number(params, expected):
    few = evaluate(params, changed(stride=16))
    assert few["tokens"] == expected["tokens"]
    assert few["nats"] != expected["nats"]


def test_documents_are_chosen_in_order_within_the_budget():
    counts = np.asarray([7, 0, 24, 25, 4, 90, 1500, 49, 60])
    assert choose(counts, 100).tolist() == [0, 2, 3, 4]
    assert choose(counts, 3).tolist() == [4]
    assert choose(counts, 60, longest=10).tolist() == [0, 4]
    assert choose(np.asarray([10, 9, 5]), 15).tolist() == [0, 2]
    assert choose(np.asarray([10, 9, 5]), 19).tolist() == [0, 1]  # no room for what the smaller budget took
    with pytest.raises(UserError, match="no text"):
        choose(np.asarray([0, 0]), 100)


def test_windows_in_bytes_hold_the_same_bytes_for_every_tokenizer():
    config = EvalConfig(window_bytes=120, stride=64)
    assert span_and_stride(config, 128, 1.0) == (120, 60)
    assert span_and_stride(config, 128, 0.25) == (30, 15)
    assert span_and_stride(EvalConfig(stride=64), 128, 0.25) == (128, 64)
    with pytest.raises(UserError, match="stride"):
        span_and_stride(EvalConfig(stride=129), 128, 1.0)


def test_the_curve_is_on_fewer_documents(params, evaluator, expected):
    assert evaluator(params, "curve")["bytes"] <= 150 < expected["bytes"] <= 400


def test_ids_beyond_the_vocabulary_are_refused(params):
    split = Split([5, 16])
    split.documents[1][3] = CONFIG.model.vocab_size
    data = types.SimpleNamespace(tokenizer=types.SimpleNamespace(start_id=EOS), validation=split)
    damaged = LossEvaluator(CONFIG, MODEL, make_mesh(MeshConfig(), devices=jax.devices()[:1]), data)
    with pytest.raises(UserError, match=rf"document 1 .*{CONFIG.model.vocab_size}"):
        damaged(params, "final")
