"""Runs of two processes against the same runs of one: every axis of the mesh across them, checkpoints, and what breaks on one of them.

All are trained by two launches, because starting a process takes longer than such a run.
"""

import dataclasses
import json
import os
import shutil
import types
from pathlib import Path

import jax
import numpy as np
import pytest
from hosts.starting import ROOT, STEPS, TOKENS, ended, metrics_of, record_of, small, started

from lm import runner
from lm.config import apply_overrides, to_dict

EVERY, FULL = 3, 2  # steps between checkpoints; after so many the disk is full
SAVED = EVERY * FULL
MESHES = {"context": ["mesh.context=2"], "stage": ["mesh.stage=2"]}
ALL = os.environ.get("HOSTS") == "all"
if ALL:
    MESHES["tensor"] = ["mesh.tensor=2"]
    MESHES["fsdp"] = ["mesh.fsdp=2", "execution.micro_batches=2"]
    MESHES["ring"] = ["mesh.context=2", "execution.context_attention=ring"]
BERT = ["model.architecture=encoder", "data.objective=masked", "data.objective.next_sentence=false", f"train_tokens={3 * TOKENS}"]


def launched(runs, folder):
    """How two processes of a device each end, after these runs."""
    path = folder / "runs.json"
    path.write_text(json.dumps([{**run, "config": to_dict(run["config"]), "workdir": str(run["workdir"])} for run in runs]))
    with started(ROOT / "tests/hosts/several_runs.py", path, processes=2, devices=2) as children:
        return ended(children)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Work directories by name, and what both launches said."""
    folder, patch = tmp_path_factory.mktemp("hosts"), pytest.MonkeyPatch()
    base, build = small(folder, f"checkpoint.every_steps={EVERY}"), runner.build
    bert = apply_overrides(base, BERT)
    by_name = {name: apply_overrides(base, changes) for name, changes in MESHES.items()}
    at = types.SimpleNamespace(
        folder=folder, **{name: folder / name for name in (*MESHES, "one", "bert_one", "two", "bert", "cut", "moved")}
    )
    with patch.context() as patched:
        patched.setattr(runner, "build", lambda config, devices=None: build(config, jax.devices()[:2] if devices is None else devices))
        runner.train_run(base, at.one)
        if ALL:
            runner.train_run(bert, at.bert_one)
        full = {"full_disk": FULL}
        at.first = launched(
            [
                {"config": base, "workdir": at.two},
                *([{"config": bert, "workdir": at.bert}] if ALL else []),
                *({"config": by_name[name], "workdir": folder / name} for name in MESHES if name != "stage"),
                {"config": base, "workdir": at.cut, **full},
                {"config": by_name["stage"], "workdir": at.stage, **full},
                {"config": dataclasses.replace(base, seed=5), "workdir": at.two},
            ],
            folder,
        )
        shutil.copytree(at.stage, at.moved)
        runner.train_run(base, at.moved)
    at.second = launched(
        [
            {"config": base, "workdir": at.cut},
            {"config": by_name["stage"], "workdir": at.stage},
            {"config": base, "workdir": folder / "broken", "evaluation": 1},
        ],
        folder,
    )
    return at


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


def test_two_processes_are_as_one(found):
    assert_same(found.two, found.one)
    assert [record_of(workdir)["environment"]["processes"] for workdir in (found.one, found.two)] == [1, 2]


@pytest.mark.skipif(not ALL, reason="starts processes for longer than make test has: make hosts runs it")
def test_likelihood_of_pairs_is_the_same_by_two(found):
    assert_same(found.bert, found.bert_one)


@pytest.mark.parametrize("mesh", [name for name in MESHES if name != "stage"])
def test_any_axis_may_cross_processes(found, mesh):
    assert_close(found.folder / mesh, found.one)


def test_two_processes_continue_bit_for_bit(found):
    assert_same(found.cut, found.one, resumed_at=SAVED)


def test_a_pipeline_over_two_processes_continues_there_and_on_one(found):
    for workdir in (found.stage, found.moved):
        assert_close(workdir, found.one)
        assert [resume["step"] for resume in record_of(workdir)["resumes"]] == [SAVED]


def test_a_full_disk_is_an_error_of_both_and_neither_waits(found):
    says = [[json.loads(line) for line in out.splitlines() if line.startswith('"')] for _, out, _ in found.first]
    assert says[0] == says[1]
    cut, stage, refused = says[0][-3:]
    assert "0 bytes free" in cut
    assert "0 bytes free" in stage
    assert says[0][:-3] == ["completed"] * (len(MESHES) + ALL)
    assert "holds another run (seed: 0 -> 5)" in refused


def test_a_refusal_is_one_line_of_both(found):
    assert [status for status, *_ in found.first] == [2, 2], found.first
    for _, _, errors in found.first:
        assert "holds another run (seed: 0 -> 5)" in errors.splitlines()[-1]
        assert "Traceback" not in errors


def test_an_error_on_one_ends_the_other_by_its_name(found):
    (first, _, says), (second, _, says_itself) = found.second
    assert (first, second) == (75, 2)
    assert says_itself.splitlines()[-1] == "error: no evaluation here"
    assert says.splitlines()[-1].startswith("error: process 1 of 2 (")
    assert "ended: no evaluation here; the same command continues" in says.splitlines()[-1]
    assert "Traceback" not in says + says_itself
    assert record_of(found.folder / "broken")["status"] == "running"
