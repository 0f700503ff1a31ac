"""Held-out likelihood of pairs: the plain sum over fixed rows, whatever the batch, the mesh and the packing of training."""

import dataclasses

import jax
import numpy as np
import pytest

from lm.config import apply_overrides
from lm.data import pipeline
from lm.data.held_out import held_out
from lm.errors import UserError
from lm.evals.pairs import PairEvaluator
from lm.losses import negative_log_likelihood
from lm.mesh import MeshConfig
from lm.model.architectures import build
from lm.sharding import make_mesh
from lm.train.config import RunConfig
from tests.data.fake_corpus import Corpus, quiet, text
from tests.model.small import params_of

TINY = ["model.d_model=8", "model.num_layers=1", "model.attention.num_heads=1", "model.mlp.d_ff=16", "data.sequence_length=32"]
TINY += ["evaluation.documents_bytes=700", "evaluation.curve_bytes=150"]
T5 = [*TINY, "model.architecture=encoder_decoder", "data.objective=span_corruption", "data.objective.sentinels=9", "model.vocab_size=268"]
BERT = [*TINY, "model.architecture=encoder", "data.objective=masked", "model.outputs.0.name=next_sentence", "model.vocab_size=261"]
CONFIGS = {name: apply_overrides(RunConfig(), changes) for name, changes in {"t5": T5, "bert": BERT}.items()}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    split = Corpus([text(20, i) for i in range(30)], [text(40, -i) for i in range(1, 9)])
    return pipeline.build(CONFIGS["t5"].data, [split], str(tmp_path_factory.mktemp("pairs")), quiet)


def evaluator_of(config, data, devices=1, **options):
    model, mesh = build(config.model), make_mesh(MeshConfig(), devices=jax.devices()[:devices])
    return PairEvaluator(config, model, mesh, data, **options)


@pytest.fixture(scope="module", params=CONFIGS)
def case(request, data):
    """(configuration, parameters, evaluator on one device, its result)."""
    config = CONFIGS[request.param]
    params, evaluate = params_of(config.model), evaluator_of(config, data)
    return config, params, evaluate, evaluate(params, "final")


def test_it_is_the_plain_sum_over_the_held_out_rows(case, data):
    config, params, _, found = case
    batch = held_out(data, config.data, config.model.architecture, config.model.vocab_size, found["rows"])
    outputs = jax.jit(build(config.model).apply)(params, batch.inputs)
    nll = np.asarray(negative_log_likelihood(outputs.logits, batch.targets)[0], np.float64)
    assert found["tokens"] == batch.weights.sum()
    assert found["nats"] == pytest.approx((nll * batch.weights).sum(), rel=1e-6)
    assert found["nats_per_token"] == pytest.approx(found["nats"] / found["tokens"], rel=1e-12)
    assert abs(found["rows"] * 32 - 700) < 100  # about as many bytes of text as asked for
    scored = batch.targets[batch.weights > 0]
    frequency = np.bincount(scored)[scored] / len(scored)
    assert found["unigram_nats_per_token"] == pytest.approx(-np.log(frequency).mean(), rel=1e-6)
    if batch.labels is None:
        assert "label_nats" not in found
        return
    log_p = np.asarray(jax.nn.log_softmax(outputs.heads["next_sentence"]), np.float64)
    counts = batch.label_weights > 0
    right = np.take_along_axis(log_p, batch.labels[..., None], axis=-1)[..., 0]
    assert found["labels"] == counts.sum()
    assert found["label_nats"] == pytest.approx(-right[counts].mean(), rel=1e-6)
    assert found["label_accuracy"] == pytest.approx((log_p.argmax(-1) == batch.labels)[counts].mean())


def test_the_curve_is_on_fewer_rows(case):
    _, params, evaluate, found = case
    assert evaluate(params, "curve")["rows"] < found["rows"]


def test_it_does_not_depend_on_batch_size_mesh_or_packing(case, data):
    config, params, _, expected = case
    packed = dataclasses.replace(config, data=dataclasses.replace(config.data, packing="best_fit"), batch_size=3, seed=5)
    evaluate = evaluator_of(packed, data, devices=8, rows=5)  # eight rows a call, one on each device, where it was sixteen on one
    params = jax.device_put(params, build(config.model).shardings(make_mesh(MeshConfig())))
    found = evaluate(params, "final")
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-6), name


def test_held_out_rows_without_a_target_are_refused(tmp_path):
    """A pair longer than a row leaves the piece with the separator: here it ends before the target."""
    config = apply_overrides(CONFIGS["t5"], ["data.objective=pairs", "data.packing=best_fit"])
    long = [f"{i:031d}\tb" for i in range(40)]
    held = pipeline.build(config.data, [Corpus(long, long[:9])], str(tmp_path), quiet)
    with pytest.raises(UserError, match="objective pairs"):
        evaluator_of(config, held)({}, "final")


def test_architectures_of_one_vocabulary_are_asked_for_the_same_targets(data):
    """Their uniform predictions cost the same nats: zero weights make every logit 0."""
    found = []
    for architecture in ("encoder_decoder", "prefix_lm", "decoder"):
        config = apply_overrides(CONFIGS["t5"], [f"model.architecture={architecture}"])
        zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), build(config.model).abstract())
        found.append(evaluator_of(config, data)(zeros, "final"))
    assert found[0]["nats_per_token"] == pytest.approx(np.log(268), rel=1e-6)
    for other in found[1:]:
        assert other == pytest.approx(found[0], rel=1e-6)
