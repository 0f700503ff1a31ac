"""Studies through a real SLURM of two virtual nodes: submitted once, preempted, queued again, cancelled, and through a node's end.

`make slurm` runs this; it needs root and Debian's slurm-wlm and munge, and takes two minutes. Most cells are trained by a function that
takes no time, since it is the queue that is tested.
"""

import contextlib
import dataclasses
import os
import pathlib
import random
import subprocess
import sys
import time

import cluster as clusters
import pytest

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "hosts"), str(HERE.parent.parent)]

import small_study  # noqa: E402
import starting  # noqa: E402

from launch import jobs, scheduled  # noqa: E402
from launch.backend import Kind, Request  # noqa: E402
from launch.local import LocalWorkers  # noqa: E402
from launch.slurm import Slurm  # noqa: E402
from lm import config as config_lib  # noqa: E402
from lm import files  # noqa: E402
from lm.errors import UserError  # noqa: E402
from lm.study import directory, gate, records  # noqa: E402
from lm.study import status as status_lib  # noqa: E402
from lm.study.rows import read_rows  # noqa: E402

pytestmark = pytest.mark.skipif(clusters.missing() is not None, reason=str(clusters.missing()))
BACKEND = Slurm(devices_per_node=1, notice=1, python=str(HERE / "pinned.sh"))


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    with contextlib.ExitStack() as stack:
        try:
            cluster = stack.enter_context(clusters.Cluster(tmp_path_factory.mktemp("slurm")))
        except (TimeoutError, OSError) as error:  # such as a container whose /etc/hosts is not its own
            pytest.skip(f"no SLURM can be started here: {error}")
        yield cluster


@pytest.fixture(autouse=True)
def _environment(slurm, monkeypatch):
    for name, value in slurm.environment.items():
        monkeypatch.setenv(name, value)
    paths = [str(HERE.parent), str(HERE.parent.parent), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    monkeypatch.setenv("FAKE_SECONDS", "0")
    monkeypatch.setenv("PINNED_PYTHON", sys.executable)  # sbatch hands the environment on
    yield
    slurm.run("scancel", "--user=root", "--full")
    _until(lambda: not slurm.run("squeue", "-h"))


@pytest.fixture
def root(tmp_path):
    small_study.planned(tmp_path / "s")
    gate.write_forecast(tmp_path / "s", {"losses": {}}, [])
    return tmp_path / "s"


def _until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def _apply(root, workers=2, backend=BACKEND, train=small_study.TRAIN):
    said = []
    scheduled.apply(root, backend, workers, said.append, train=train)
    return said


def _finish(root, seconds=60, workers=2, **how):
    """Submits what is missing until every cell has ended."""

    def ended():
        _apply(root, workers, **how)
        return status_lib.read_status(root).finished == len(directory.open_study(root)["cells"])

    _until(ended, seconds)


def _live(root):
    return BACKEND.jobs(jobs.key(root))


def _running(root):
    return [c for c in status_lib.read_status(root).cells if c.state == "running"]


def _restarts(slurm, job):
    """How often a job was queued again."""
    return int(slurm.run("scontrol", "show", "job", job).split("Restarts=")[1].split()[0])


def _results(root):
    return {row.id: (row.status, row.loss) for row in read_rows(root)}


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The losses of the undisturbed study, by the same function in this process."""
    import fake_train

    from lm.study import worker

    root = tmp_path_factory.mktemp("expected") / "s"
    small_study.planned(root)
    gate.write_forecast(root, {"losses": {}}, [])
    worker.work(root, fake_train.train, log=lambda line: None)
    return _results(root)


def test_an_array_is_submitted_once_and_trains_every_cell(slurm, root, expected):
    said = _apply(root)
    assert len(said) == 2  # workers of each stage
    ids = [job for submission in jobs.read(root) for job in submission.ids]
    assert {job.id for job in _live(root)} <= set(ids)
    assert not _apply(root)  # asked again, the queue holds them
    assert "afterany" in slurm.run("squeue", "-h", "-o", "%E")
    _until(lambda: not _live(root))
    assert _results(root) == expected
    assert not _apply(root)
    log = BACKEND.log(root, ids[0])
    assert " trained" in log.read_text()


@pytest.mark.parametrize("when", ["as it begins", "while it trains"])
def test_what_is_cancelled_leaves_its_cells_free(root, monkeypatch, when):
    monkeypatch.setenv("FAKE_SECONDS", "60")
    _apply(root)
    if when == "while it trains":
        _until(lambda: len(_running(root)) == 2)
    assert scheduled.cancel(root) == 4
    assert not _live(root)
    _until(lambda: not _running(root), 30)
    assert {c.state for c in status_lib.read_status(root).cells} <= {"pending", "preempted"}


def test_a_submission_whose_answer_is_lost_is_not_repeated(slurm, root, tmp_path, monkeypatch):
    """sbatch queues the jobs and says that it timed out, as it does on a busy cluster."""
    monkeypatch.setenv("FAKE_SECONDS", "60")
    sbatch = tmp_path / "bin" / "sbatch"
    sbatch.parent.mkdir()
    path = os.environ["PATH"]
    sbatch.write_text(f'#!/bin/sh\nPATH="{path}" sbatch "$@" >/dev/null\necho "Socket timed out on send/recv operation" >&2\nexit 1\n')
    sbatch.chmod(0o755)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", f"{sbatch.parent}:{path}")
        with pytest.raises(UserError, match="timed out"):
            _apply(root)
    assert [one.asked for one in jobs.read(root)] == [2]
    said = _apply(root)
    assert [line.split()[1] for line in said] == ["2"]  # workers of the second stage alone
    assert len(_live(root)) == 4
    assert sorted(job for one in jobs.read(root) for job in one.ids) == sorted(job.id for job in _live(root))
    assert scheduled.cancel(root) == 4


def test_a_preempted_worker_is_queued_again_and_no_failure(slurm, root, expected, monkeypatch):
    """A job of a partition of higher priority takes a node away from the running worker."""
    monkeypatch.setenv("FAKE_SECONDS", "2")
    _apply(root)
    _until(lambda: len(_running(root)) == 2)
    taken = [job.id for job in _live(root) if job.state == "running"]
    slurm.run("sbatch", "-p", "urgent", "-N2", "-n2", "-o", "/dev/null", "--wrap", "srun sleep 2")
    _until(lambda: all(_restarts(slurm, job) == 1 for job in taken))
    assert not [c for c in status_lib.read_status(root).cells if c.state == "failed"]
    monkeypatch.setenv("FAKE_SECONDS", "0")
    slurm.run("scancel", "--partition=main", "--user=root")
    _until(lambda: not _live(root))
    _finish(root)
    assert _results(root) == expected


def test_the_notice_before_the_time_limit_queues_a_worker_again(slurm, root, monkeypatch):
    monkeypatch.setenv("FAKE_SECONDS", "60")
    _apply(root, workers=1)
    _until(lambda: _running(root))
    job = next(job for job in _live(root) if job.state == "running")
    slurm.run("scancel", "--batch", "--signal=USR1", job.id)
    _until(lambda: _restarts(slurm, job.id) == 1)
    assert not [c for c in status_lib.read_status(root).cells if c.state == "failed"]


# In place of a worker: a second signal ends it at once, as it ends a worker, and process 0 needs longer to save than the other.
SAVING = """#!{python}
import os, pathlib, signal, sys, time
folder, process = pathlib.Path({folder!r}), os.environ["SLURM_PROCID"]

def save(number, frame):
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    time.sleep(1.0 if process == "0" else 0.1)
    (folder / f"saved.{{process}}").touch()
    sys.exit(128 + number)

for name in ("SIGTERM", "SIGUSR1"):
    signal.signal(getattr(signal, name), save)
(folder / f"began.{{process}}").touch()
time.sleep(100)
"""


def _saving(root, tmp_path, nodes=2):
    """Starts such a worker on one or both nodes and returns its job."""
    program = tmp_path / "saving.py"
    program.write_text(SAVING.format(python=sys.executable, folder=str(tmp_path)))
    program.chmod(0o755)
    backend = dataclasses.replace(BACKEND, python=str(program), partition="patient")
    (job,) = backend.submit(Request(root, jobs.key(root), 1, Kind(0, nodes), 1, root / "code", 60.0))
    _until(lambda: len(list(tmp_path.glob("began.*"))) == nodes)
    return job


def _is(slurm, job, state):
    return f"JobState={state}" in slurm.run("scontrol", "show", "job", job)


@pytest.mark.parametrize("nodes", [1, 2])
@pytest.mark.parametrize("how", ["notice", "preempted", "cancelled"])
def test_all_processes_of_a_worker_save_before_it_is_queued_again(slurm, root, tmp_path, how, nodes):
    """Within the time of grace of a partition, and between SIGTERM and SLURM's KillWait (3 s here)."""
    job = _saving(root, tmp_path, nodes)
    if how == "notice":
        slurm.run("scancel", "--batch", "--signal=USR1", job)
    elif how == "preempted":
        slurm.run("sbatch", "-p", "urgent", "-N2", "-n2", "-o", "/dev/null", "--wrap", "true")
    else:
        BACKEND.cancel([job])
    state = "CANCELLED" if how == "cancelled" else "PENDING"  # when its script has ended
    _until(lambda: _is(slurm, job, state))
    assert _restarts(slurm, job) == (how != "cancelled")
    assert {path.name for path in tmp_path.glob("saved.*")} == {f"saved.{process}" for process in range(nodes)}
    assert "`run`" not in BACKEND.log(root, job).read_text()  # which is what helps where a job could not be queued again


def test_what_is_cancelled_while_it_saves_stays_cancelled(slurm, root, tmp_path):
    job = _saving(root, tmp_path)
    slurm.run("scancel", "--batch", "--signal=USR1", job)
    _until((tmp_path / "saved.1").exists)
    BACKEND.cancel([job])
    _until(lambda: not _is(slurm, job, "COMPLETING"))
    assert _is(slurm, job, "CANCELLED")


def test_the_end_of_a_cluster_leaves_the_processes_of_others_alone(tmp_path):
    """Nodes of two clusters have the same names."""
    own, other = (tmp_path / name for name in ("own.conf", "other.conf"))
    with contextlib.ExitStack() as stack:
        started = {}
        for conf in (own, other):
            environment = {"SLURMD_NODENAME": "n1", "SLURM_CONF": str(conf)}
            started[conf] = stack.enter_context(subprocess.Popen(["sleep", "60"], env=os.environ | environment))
            stack.callback(started[conf].kill)
        assert clusters._step_daemons("n1", str(own)) == [started[own].pid]
        assert clusters._step_daemons("n2", str(own)) == []


def test_a_node_that_goes_down_costs_no_cell(slurm, root, expected, monkeypatch):
    monkeypatch.setenv("FAKE_SECONDS", "1")
    _apply(root)
    _until(lambda: len(_running(root)) == 2)
    node = clusters.NODES[1]
    slurm.kill_node(node)
    slurm.run("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
    monkeypatch.setenv("FAKE_SECONDS", "0")
    _until(lambda: slurm.states()[node].startswith("down"))
    slurm.start_node(node)
    slurm.run("scontrol", "update", f"nodename={node}", "state=resume")
    _finish(root, 120)
    assert _results(root) == expected


def test_workers_killed_at_random_lose_and_repeat_no_cell(slurm, root, expected, monkeypatch):
    """Twenty times a worker of the queue is killed, with and without a warning, and what is missing is submitted again."""
    monkeypatch.setenv("FAKE_SECONDS", "1")
    rng, killed = random.Random(0), 0
    while killed < 20 and status_lib.read_status(root).finished < len(expected):
        _apply(root)
        with contextlib.suppress(AssertionError):
            _until(lambda: _running(root), 5)
        time.sleep(0.5 * rng.random())
        if running := [job.id for job in _live(root) if job.state == "running"]:
            slurm.run("scancel", "--full", f"--signal={rng.choice(['KILL', 'TERM'])}", rng.choice(running))
            killed += 1
    monkeypatch.setenv("FAKE_SECONDS", "0")
    slurm.run("scancel", "--user=root", "--full")
    _until(lambda: not _live(root))
    _finish(root, 120)
    assert killed == 20
    assert _results(root) == expected


def _small_cells(tmp_path, name="study", **changes):
    """A study of three short real runs on the same text, written by hand."""
    config = starting.small(tmp_path)
    config = dataclasses.replace(config, mesh=dataclasses.replace(config.mesh, **changes))
    from lm.data import pipeline

    data = pipeline.prepare(config.data, config.data_dir, lambda line: None)
    root, cells = tmp_path / name, []
    for seed in (0, 1, 2):
        run = dataclasses.replace(config, seed=seed)
        cell_id = config_lib.identity(run, fingerprint=data.fingerprint)
        (root / "cells" / cell_id / "claims").mkdir(parents=True)
        files.write_json(root / "cells" / cell_id / "config.json", config_lib.to_dict(run))
        shape = {"d_model": 16, "num_layers": 2, "num_heads": 2, "head_dim": 8, "d_ff": 32}
        cells.append({
            "id": cell_id, "role": "grid", "budget": 1e9, "dial": 16, "learning_rate_factor": 1.0, "stage": 0, "seed": seed,
            "learning_rate": 1e-2, "shape_key": "k", "shape": shape, "params": {"total": 1.0, "matmul": 1.0},
            "flops": {"matmul_causal": 1e9}, "tokens": run.train_tokens, "steps": starting.STEPS, "batch_size": 8, "sequence_length": 32,
            "warmup_steps": 1, "seconds": 5.0, "devices": config.mesh.data if config.mesh.data > 0 else 1,
        })  # fmt: skip
    files.write_json(root / "study.json", {
        "schema": 1, "name": "real", "question": "?", "definition": {}, "fingerprint": data.fingerprint, "data": {},
        "data_dir": os.path.relpath(config.data_dir, root), "revision": None, "cells": cells,
    })  # fmt: skip
    return root


def test_real_runs_give_the_same_digits_as_here(tmp_path):
    here, there = _small_cells(tmp_path, "here"), _small_cells(tmp_path, "there")
    LocalWorkers(1).run(here, lambda: True)
    _finish(there, 120, workers=2, train=None)
    losses = {row.id: (row.status, row.loss, row.curve) for row in read_rows(here)}
    assert {status for status, _, _ in losses.values()} == {"completed"}
    assert {row.id: (row.status, row.loss, row.curve) for row in read_rows(there)} == losses


def test_a_cell_of_two_nodes_is_trained_by_two_processes(tmp_path):
    root = _small_cells(tmp_path, data=2)
    _finish(root, 180, workers=1, train=None)
    for cell in directory.open_study(root)["cells"]:
        record = records.read(root / "cells" / cell["id"])
        assert record["status"] == "completed", record.get("reason")
        assert record["environment"]["processes"] == 2


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"partition": "nowhere"}, "main"),
        ({"devices_per_node": 0}, "devices-per-node"),
        ({"mem": "900G"}, "--mem"),
        ({"gpus": "h100"}, "--gpus"),
    ],
)
def test_what_the_cluster_refuses_is_said_in_one_line(root, options, named):
    with pytest.raises(UserError, match=named):
        _apply(root, backend=dataclasses.replace(BACKEND, **options))
    assert not _live(root)
