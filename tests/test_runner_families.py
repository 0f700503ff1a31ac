"""Kinds of models under objectives of their own, end to end: they learn, resume bit for bit, are evaluated alike; bad pairs are refused."""

import numpy as np
import pytest

from lm import runner
from lm.config import apply_overrides
from lm.errors import UserError
from lm.evals.__main__ import evaluate_loss
from lm.run import report
from lm.train import checkpoint, metrics
from lm.train.build import build
from lm.train.config import RunConfig
from lm.train.derived import row_of
from lm.train.placement import abstract_state
from lm.train.record import read
from tests.small_run import on_devices, streams_that_break, text_files

STEPS, ROWS, LENGTH, SAVED, BROKEN = 24, 8, 32, 12, 17
COMMON = [
    f"data.sequence_length={LENGTH}", f"train_tokens={STEPS * ROWS * LENGTH}", f"batch_size={ROWS}",
    "evaluation.documents_bytes=1500", "evaluation.curve_bytes=600", "evaluation.points_per_decade=1", "evaluation.stride=16",
    "log.tensorboard=false", "log.every_steps=4", f"checkpoint.every_steps={SAVED}", "model.d_model=16", "model.num_layers=1",
    "model.attention.num_heads=1", "model.mlp.d_ff=32", "optim.learning_rate=2e-2", "model.max_length=64",
]  # fmt: skip
T5 = ["model.architecture=encoder_decoder", "model.positions=relative", "data.objective=span_corruption", "data.objective.sentinels=9"]
ADAFACTOR = ["optim.optimizer=adafactor", "optim.optimizer.smallest_factored=8", "optim.schedule=rsqrt", "optim.clip_norm=none"]
BERT = ["model.architecture=encoder", "data.objective=masked", "model.outputs.0.name=next_sentence", "model.outputs.0.pooled=true"]
FAMILIES = {
    "t5": [*T5, *ADAFACTOR, "model.vocab_size=268", "optim.learning_rate=0.3", "label_smoothing=0.1"],
    "prefix": ["model.architecture=prefix_lm", "model.positions=learned", "data.objective=prefix", "model.vocab_size=259"],
    "bert": [*BERT, "model.token_types=2", "model.vocab_size=261"],
    "fim": ["data.objective=fill_in_the_middle", "model.vocab_size=262", "execution.steps_per_dispatch=4"],
}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return apply_overrides(RunConfig(), [*text_files(tmp_path_factory.mktemp("families"), documents=40, lines=100), *COMMON])


@pytest.fixture(scope="module", autouse=True)
def one_device():
    """Meshes are the business of tests/layouts."""
    with on_devices(1):
        yield


@pytest.fixture(scope="module", params=FAMILIES)
def finished(request, base, tmp_path_factory):
    config = apply_overrides(base, FAMILIES[request.param])
    workdir = tmp_path_factory.mktemp(request.param) / "run"
    return request.param, config, workdir, runner.train_run(config, workdir)


def test_it_learns_and_says_what_its_loss_is_of(finished, capsys):
    name, config, workdir, record = finished
    rows = metrics.read(workdir)
    assert read(workdir) == record
    assert (record["status"], record["steps"], record["likelihood"]) == ("completed", STEPS, "pairs")
    assert rows[-1]["loss"] < rows[0]["loss"] - 0.3
    assert record["final"]["nats_per_token"] < np.log(config.model.vocab_size) - 0.5
    assert record["curve"][-1]["nats_per_token"] > 0
    assert record["tokens"]["document"] == STEPS * ROWS * LENGTH
    row = row_of(config)
    streams = {"t5": (row.length, row.encoder_length), "bert": (0, row.length)}.get(name, (row.length, 0))
    assert (record["tokens"]["decoder_stream"], record["tokens"]["encoder_stream"]) == tuple(STEPS * ROWS * n for n in streams)
    assert ("label_loss" in rows[0]) == ("label_accuracy" in record["final"]) == (name == "bert")
    assert ("6nd_naive" in record["flops"]) == (name == "t5")
    assert ("cross xla" in record["environment"]["attention"]) == (name == "t5")
    assert report(record, workdir) == 0
    assert "nats/target" in capsys.readouterr().out


def test_its_evaluation_repeats(finished):
    _, _, workdir, record = finished
    found = evaluate_loss(workdir)
    assert found["likelihood"] == "pairs"
    assert {name: found[name] for name in record["final"]} == record["final"]


def test_it_resumes_bit_for_bit(finished, tmp_path):
    _, config, straight, record = finished
    with streams_that_break(at=BROKEN), pytest.raises(OSError, match="gone"):
        runner.train_run(config, tmp_path)
    assert checkpoint.steps(tmp_path) == [SAVED]
    again = runner.train_run(config, tmp_path)
    assert again["resumes"][0]["step"] == SAVED
    for key in ("final", "curve", "tokens", "flops"):
        assert again[key] == record[key], key
    parts = build(config)
    target = abstract_state(config, parts.model, parts.mesh)
    a, b = (checkpoint.named_arrays(checkpoint.restore(folder, target).state) for folder in (straight, tmp_path))
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ([*T5[2:], "model.architecture=encoder"], "span_corruption .*encoder"),
        (["model.architecture=encoder_decoder"], "next_token .*encoder_decoder"),
        (["data.objective=masked"], "masked .*decoder"),
        ([*BERT[:2], "model.vocab_size=261"], "model.outputs"),
        ([*FAMILIES["bert"], "model.token_types=1"], "model.token_types=1"),
        ([*FAMILIES["bert"], "model.vocab_size=260"], "model.vocab_size=261"),
        ([*FAMILIES["bert"], "model.vocabulary_head=false"], "model.vocabulary_head=true"),
        ([*FAMILIES["t5"], "model.vocab_size=259"], "model.vocab_size=268"),
        ([*FAMILIES["t5"], "data.objective.sentinels=1"], "sentinels"),
        ([*FAMILIES["t5"], "optim.beta2=0.9"], "optim.beta2"),
        ([*FAMILIES["prefix"], "model.max_length=31"], "model.max_length=31"),
        ([*FAMILIES["fim"], "model.positions=learned", "model.max_length=32"], "fill_in_the_middle .*48 positions"),
        ([*FAMILIES["fim"], "mesh.context=8", "data.objective.documents_per_row=1"], "36 positions.* 2 x mesh.context=16"),
        ([*FAMILIES["prefix"], "mesh.context=8"], "31 predicted positions.* mesh.context"),
        (["data.objective=pairs"], "data.packing=best_fit"),
        ([*FAMILIES["prefix"], "execution.attention=cudnn"], "cudnn"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_in_one_line(base, changes, message, tmp_path):
    with on_devices(8), pytest.raises(UserError, match=message) as caught:
        runner.train_run(apply_overrides(base, changes), tmp_path / "run")
    assert "\n" not in str(caught.value)
