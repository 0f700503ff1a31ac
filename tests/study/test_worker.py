"""Workers: every cell once, failures recorded, the environment's faults raised, the gate kept."""

import itertools
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time

import fake_train
import pytest
import small_study

from lm import distributed, files, machine, peers
from lm.errors import UserError
from lm.study import gate, leases, records, worker
from lm.study.rows import read_rows
from lm.train import signals


@pytest.fixture
def root(tmp_path):
    small_study.planned(tmp_path / "s")
    return tmp_path / "s"


def _silent(line):
    del line


def _work(root, train=fake_train.train):
    return worker.work(root, train, log=_silent)


def _losses(root):
    return {row.id: row.loss for row in read_rows(root) if row.completed}


def test_the_second_stage_waits_for_the_forecast(root):
    assert _work(root) == 16
    rows = read_rows(root)
    assert {row.stage for row in rows if row.completed} == {0}
    assert sum(row.completed for row in rows) == 16
    assert _work(root) == 0
    gate.write_forecast(root, {}, [])
    assert _work(root) == 3
    assert all(row.completed for row in read_rows(root))
    assert not [path for path in root.glob("cells/*/claims/*") if path.stat().st_size]


def test_after_the_shortest_cell_shapes_are_trained_one_after_another_longest_first(root):
    seen = []
    _work(root, lambda config, folder: (seen.append(folder.parent.name), fake_train.train(config, folder)))
    cells = {cell["id"]: cell for cell in json.loads((root / "study.json").read_text(encoding="utf-8"))["cells"]}
    keys = [cells[name]["shape_key"] for name in seen]
    assert len(set(keys)) == 1 + sum(a != b for a, b in itertools.pairwise(keys))
    assert cells[seen[0]]["seconds"] == min(cell["seconds"] for cell in cells.values() if cell["stage"] == 0)
    for a, b in itertools.pairwise(seen[1:]):
        assert cells[a]["shape_key"] != cells[b]["shape_key"] or cells[a]["seconds"] >= cells[b]["seconds"]


def test_a_second_worker_takes_a_shape_of_its_own_while_there_is_one(root):
    cells = json.loads((root / "study.json").read_text(encoding="utf-8"))["cells"]
    open_cells = [cell for cell in cells if cell["stage"] == 0]
    first = next(worker.order(root, open_cells, None))
    assert leases.claim(root, first["id"])  # by this process, which stands for another worker
    assert next(worker.order(root, open_cells, None))["shape_key"] != first["shape_key"]
    same = [cell for cell in open_cells if cell["shape_key"] == first["shape_key"]]
    assert next(worker.order(root, same, None))["id"] != first["id"]  # nothing else left: it helps


def test_a_cell_that_fails_or_diverges_is_recorded_and_stops_no_other(root, monkeypatch):
    monkeypatch.setenv("FAKE_RAISE", "24")
    monkeypatch.setenv("FAKE_DIVERGE", "32")
    assert _work(root) == 19  # each of three errors is tried once more
    rows = {row.shape["d_model"]: row for row in read_rows(root) if row.stage == 0}
    assert (rows[24].status, rows[24].reason) == ("failed", "ValueError: asked to raise")
    assert (rows[32].status, rows[32].reason) == ("diverged", "loss is not finite at step 7")
    assert not rows[24].completed
    assert not rows[32].completed
    assert rows[48].completed
    assert _work(root) == 0  # neither is tried again
    monkeypatch.delenv("FAKE_RAISE")
    assert leases.retry(root, [row.id for row in rows.values()], from_start=False) == [rows[24].id]  # what diverged would do so again
    assert _work(root) == 1
    assert next(row for row in read_rows(root) if row.id == rows[24].id).completed
    assert "asked to raise" in (root / "cells" / rows[24].id / "failures.txt").read_text(encoding="utf-8")
    monkeypatch.delenv("FAKE_DIVERGE")
    assert leases.retry(root, [rows[32].id], from_start=False, states=("failed", "diverged")) == [rows[32].id]  # unless a user names it
    assert _work(root) == 1
    assert next(row for row in read_rows(root) if row.id == rows[32].id).completed


@pytest.mark.parametrize("from_start", [False, True])
def test_a_failed_run_goes_on_from_its_checkpoints_or_from_its_start(root, from_start):
    cell = json.loads((root / "study.json").read_text(encoding="utf-8"))["cells"][0]
    folder = root / "cells" / cell["id"]
    begun = {"id": cell["id"], "experiment": {}, "execution": {}, "data": {}, "curve": [{"step": 5}]}
    (folder / "run.json").write_text(json.dumps(records.sealed(begun | {"status": "failed", "reason": "out of memory"}, 1)))
    (folder / "checkpoints" / "5").mkdir(parents=True)
    (folder / "checkpoints" / "5" / "manifest.json").write_text("{}")
    assert not leases.claim(root, cell["id"])
    assert leases.retry(root, [cell["id"]], from_start=from_start) == [cell["id"]]
    assert records.read(folder) == {}
    lease = leases.claim(root, cell["id"])  # by this process: a second one that retries leaves it alone
    workdir = lease.begin()
    assert (workdir / "checkpoints" / "5" / "manifest.json").exists() != from_start
    assert (workdir / "run.json").exists() != from_start
    assert leases.retry(root, [cell["id"]], from_start=from_start) == []
    lease.commit(records.failed(workdir, cell, records.reason_of(folder, ValueError("again"))))
    assert records.read(folder)["reason"] == "ValueError: again"


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), UserError("the data are gone"), KeyboardInterrupt()])
def test_a_fault_of_the_environment_is_no_result(root, error):
    def train(config, folder):
        (folder / "metrics.jsonl").write_text('{"step": 1}\n')
        raise error

    with pytest.raises(type(error)):
        _work(root, train)
    assert not [path for path in root.glob("cells/*/claims/*") if path.stat().st_size]
    assert {row.status for row in read_rows(root)} == {"pending"}
    assert _work(root) == 16


def test_a_cell_whose_configuration_was_edited_is_refused(root):
    path = next(root.glob("cells/*/config.json"))
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(config | {"seed": 77}), encoding="utf-8")
    with pytest.raises(UserError, match=r"config\.json"):
        _work(root)


def test_data_that_changed_after_planning_are_refused(root):
    def train(config, folder):
        fake_train.train(config, folder)
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        (folder / "run.json").write_text(json.dumps(record | {"id": "another run"}))
        (folder / "checkpoints" / "00000001").mkdir(parents=True)

    with pytest.raises(UserError, match="another run"):
        _work(root, train)
    assert not list(root.glob("cells/**/checkpoints"))
    assert {row.status for row in read_rows(root)} == {"pending"}


def test_a_training_function_that_records_nothing_is_an_error(root):
    with pytest.raises(UserError, match=r"run\.json"):
        _work(root, lambda config, folder: None)


def test_any_order_of_work_gives_the_same_results(root, tmp_path):
    small_study.planned(tmp_path / "other")
    for row in reversed(read_rows(tmp_path / "other")):
        cell = next(c for c in json.loads((root / "study.json").read_text(encoding="utf-8"))["cells"] if c["id"] == row.id)
        if row.stage == 0:
            study = json.loads((tmp_path / "other" / "study.json").read_text(encoding="utf-8"))
            lease = leases.claim(tmp_path / "other", cell["id"])
            worker.run_cell(tmp_path / "other", study, cell, lease, fake_train.train, _silent)
    _work(root)
    assert _losses(root) == _losses(tmp_path / "other")


def test_a_cell_that_kills_its_workers_fails_and_the_others_go_on(root):
    cell = json.loads((root / "study.json").read_text(encoding="utf-8"))["cells"][0]
    for epoch in range(1, worker.MAX_DEATHS + 1):
        dead = machine.process() | {"born": "0", "checkpoint": -1}
        (root / "cells" / cell["id"] / "claims" / f"{epoch:06d}").write_text(json.dumps(dead))
    assert _work(root) == 16
    rows = {row.id: row for row in read_rows(root)}
    assert rows[cell["id"]].status == "failed"
    assert "3 times" in rows[cell["id"]].reason
    assert sum(row.completed for row in rows.values()) == 15
    assert leases.retry(root, [cell["id"]], from_start=False) == [cell["id"]]
    assert _work(root) == 1  # whose dead workers are forgotten
    assert sum(row.completed for row in read_rows(root)) == 16


def test_a_cell_that_is_preempted_again_and_again_without_a_step_fails_and_the_others_go_on(root, monkeypatch):
    """Nobody else stops a scheduler that queues its job again: the notice may come before the first step each time."""
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    started = []

    def train(config, workdir):
        started.append(workdir)
        raise SystemExit(138)

    for _ in range(worker.MAX_PREEMPTED):
        with pytest.raises(SystemExit):
            _work(root, train)
    assert len({workdir.parent for workdir in started}) == 1  # the shortest
    assert _work(root) == 16
    (failed,) = [row for row in read_rows(root) if row.status == "failed"]
    assert failed.id == started[0].parent.name
    assert str(worker.MAX_PREEMPTED) in failed.reason
    assert "job 12" in failed.reason
    leases.retry(root, [failed.id], from_start=False)
    assert _work(root) == 1
    assert not [row for row in read_rows(root) if row.status == "failed"]


class _Peer:
    """Stands for the watch of process 1 of two, which process 0 tells where to train."""

    index, count = 1, 2

    def __init__(self, workdir):
        self.workdir = workdir

    def read(self, key):
        return json.dumps({"result": str(self.workdir)})


@pytest.mark.parametrize(
    ("error", "tries"),
    [
        (ValueError("here alone"), 2),
        (ValueError("RESOURCE_EXHAUSTED: Out of memory"), 1),
        (OSError("a fault of the disk"), None),
        (type("JaxRuntimeError", (RuntimeError,), {})("UNAVAILABLE: connection lost"), None),
    ],
)
def test_an_error_of_another_process_alone_fails_the_cell_with_its_reason(root, monkeypatch, error, tries):
    """Process 0, which holds the lease, waits in a collective meanwhile, and is ended from outside."""
    monkeypatch.setattr(worker, "PATIENCE_SECONDS", 0.0)
    cell = json.loads((root / "study.json").read_text(encoding="utf-8"))["cells"][0]

    def fail(config, workdir):
        raise error

    for _ in range(tries or 1):
        lease = leases.claim(root, cell["id"])
        workdir = lease.begin()
        with monkeypatch.context() as patch:
            patch.setattr(peers, "current", _Peer(workdir))
            patch.setattr(distributed, "first", lambda action, workdir=workdir: str(workdir))
            with pytest.raises(type(error)):
                worker.run_cell(root, {}, cell, None, fail, _silent)
        lease.give_back()
    only = worker.Wanted(only=frozenset({cell["id"]}))
    worker.work(root, fake_train.train, wanted=only, log=_silent)
    (row,) = [row for row in read_rows(root) if row.id == cell["id"]]
    assert row.completed == (tries is None)
    assert tries is None or f"process 1 of 2 ({socket.gethostname()}): ValueError: {error}" in row.reason


def test_a_lost_process_is_no_error_of_the_cell(root, monkeypatch):
    """What process 0 then gets from a collective is not counted."""
    error = type("JaxRuntimeError", (RuntimeError,), {})("UNAVAILABLE: connection lost")

    def fail(config, workdir):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(distributed, "count", lambda: 2)
        with pytest.raises(RuntimeError, match="UNAVAILABLE"):
            _work(root, fail)
    assert _work(root) == 16


def test_a_folder_that_was_removed_is_written_and_trained_again(root):
    study = json.loads((root / "study.json").read_text(encoding="utf-8"))
    removed = study["cells"][0]["id"]
    shutil.rmtree(root / "cells" / removed)
    assert _work(root) == 16
    row = next(row for row in read_rows(root) if row.id == removed)
    assert row.status == "failed"
    assert "retry" in row.reason
    assert small_study.planned(root) == study
    assert leases.retry(root, [removed], from_start=False) == [removed]
    assert _work(root) == 1


def test_a_worker_whose_cell_another_took_goes_on_with_the_next(root):
    """It is noticed by the heartbeat, which stops the training; a fault of the file server ends no heartbeat."""
    code = """
import pathlib, sys, time
from lm.study import leases, worker
from lm.train import signals
leases.HEARTBEAT_SECONDS = 0.2
trained, said, root = [], [], pathlib.Path(sys.argv[1])
def train(config, folder):
    if not trained:
        trained.append(folder.parent)
        claims, away = folder.parent / "claims", folder.parent / "away"
        (claim,) = claims.iterdir()
        beat = claim.stat().st_mtime_ns
        while claim.stat().st_mtime_ns == beat:  # between two beats, the names are changed
            time.sleep(0.005)
        claims.rename(away)
        claims.symlink_to(claims)  # a loop: no file in it can be named
        while len(said) < 2:  # the cell's beginning, and that its heart does not beat
            time.sleep(0.01)
        claims.unlink()
        away.rename(claims)
        lease = leases._take(folder.parent, 2)  # stands for another machine that saw no heartbeat
        time.sleep(60)
    raise ValueError("this one ends")
def log(line):
    said.append(line)
    print(line.splitlines()[-1])
with signals.Stop(at_once=True):
    print(worker.work(root, train, log=log), trained[0].name)
"""
    done = subprocess.run([sys.executable, "-c", code, str(root)], capture_output=True, text=True, timeout=60, check=True)
    lines = done.stdout.splitlines()
    assert "begins" in lines[0]
    assert "no heartbeat" in lines[1]
    assert sum("left to another worker" in line for line in lines) == 1
    count, taken = lines[-1].split()
    rows = {row.id: row for row in read_rows(root)}
    assert (int(count), rows[taken].status) == (31, "pending")  # 15 are tried twice
    assert sum(row.status == "failed" for row in rows.values()) == 15


def test_a_worker_that_loses_its_cell_and_gets_a_signal_takes_no_other(root):
    cells = []

    def train(config, folder):
        cells.append(folder)
        leases._take(folder.parent, 2)
        for number in (signals.LEASE, signal.SIGTERM):
            signals.current.ask(number)
        signals.current.leave()

    with signals.Stop(), pytest.raises(SystemExit) as ended:
        _work(root, train)
    assert (ended.value.code, len(cells)) == (143, 1)


def test_the_end_of_a_slurm_job_ends_a_worker_before_it_with_a_save(root, tmp_path):
    """SLURM gives the second, since 1970, at which it kills. The claim is given back, and no death is counted."""
    (tmp_path / "waits.py").write_text("""
import time
from lm.train import signals
def train(config, workdir):
    stop = signals.current
    with stop.with_state():
        while not stop.check():
            time.sleep(0.01)
        (workdir / "saved").touch()
    stop.leave()
""")
    environment = os.environ | {"SLURM_JOB_END_TIME": str(int(time.time()) + 3), "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    words = [sys.executable, "-m", "lm.study.worker", str(root), "--train=waits:train", "--between=none"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 124, done.stderr
    assert len(list(root.glob("cells/*/epoch-*/saved"))) == 1
    claims = list(root.glob("cells/*/claims/*"))
    assert [path.stat().st_size for path in claims] == [0]


@pytest.mark.parametrize("name", ["../x", "../../x", "", ".", "a/b", None, 7])
def test_a_cell_id_that_is_no_folder_in_the_study_is_refused(root, name):
    study = json.loads((root / "study.json").read_text(encoding="utf-8"))
    study["cells"][0]["id"] = name
    (root / "study.json").write_text(json.dumps(study), encoding="utf-8")
    for read in (_work, read_rows):
        with pytest.raises(UserError, match="cell id"):
            read(root)


@pytest.mark.parametrize("content", ["[]", "{}", '{"schema": 1, "cells": 3}', '{"schema": 1, "cells": ["x"]}'])
def test_a_study_that_lists_no_cells_is_refused(root, content):
    (root / "study.json").write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=r"study\.json"):
        _work(root)


def test_an_address_of_a_store_is_refused():
    with pytest.raises(UserError, match="gs://bucket/study"):
        _work(pathlib.Path("gs://bucket/study"))


def test_an_error_of_memory_is_not_tried_again(root):
    def train(config, folder):
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 99 bytes")

    assert _work(root, train) == 16
    assert all(row.status == "failed" and "remat" in row.reason for row in read_rows(root) if row.stage == 0)


def test_a_worker_takes_the_cells_of_its_kind_alone(root):
    path = root / "study.json"
    study = json.loads(path.read_text(encoding="utf-8"))
    large = [cell["id"] for cell in study["cells"] if cell["shape"]["d_model"] == 48 and cell["stage"] == 0]
    for cell in study["cells"]:
        cell["devices"] = 8 if cell["id"] in large else 1
    path.write_text(json.dumps(study), encoding="utf-8")
    kinds = [
        worker.Wanted(stage=0, devices=8, only=frozenset(large[:1])),
        worker.Wanted(devices=8),
        worker.Wanted(stage=1),
        worker.Wanted(),
    ]
    assert [worker.work(root, fake_train.train, wanted=wanted, log=_silent) for wanted in kinds] == [1, len(large) - 1, 0, 16 - len(large)]


def test_who_ends_the_first_stage_opens_the_second_once(root):
    opened = []

    def between(folder):
        opened.append(folder)
        gate.write_forecast(folder, {}, [])

    assert worker.work(root, fake_train.train, wanted=worker.Wanted(stage=1), between=between, log=_silent) == 0
    assert not opened  # the first is not finished
    assert worker.work(root, fake_train.train, wanted=worker.Wanted(stage=0), between=between, log=_silent) == 16
    assert worker.work(root, fake_train.train, between=between, log=_silent) == 3
    assert opened == [root]


def test_a_cancelled_cell_is_left_until_it_is_asked_for(root):
    """Its worker loses the lease, and what the run had saved is kept for a retry."""
    cells = json.loads((root / "study.json").read_text(encoding="utf-8"))["cells"]
    held, other = (cell for cell in cells[:2])
    lease = leases.claim(root, held["id"])
    (lease.begin() / "checkpoints" / "5").mkdir(parents=True)
    (lease.workdir / "checkpoints" / "5" / "manifest.json").write_text("{}")
    files.write_json(lease.workdir / "run.json", {"id": held["id"], "experiment": {}, "execution": {}, "data": {}, "status": "running"})
    assert leases.cancel(root, held)
    assert leases.cancel(root, other)
    assert not leases.cancel(root, other)
    assert not lease.renew()
    with pytest.raises(leases.Lost):
        lease.commit({"status": "completed"})
    assert {row.status for row in read_rows(root) if row.id in (held["id"], other["id"])} == {"cancelled"}
    assert _work(root) == 14
    assert leases.retry(root, [held["id"], other["id"]], from_start=False) == []
    assert leases.retry(root, [held["id"], other["id"]], from_start=False, states=("cancelled",)) == [held["id"], other["id"]]
    again = leases.claim(root, held["id"])
    assert (again.begin() / "checkpoints" / "5" / "manifest.json").exists()
    again.give_back()
    assert _work(root) == 2
