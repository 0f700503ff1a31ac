"""Runs of two processes against the same runs of one: rows and weights across them, checkpoints, a full disk, and a signal.

All are trained by one launch, and `make test` has one program for them: starting a process and compiling take longer than such a run.
`make hosts` crosses every other axis of the mesh too.
"""

import dataclasses
import json
import os
import signal
import types
from pathlib import Path

import jax
import numpy as np
import pytest
from hosts.starting import ROOT, STEPS, TOKENS, ended, metrics_of, record_of, small, started, underway

from lm import runner
from lm.config import apply_overrides, to_dict
from lm.train import checkpoint, manifest

EVERY, FULL = 3, 2  # steps between checkpoints; after so many the disk is full
SAVED = EVERY * FULL
LONG = 4000  # steps of a run that is not to end by itself
SPLIT = ["mesh.fsdp=2", "integrity.every_steps=4", "integrity.replay_steps=2"]  # rows and most weights over the processes
MESHES = {}
ALL = os.environ.get("HOSTS") == "all"
if ALL:
    MESHES["stage"] = ["mesh.fsdp=1", "mesh.stage=2"]
    MESHES["replicas"] = ["mesh.fsdp=1"]
    MESHES["context"] = ["mesh.fsdp=1", "mesh.context=2"]
    MESHES["tensor"] = ["mesh.fsdp=1", "mesh.tensor=2"]
    MESHES["micro"] = ["execution.micro_batches=2"]
    MESHES["ring"] = ["mesh.fsdp=1", "mesh.context=2", "execution.context_attention=ring"]
BERT = ["model.architecture=encoder", "data.objective=masked", "data.objective.next_sentence=false", f"train_tokens={3 * TOKENS}"]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Work directories by name, and how both processes ended."""
    folder = tmp_path_factory.mktemp("hosts")
    base, build = small(folder, *SPLIT, f"checkpoint.every_steps={EVERY}", "checkpoint.patience_minutes=0"), runner.build
    at = types.SimpleNamespace(folder=folder, **{name: folder / name for name in ("one", "two", "moved", "stage", "stage_moved", "long")})
    two = {"config": base, "workdir": at.two}
    runs = [
        {**two, "full_disk": FULL, "copy": str(at.moved)},
        two,
        {"config": dataclasses.replace(base, seed=5), "workdir": at.two},
        *({"config": apply_overrides(base, changes), "workdir": folder / name} for name, changes in MESHES.items()),
        {"config": dataclasses.replace(base, train_tokens=LONG * TOKENS), "workdir": at.long},
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "build", lambda config, devices=None: build(config, jax.devices()[:2] if devices is None else devices))
        runner.train_run(base, at.one)
        if ALL:
            at.bert, at.bert_one = folder / "bert", folder / "bert_one"
            bert = apply_overrides(base, BERT)
            runner.train_run(bert, at.bert_one)
            stage = {"config": apply_overrides(base, MESHES["stage"]), "workdir": at.stage}
            runs[3:3] = [{"config": bert, "workdir": at.bert}, {**stage, "full_disk": FULL, "copy": str(at.stage_moved)}]
        path = folder / "runs.json"
        path.write_text(json.dumps([{**run, "config": to_dict(run["config"]), "workdir": str(run["workdir"])} for run in runs]))
        with started(ROOT / "tests/hosts/several_runs.py", path, processes=2, devices=2, peer_timeout=60) as children:
            underway(at.long, children)
            children[1].send_signal(signal.SIGTERM)
            at.ended = ended(children)
        for moved in (at.moved, at.stage_moved) if ALL else (at.moved,):
            runner.train_run(base, moved)
    at.said = [[json.loads(line) for line in out.splitlines() if line.startswith('"')] for _, out, _ in at.ended]
    return at


def test_arrays_that_are_split_over_processes_have_checksums(found):
    for folder in (found.two / "checkpoints").iterdir():
        arrays = json.loads((folder / "meta.json").read_text())["arrays"]
        assert manifest.read(folder)["arrays"].keys() == arrays.keys()
    assert checkpoint.main(["verify", str(found.two)]) == 0


def test_steps_of_two_processes_are_repeated_bit_for_bit(found):
    checked = record_of(found.two)["integrity"]
    assert (checked["to"], checked["replay_steps"]) == (STEPS, 2)
    assert 0 < checked["share_with_copies"] < 1
    assert checked["replayed_steps"] >= 2 * (STEPS - SAVED) // EVERY


def assert_close(workdir: Path, expected: Path):
    """The same loss at every step and in the end, to the rounding of other orders of sums that training has carried on."""
    mine, theirs = metrics_of(workdir), metrics_of(expected)
    assert [row["step"] for row in mine] == list(range(1, STEPS + 1))
    np.testing.assert_allclose([row["loss"] for row in mine], [row["loss"] for row in theirs], rtol=1e-5)
    mine, theirs = record_of(workdir), record_of(expected)
    assert mine["tokens"] == theirs["tokens"]
    assert mine["id"] == theirs["id"]
    assert mine["final"]["nats_per_byte"] == pytest.approx(theirs["final"]["nats_per_byte"], rel=1e-5)


def assert_same(workdir: Path, expected: Path, *, resumed_at=None):
    """Bit for bit: a sum of two does not depend on its order."""
    assert metrics_of(workdir) == metrics_of(expected)
    mine, theirs = record_of(workdir), record_of(expected)
    for part in ("id", "status", "steps", "tokens", "flops", "curve", "final"):
        assert mine[part] == theirs[part], part
    assert [resume["step"] for resume in mine["resumes"]] == ([] if resumed_at is None else [resumed_at])


def test_two_processes_continue_and_are_as_one(found):
    assert_same(found.two, found.one, resumed_at=SAVED)
    assert [record_of(workdir)["environment"]["processes"] for workdir in (found.one, found.two)] == [1, 2]


def test_one_process_continues_what_two_began(found):
    assert_same(found.moved, found.one, resumed_at=SAVED)


@pytest.mark.skipif(not ALL, reason="starts processes for longer than make test has: make hosts runs it")
def test_likelihood_of_pairs_is_the_same_by_two(found):
    assert_same(found.bert, found.bert_one)


@pytest.mark.parametrize("mesh", MESHES)
def test_any_axis_may_cross_processes(found, mesh):
    assert_close(found.folder / mesh, found.one)


@pytest.mark.skipif(not ALL, reason="starts processes for longer than make test has: make hosts runs it")
def test_a_pipeline_over_two_processes_continues_there_and_on_one(found):
    for workdir in (found.stage, found.stage_moved):
        assert_close(workdir, found.one)
        assert [resume["step"] for resume in record_of(workdir)["resumes"]] == [SAVED]


def test_a_full_disk_is_an_error_of_both_and_neither_waits(found):
    assert found.said[0] == found.said[1]
    full = [0, 4] if ALL else [0]  # before the same run goes on; 2 is another run in its directory
    assert all("0 bytes free" in found.said[0][i] for i in full)
    assert {said for i, said in enumerate(found.said[0]) if i not in (*full, 2)} == {"completed"}


def test_another_run_is_refused_by_both(found):
    assert "holds another run (seed: 0 -> 5)" in found.said[0][2]
    assert found.said[1][2] == found.said[0][2]


def test_a_signal_to_one_stops_all_at_one_step_and_saves(found):
    assert [status for status, *_ in found.ended] == [143, 143], found.ended
    steps = record_of(found.long)["steps"]
    assert 0 < steps < LONG
    assert f"{steps:08d}" in [folder.name for folder in (found.long / "checkpoints").iterdir()]
    assert f"stopped at step {steps}" in found.ended[0][1]
