"""One run end to end, on the real parts: text files in, record out; resumed, repeated and refused."""

import contextlib
import dataclasses
import io
import json
import os
import signal
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from lm import replay, run, runner
from lm.config import apply_overrides, identity, to_dict
from lm.data.stream import TrainStream
from lm.errors import UserError, run_cli
from lm.evals.__main__ import evaluate_loss
from lm.evals.__main__ import main as evaluate_command
from lm.train import bundle, record
from lm.train.config import RunConfig
from tests.small_run import text_files

ROOT = Path(__file__).resolve().parent.parent
STEPS = 12


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """A model of one layer on a hundred lines of text a document, 8 rows of 32 bytes a step."""
    return apply_overrides(
        RunConfig(),
        [
            *text_files(tmp_path_factory.mktemp("runner"), documents=40, lines=100),
            "data.sequence_length=32",
            f"train_tokens={STEPS * 8 * 32}",
            "evaluation.documents_bytes=2000",
            "evaluation.curve_bytes=1000",
            "evaluation.stride=16",
            "log.tensorboard=false",
            "model.vocab_size=259",
            "model.d_model=16",
            "model.num_layers=1",
            "model.max_length=32",
            "model.attention.num_heads=1",
            "model.mlp.d_ff=32",
            "optim.learning_rate=1e-2",
        ],
    )


def command_line(config, folder):
    """The arguments with which lm.run trains this configuration in this folder."""
    (folder / "config.json").write_text(json.dumps(to_dict(config)))
    return [f"--config={folder / 'config.json'}", f"--workdir={folder / 'run'}"]


def frames_of_the_project():
    """The functions of lm on the stack, outermost first."""
    frame, names = sys._getframe(1), []
    while frame is not None:
        if frame.f_code.co_filename.startswith(str(ROOT / "lm")):
            names.append(frame.f_code.co_name)
        frame = frame.f_back
    return names[::-1]


@pytest.fixture(scope="module")
def finished(config, tmp_path_factory):
    """(work directory, record, printed text, frames of the project at the first call of jax.value_and_grad), by the command itself."""
    folder, seen, value_and_grad = tmp_path_factory.mktemp("one"), [], jax.value_and_grad

    def spy(*arguments, **options):
        seen.append(frames_of_the_project())
        return value_and_grad(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as printed:
        patch.setattr(jax, "value_and_grad", spy)
        assert run.main(command_line(config, folder)) == 0
    return folder / "run", json.loads((folder / "run" / "run.json").read_text()), printed.getvalue(), seen


def test_a_run_leaves_a_whole_record(config, finished):
    _, record, printed, _ = finished
    assert (record["status"], record["reason"], record["steps"]) == ("completed", None, STEPS)
    assert record["id"] == identity(config, fingerprint=record["data"]["fingerprint"])
    assert record["tokens"]["decoder_stream"] == STEPS * 8 * 32
    assert record["flops"]["matmul_causal"] < record["flops"]["matmul_full"]
    assert record["final"]["nats_per_byte"] < 5.6  # below the uniform distribution over 259 ids
    assert record["environment"]["attention"] == "xla"
    assert "decoder/block_00/attention/query/kernel" in printed
    assert f"{record['final']['nats_per_byte']:.4f} nats/byte" in printed


def test_the_gradient_is_eight_calls_from_the_command(finished):
    frames = finished[3]
    assert frames
    assert all(names[0] == "main" and len(names) <= 8 for names in frames), frames


def test_a_run_on_padded_rows_counts_its_targets_as_document_tokens_and_shares_the_program(config, finished, tmp_path):
    """Packing, rate, seed and horizon are no part of the shape for which a process compiles once."""
    changes = ["data.packing=best_fit", "optim.learning_rate=1e-3", "seed=3", "optim.warmup_tokens=9"]
    padded = runner.train_run(apply_overrides(config, changes), tmp_path)
    assert padded["status"] == "completed"
    assert padded["tokens"]["document"] == padded["tokens"]["loss"] <= padded["tokens"]["decoder_stream"] == STEPS * 8 * 32
    assert padded["seconds"]["compile"] == finished[1]["seconds"]["compile"]


def test_the_command_repeats_the_final_evaluation(finished, tmp_path, capsys):
    workdir, record, *_ = finished
    assert evaluate_command(["loss", str(workdir), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["run"], found["step"], found["data"]) == (record["id"], STEPS, record["data"]["fingerprint"])
    assert {name: found[name] for name in record["final"]} == record["final"]
    with pytest.raises(UserError, match="--data_dir"):
        evaluate_loss(workdir, data_dir=str(tmp_path))
    with pytest.raises(UserError, match=r"run\.json"):
        evaluate_loss(tmp_path)


def test_a_finished_run_is_not_trained_again_whatever_its_execution(config, finished):
    workdir, record, *_ = finished
    before, lines = (workdir / "run.json").stat().st_mtime_ns, []
    assert (
        runner.train_run(apply_overrides(config, ["log.every_steps=3", "mesh.data=4", "mesh.fsdp=2"]), workdir, log=lines.append) == record
    )
    assert (workdir / "run.json").stat().st_mtime_ns == before
    assert "completed" in lines[-1]


def test_a_record_from_before_a_field_existed_is_of_the_same_run(config, finished, tmp_path):
    record = json.loads((finished[0] / "run.json").read_text())
    del record["experiment"]["model"]["logit_softcap"], record["execution"]["log"]["layer_norms"]
    (tmp_path / "run.json").write_text(json.dumps(record))
    assert runner.train_run(config, tmp_path) == record


def test_a_work_directory_of_another_configuration_is_refused_by_naming_the_fields(config, finished):
    other = apply_overrides(config, ["optim.learning_rate=1e-3", "seed=1"])
    with pytest.raises(UserError, match=r"optim\.learning_rate.*seed"):
        runner.train_run(other, finished[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("model.vocab_size=100", "vocab_size=259"),
        ("train_tokens=100", "train_tokens"),
        ("train_tokens=1e9", "allow_epochs"),
        ("batch_size=7", "batch_size=7"),
        ("mesh.fsdp=3", "mesh"),
        ("model.attention.num_kv_heads=3", "num_kv_heads=3"),
        ("execution.attention=cudnn", "cudnn"),
        ("data.components.0.paths=nowhere.txt", "nowhere.txt"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(config, change, message, tmp_path):
    with pytest.raises(UserError, match=message) as caught:
        runner.train_run(apply_overrides(config, [change]), tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_work_directory_that_cannot_be_written_is_refused_before_anything_costly(config, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(runner, "prepare_data", lambda *_: pytest.fail("too late"))
    with pytest.raises(UserError, match="file"):
        runner.train_run(config, tmp_path / "file")


def test_a_closed_standard_output_ends_no_run(config, finished, tmp_path, monkeypatch, capsys):
    """`| head` has read enough before the first step: the run is the same without its log."""
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w", encoding="utf-8") as closed:
        monkeypatch.setattr(sys, "stdout", closed)
        assert run.main(command_line(config, tmp_path)) == 0
    found = json.loads((tmp_path / "run" / "run.json").read_text())
    assert found["final"] == finished[1]["final"]
    assert capsys.readouterr().err.count("Broken pipe") == 1


def test_ctrl_c_loses_nothing(config, finished, tmp_path, monkeypatch, capsys):
    """The state is saved where the run stopped; one line says how to go on. (That it goes on to the same losses: tests/train.)"""
    iterate = TrainStream.iterate

    def interrupted(self, start, stop):
        for k, batch in enumerate(iterate(self, start, stop), start):
            if k == 5:
                os.kill(os.getpid(), signal.SIGINT)
            yield batch

    monkeypatch.setattr(TrainStream, "iterate", interrupted)
    with pytest.raises(SystemExit) as ended:
        run_cli(lambda: run.main(command_line(config, tmp_path)))
    assert ended.value.code == 130
    errors = capsys.readouterr().err
    assert "Traceback" not in errors
    assert "continues" in errors
    stopped = json.loads((tmp_path / "run" / "run.json").read_text())
    assert 5 <= stopped["steps"] < STEPS
    assert (tmp_path / "run" / "checkpoints" / f"{stopped['steps']:08d}").is_dir()


def test_a_row_with_an_unknown_id_ends_a_run_or_is_left_out_by_the_policy_of_its_text(config, tmp_path, monkeypatch):
    """Row 5 of batch 2: its step is a bad one, and what reproduces it is kept."""
    with_known_ids = TrainStream._with_known_ids

    def changed(self, batch, rows, component):
        tokens = np.where((rows == 2 * 8 + 5)[:, None], 300, batch.tokens)
        return with_known_ids(self, dataclasses.replace(batch, tokens=tokens), rows, component)

    monkeypatch.setattr(TrainStream, "_with_known_ids", changed)
    with pytest.raises(UserError, match=r"row 5 of batch 2 .* 300"):
        runner.train_run(config, tmp_path / "refused")
    found = runner.train_run(apply_overrides(config, ["data.components.0.unusable=skip"]), tmp_path / "left")
    assert (found["status"], [one["step"] for one in found["bad_steps"]["listed"]]) == ("completed", [3])
    step, (batch,) = bundle.read(bundle.path_of(tmp_path / "left", 3, 2))
    assert step["batch"] == 2
    assert np.flatnonzero((batch["tokens"] == 300).any(axis=1)).tolist() == [5]


@pytest.mark.parametrize(("bad", "start"), [(2, None), (9, 8)])
def test_a_bad_step_is_repeated_from_its_bundle(config, tmp_path, monkeypatch, capsys, bad, start):
    """A weight of row 5 is infinite in the process that trains; the text on disk is sound."""
    iterate = TrainStream.iterate

    def odd(self, first, last):
        for k, batch in zip(range(first, last), iterate(self, first, last), strict=True):
            if k == bad:
                weights = batch.weights.copy()
                weights[5, 7] = np.inf
                batch = dataclasses.replace(batch, weights=weights)
            yield batch

    config = apply_overrides(config, ["checkpoint.every_steps=4"])
    with monkeypatch.context() as patch:
        patch.setattr(TrainStream, "iterate", odd)
        found = runner.train_run(config, tmp_path / "run")
    assert (found["status"], found["bad_steps"]["count"]) == ("completed", 1)
    folder = bundle.path_of(tmp_path / "run", bad + 1, bad)
    assert bundle.read(folder)[0]["checkpoint"] == start
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert replay.main([str(folder)]) == 0
    said = capsys.readouterr().out
    assert f"step {bad + 1} on batch {bad}: loss nan, grad_norm nan, as recorded" in said
    assert "row 5 of 8: nan nats" in said
    assert "gives another batch" in said  # the text is not at fault
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    # Without the infinite weight it is another step, and that is told.
    np.savez(folder / "batch.npz", **{name: value for name, value in vars(batch_of_text(config, bad)).items() if value is not None})
    assert replay.main([str(folder)]) == 1
    assert "recorded were loss nan" in capsys.readouterr().out
    with pytest.raises(UserError, match=bundle.FOLDER):
        replay.main([str(tmp_path / "run")])


def batch_of_text(config, k):
    data = runner.prepare_data(config.data, config.data_dir, runner._silent)
    return TrainStream(data, config.data, config.batch_size, config.seed, vocab_size=config.model.vocab_size)[k]


def test_the_command_trains_a_diverged_run_on_when_it_is_asked_to(config, tmp_path, monkeypatch):
    iterate = TrainStream.iterate

    def odd(self, first, last):
        for k, batch in zip(range(first, last), iterate(self, first, last), strict=True):
            yield dataclasses.replace(batch, weights=batch.weights * np.float32(np.nan)) if k == 9 else batch

    command = command_line(apply_overrides(config, ["bad_steps.policy=stop", "checkpoint.every_steps=4"]), tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(TrainStream, "iterate", odd)
        assert run.main(command) == 1
    assert run.main(command) == 1
    assert run.main([*command, "--retry"]) == 0
    found = record.read(tmp_path / "run")
    assert (found["status"], found["steps"], found["resumes"][0]["step"]) == ("completed", 12, 8)


def test_a_cell_on_other_data_is_refused_before_it_trains(config, tmp_path, monkeypatch):
    monkeypatch.setattr(runner.loop, "train", lambda *_, **__: pytest.fail("it trains"))
    with pytest.raises(UserError, match="0123456789ab"):
        runner.train_cell(config, tmp_path / "0123456789ab" / "epoch-000001")
