"""One run end to end, on the real parts: text files in, record out; resumed, repeated and refused."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lm import runner
from lm.config import apply_overrides, identity, to_dict
from lm.errors import UserError
from lm.evals.__main__ import evaluate_loss
from lm.train.config import RunConfig

ROOT = Path(__file__).resolve().parent.parent
STEPS = 12


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """A model of one layer on a hundred lines of text a document, 8 rows of 32 bytes a step."""
    folder = tmp_path_factory.mktemp("runner")
    lines = [f"the {i}th line says that {i} and {i * i % 97} are numbers\n" for i in range(4000)]
    for part in range(40):
        (folder / f"{part:02d}.txt").write_text("".join(lines[part * 100 : part * 100 + 100]))
    paths = ",".join(str(path) for path in sorted(folder.glob("*.txt")))
    return apply_overrides(
        RunConfig(),
        [
            f"data_dir={folder / 'data'}",
            "data.components.0.corpus=text_files",
            f"data.components.0.paths={paths}",
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


@pytest.fixture(scope="module")
def finished(config, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run") / "one"
    lines = []
    return workdir, runner.train_run(config, workdir, log=lines.append, table=True), lines


def test_a_run_leaves_a_whole_record(config, finished):
    workdir, record, lines = finished
    assert json.loads((workdir / "run.json").read_text()) == record
    assert (record["status"], record["reason"], record["steps"]) == ("completed", None, STEPS)
    assert record["id"] == identity(config, fingerprint=record["data"]["fingerprint"])
    assert record["tokens"]["decoder_stream"] == STEPS * 8 * 32
    assert record["flops"]["matmul_causal"] < record["flops"]["matmul_full"]
    assert record["final"]["nats_per_byte"] < 5.6  # below the uniform distribution over 259 ids
    assert record["environment"]["attention"] == "xla"
    assert any("decoder/block_00/attention/query/kernel" in line for line in lines)


def test_a_run_on_padded_rows_counts_its_targets_as_document_tokens(config, tmp_path):
    padded = runner.train_run(apply_overrides(config, ["data.packing=best_fit"]), tmp_path)
    assert padded["status"] == "completed"
    assert padded["tokens"]["document"] == padded["tokens"]["loss"] <= padded["tokens"]["decoder_stream"] == STEPS * 8 * 32


def test_the_command_repeats_the_final_evaluation(finished, tmp_path):
    workdir, record, _ = finished
    found = evaluate_loss(workdir)
    assert (found["run"], found["step"], found["data"]) == (record["id"], STEPS, record["data"]["fingerprint"])
    assert {name: found[name] for name in record["final"]} == record["final"]
    with pytest.raises(UserError, match="--data_dir"):
        evaluate_loss(workdir, data_dir=str(tmp_path))
    with pytest.raises(UserError, match="holds no run"):
        evaluate_loss(tmp_path)


def test_a_finished_run_is_not_trained_again(config, finished):
    workdir, record, _ = finished
    before, lines = (workdir / "run.json").stat().st_mtime_ns, []
    assert runner.train_run(config, workdir, log=lines.append) == record
    assert (workdir / "run.json").stat().st_mtime_ns == before
    assert "nothing to do" in lines[-1]


def test_a_work_directory_of_another_configuration_is_refused_by_naming_the_fields(config, finished):
    other = apply_overrides(config, ["optim.learning_rate=1e-3", "seed=1"])
    with pytest.raises(UserError, match=r"optim.learning_rate: 0.01 -> 0.001; seed: 0 -> 1"):
        runner.train_run(other, finished[0])


def test_execution_may_change(config, finished):
    workdir, record, _ = finished
    assert runner.train_run(apply_overrides(config, ["log.every_steps=3", "mesh.data=4", "mesh.fsdp=2"]), workdir) == record


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("model.vocab_size=100", "vocab_size=259"),
        ("train_tokens=100", "train_tokens"),
        ("train_tokens=1e9", "allow_epochs"),
        ("batch_size=7", "batch_size=7"),
        ("mesh.fsdp=3", "mesh"),
        ("model.attention.num_kv_heads=3", "num_kv_heads=3"),
        ("execution.attention=cudnn", "cudnn attention"),
        ("data.components.0.paths=nowhere.txt", "nowhere.txt does not exist"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(config, change, message, tmp_path):
    with pytest.raises(UserError, match=message) as caught:
        runner.train_run(apply_overrides(config, [change]), tmp_path / "run")
    assert "\n" not in str(caught.value)


def test_a_work_directory_that_cannot_be_written_is_refused_before_anything_costly(config, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(runner, "prepare_data", lambda *_: pytest.fail("too late"))
    with pytest.raises(UserError, match=r"cannot write .*file"):
        runner.train_run(config, tmp_path / "file")


def test_configurations_that_differ_in_arguments_of_the_step_share_a_program(config, monkeypatch):
    monkeypatch.setattr(runner, "compile_program", lambda *_: object())
    runner._program.cache_clear()
    same = apply_overrides(config, ["optim.learning_rate=1", "seed=3", "train_tokens=1e6", "optim.warmup_tokens=9", "data_dir=x"])
    assert runner.build(same).program() is runner.build(config).program()
    assert runner.build(apply_overrides(config, ["optim.beta2=0.9"])).program() is not runner.build(config).program()
    runner._program.cache_clear()


def test_ctrl_c_loses_nothing(config, finished, tmp_path):
    """The state is saved where the run stopped; one line says how to go on. (That it goes on to the same losses: tests/train.)"""
    steps = 4000
    (tmp_path / "c.json").write_text(
        json.dumps(to_dict(apply_overrides(config, [f"train_tokens={steps * 256}", "data.allow_epochs=true"])))
    )
    command = [sys.executable, "-m", "lm.run", f"--config={tmp_path / 'c.json'}", f"--workdir={tmp_path / 'run'}"]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    metrics = tmp_path / "run" / "metrics.jsonl"
    deadline = time.monotonic() + 90
    while not (metrics.exists() and metrics.stat().st_size) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert "continues" in errors
    stopped = json.loads((tmp_path / "run" / "run.json").read_text())
    assert 0 < stopped["steps"] < steps
    assert (tmp_path / "run" / "checkpoints" / f"{stopped['steps']:08d}").is_dir()


def test_a_record_from_before_a_field_existed_is_of_the_same_run(config, finished, tmp_path):
    record = json.loads((finished[0] / "run.json").read_text())
    del record["experiment"]["model"]["logit_softcap"], record["execution"]["log"]["layer_norms"]
    (tmp_path / "run.json").write_text(json.dumps(record))
    assert runner.train_run(config, tmp_path) == record
