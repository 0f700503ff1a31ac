"""Leases: one holder at a time, none after its process is gone, and no result of a worker whose lease ran out."""

import json
import os
import random
import subprocess
import sys
import time

import pytest

from lm import claims, files, machine
from lm.errors import UserError
from lm.study import leases, order, records

CELLS = [f"cell{i:02d}" for i in range(40)]
DONE = {"id": "cell00", "status": "completed", "reason": None}


@pytest.fixture
def root(tmp_path):
    for cell in CELLS:
        (tmp_path / "cells" / cell).mkdir(parents=True)
    return tmp_path


def _forge(root, epoch=1, **changes):
    """Writes the claim of a process that never was, or of another machine."""
    path = root / "cells" / "cell00" / "claims" / f"{epoch:06d}"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(machine.process() | {"born": "0", "checkpoint": -1} | changes), encoding="utf-8")
    return path


def _silence(lease):
    """Makes a lease look as after a pause of its worker, to the worker and to others."""
    lease.until = machine.clock()
    os.utime(lease.claim, (0, time.time() - leases.STALE_SECONDS - 1))


def test_processes_that_race_share_the_cells_out(root):
    code = (
        "import sys, pathlib; from lm.study import leases; root = pathlib.Path(sys.argv[1]); sys.stdin.read(1)\n"
        "print(*[c for c in sys.argv[2:] if leases.claim(root, c)], flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(root), *CELLS]
    racers = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    for racer in racers:
        racer.stdin.write("go")
        racer.stdin.flush()
    taken = [racer.stdout.readline().split() for racer in racers]
    assert sorted(cell for cells in taken for cell in cells) == CELLS
    assert not leases.claim(root, CELLS[0])  # all racers are alive still
    for racer in racers:
        racer.kill()
        racer.wait()
        racer.stdin.close()
        racer.stdout.close()
    assert leases.clear_stale(root, CELLS) == len(CELLS)
    assert leases.claim(root, CELLS[0]).epoch == 2


def test_a_claim_is_given_back_and_its_number_never_used_again(root):
    first = leases.claim(root, "cell00")
    assert not leases.claim(root, "cell00")
    first.give_back()
    second = leases.claim(root, "cell00")
    assert (first.epoch, second.epoch) == (1, 2)
    first.give_back()  # of an epoch that is over
    assert leases.holder(second.cell)["epoch"] == 2


@pytest.mark.parametrize("other", [{"host": "elsewhere"}, {"boot": "another"}, {"namespace": "pid:[1]"}])
def test_a_process_of_another_machine_boot_or_container_is_believed_while_its_heart_beats(root, other):
    """Its number says nothing here: a container beside this one has the same name and other processes."""
    path = _forge(root, **other)
    assert not leases.claim(root, "cell00")
    os.utime(path, (0, time.time() - leases.STALE_SECONDS - 1))
    assert leases.claim(root, "cell00")


def test_a_process_number_used_again_is_another_process(root):
    _forge(root)
    assert leases.claim(root, "cell00").epoch == 2


@pytest.mark.parametrize("content", [b'{"pid": 12', b"[]", b'"x"', b"\xff\xfe", b"", b'{"pid": "x"}'])
def test_a_claim_that_nobody_can_read_is_stale(root, content):
    _forge(root).write_bytes(content)
    assert leases.claim(root, "cell00").epoch == 2


@pytest.mark.parametrize(("status", "free"), [("running", True), ("completed", False), ("diverged", False), ("failed", False)])
def test_what_is_finished_is_never_claimed_again(root, status, free):
    files.write_json(root / "cells" / "cell00" / "run.json", {"status": status})
    assert (leases.claim(root, "cell00") is not None) is free


def _save(workdir):
    (workdir / "checkpoints" / "5").mkdir(parents=True)
    (workdir / "checkpoints" / "5" / "manifest.json").write_text("{}")
    files.write_json(workdir / "run.json", {"status": "running"})


@pytest.fixture
def rivals(root):
    """The leases of a worker that was paused past its lease, with its metrics open, and of one that took the cell and began."""
    paused = leases.claim(root, "cell00")
    _save(paused.begin())
    with open(paused.workdir / "metrics.jsonl", "w") as metrics:
        _silence(paused)
        other = leases.claim(root, "cell00")
        other.begin()
        metrics.write("late")
    return paused, other


def test_a_worker_that_lost_its_lease_changes_nothing(rivals):
    paused, other = rivals
    assert (other.workdir / "checkpoints" / "5" / "manifest.json").exists()
    assert (other.workdir / "metrics.jsonl").read_text() == ""
    assert not paused.workdir.exists()
    assert not paused.renew()
    with pytest.raises(leases.Lost):
        paused.commit(DONE)
    paused.give_back()
    assert leases.holder(other.cell)["epoch"] == 2


def test_a_result_is_committed_once_and_names_its_epoch(rivals):
    paused, other = rivals
    other.commit(DONE)
    record = records.read(other.cell)
    assert (record["status"], record["seal"]["epoch"]) == ("completed", 2)
    assert sorted(path.name for path in other.cell.iterdir()) == ["checkpoints", "claims", "metrics.jsonl", "run.json"]
    for lease in (paused, other):
        with pytest.raises(leases.Lost):
            lease.commit(DONE)
    assert records.read(other.cell) == record
    _save(paused.workdir)  # what a worker that wakes still later makes is swept away, and takes the place of nothing
    (other.cell / "checkpoints" / "6").mkdir()
    leases.settle(other.cell)
    assert not paused.workdir.exists()
    assert (other.cell / "checkpoints" / "6").exists()


def test_a_lease_that_ran_out_is_regained_while_nobody_has_taken_it(root):
    lease = leases.claim(root, "cell00")
    lease.begin()
    _silence(lease)
    assert lease.renew()  # the worker woke before anyone looked
    assert leases.holder(lease.cell)
    lease.commit(DONE)


def test_a_living_process_without_a_heartbeat_loses_its_cell(root):
    """It was stopped (SIGSTOP), and the launcher learns which it is."""
    lease = leases.claim(root, "cell00")
    assert leases.silent(root, CELLS) == set()
    _silence(lease)
    assert leases.silent(root, CELLS) == {os.getpid()}
    assert leases.claim(root, "cell00").epoch == 2


def test_an_unsealed_or_altered_record_is_not_believed(root):
    lease = leases.claim(root, "cell00")
    lease.begin()
    lease.commit(DONE | {"final": {"nats_per_byte": 1.25}})
    path = lease.cell / "run.json"
    whole = path.read_text()
    assert records.read(lease.cell)["status"] == "completed"
    for text in (
        whole.replace("1.25", "1.24"),
        json.dumps(DONE),
        "[]",
        '"x"',
        "[" * 100_000,
        '{"final": 3}',
        whole.replace('"epoch": 1', '"epoch": 2'),
    ):
        path.write_text(text)
        assert records.read(lease.cell)["status"] == "failed"
        assert str(path) in records.read(lease.cell)["reason"]
    path.write_bytes(b"\xff\xfe")
    assert records.read(lease.cell)["status"] == "failed"
    lease.give_back()
    assert leases.retry(root, ["cell00"], from_start=False) == ["cell00"]
    assert leases.claim(root, "cell00")


def test_clocks_that_differ_are_refused(root, monkeypatch):
    machine.require_clock(root)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 200)
    with pytest.raises(UserError, match="200 s ahead"):
        machine.require_clock(root)
    assert leases.claim(root, "cell00")
    assert not leases.claim(root, "cell00")  # ages are by the file server's clock alone
    path = _forge(root, epoch=2, host="elsewhere")
    os.utime(path, (now + 200, now + 200))  # a file system that believes its clients
    with pytest.raises(UserError, match="elsewhere"):
        leases.claim(root, "cell00")


def test_workers_that_die_in_one_place_are_counted(root):
    for epoch in (1, 2):
        _forge(root, epoch)
    lease = leases.claim(root, "cell00")
    assert lease.deaths == 2
    (lease.begin() / "checkpoints" / "7").mkdir(parents=True)
    (lease.workdir / "checkpoints" / "7" / "manifest.json").write_text("{}")
    _silence(lease)
    assert leases.claim(root, "cell00").deaths == 0  # the cell got on meanwhile


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff\xfe", None])
def test_a_claim_that_no_worker_wrote_counts_as_given_back_and_is_named(root, content):
    path = _forge(root)
    if content is None:
        path.unlink()
        path.mkdir()
    else:
        path.write_bytes(content)
    lease = leases.claim(root, CELLS[0])
    assert (lease.epoch, leases.strange(lease)) == (2, path)
    lease.give_back()
    assert leases.strange(leases.claim(root, CELLS[0])) is None


def test_a_claim_that_the_system_cannot_read_is_one_line(root, monkeypatch):
    path = _forge(root)
    path.unlink()
    path.symlink_to("/proc/self/mem")  # EIO
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with pytest.raises(UserError, match=r"claims/000001.*Input/output"):
        leases.claim(root, CELLS[0])


def test_a_cell_of_a_lost_machine_is_waited_for_and_that_of_a_living_one_is_not(root):
    """Whoever finds nothing free looks for a while whether those who hold the last cells still beat."""
    path = _forge(root, host="elsewhere")
    assert leases.may_fall_free(root, CELLS, 0.0)
    assert not leases.may_fall_free(root, CELLS, 3 * leases.HEARTBEAT_SECONDS)
    os.utime(path, (0, time.time() - 2 * leases.HEARTBEAT_SECONDS))
    assert leases.may_fall_free(root, CELLS, 3 * leases.HEARTBEAT_SECONDS)
    os.utime(path, (0, time.time() - leases.STALE_SECONDS - 1))
    assert not leases.may_fall_free(root, CELLS, 0.0)  # it is free
    assert leases.claim(root, "cell00")
    assert not leases.may_fall_free(root, CELLS, 0.0)  # of this machine it is known who lives


def test_a_job_that_is_started_again_gives_its_cells_back_and_no_death_is_counted(root):
    for epoch in (1, 2, 3, 4):
        _forge(root, epoch, host="elsewhere", job="77")
        assert leases.give_back_of_job(root, CELLS, "78") == 0
        assert leases.give_back_of_job(root, CELLS, "77") == 1
    lease = leases.claim(root, "cell00")
    assert (lease.deaths, len(lease.preempted)) == (0, 4)
    assert "77" in lease.preempted[-1]
    (lease.begin() / "checkpoints" / "7").mkdir(parents=True)
    (lease.workdir / "checkpoints" / "7" / "manifest.json").write_text("{}")
    lease.give_back()
    assert not leases.claim(root, "cell00").preempted  # a step was saved


@pytest.mark.parametrize("job", [True, False])
def test_a_signal_counts_as_a_preemption_in_a_job_alone(root, monkeypatch, job):
    """Who trains on a machine of their own may stop and go on as often as they like."""
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    if job:
        monkeypatch.setenv("SLURM_JOB_ID", "12")
    assert leases.claim(root, "cell00")
    leases.give_back_all()
    lease = leases.claim(root, "cell00")
    assert len(lease.preempted) == job
    assert leases.strange(lease) is None


CELL = {"id": "cell00", "steps": 9}


def _link_result(lease):
    """The last act of a worker that commits: it had looked at its lease before."""
    result = lease.workdir / "result.json"
    files.write_json(result, records.sealed(DONE, lease.epoch))
    return claims.link(result, lease.cell / records.FILE)


def test_a_cell_that_completes_while_it_is_cancelled_ends_once(root, monkeypatch):
    """Whichever result is linked first stands, and what the run has left is kept."""
    lease = leases.claim(root, "cell00")
    (lease.begin() / "metrics.jsonl").write_text("{}")
    make, linked = records.cancelled, []

    def cancelled(workdir, cell):
        linked.append(_link_result(lease))  # in the last moment before `cancel` links its own
        return make(workdir, cell)

    monkeypatch.setattr(records, "cancelled", cancelled)
    assert not leases.cancel(root, CELL)
    assert linked == [True]
    assert records.read(lease.cell)["status"] == "completed"
    assert (lease.cell / "metrics.jsonl").read_text() == "{}"
    assert not list(lease.cell.glob("epoch-*"))
    monkeypatch.setattr(records, "cancelled", make)
    other = leases.claim(root, "cell01")
    (other.begin() / "metrics.jsonl").write_text("{}")
    assert leases.cancel(root, CELL | {"id": "cell01"})
    other.workdir.mkdir()
    assert not _link_result(other)  # a moment later
    assert records.read(other.cell)["status"] == "cancelled"
    assert (other.cell / "metrics.jsonl").read_text() == "{}"


def test_an_error_of_another_process_frees_the_cell_unless_it_has_ended(root):
    lease = leases.claim(root, "cell00")
    leases.accuse(lease.begin(), "process 1 of 2: ValueError: here")
    lease.give_back()  # which keeps that
    lease = leases.claim(root, "cell00")
    assert lease.errors == ["process 1 of 2: ValueError: here"]
    lease.begin()
    lease.commit(DONE)
    leases.accuse(lease.workdir, "too late")
    assert "too late" not in lease.claim.read_text()


def test_workers_that_begin_at_once_do_not_try_the_same_cells():
    """Nor do those that another was faster than; alone, a worker takes the best."""
    cells = [{"id": str(i)} for i in range(1000)]
    assert [cell["id"] for cell in order.spread(cells, 0, random.Random(0))][:1] == ["0"]
    assert sorted(cell["id"] for cell in order.spread(cells, 7, random.Random(0))) == sorted(cell["id"] for cell in cells)
    for places, most in (([0] * 200, 200 * 14), (range(200), 200)):
        tries = [order.spread(cells, place, random.Random(i)) for i, place in enumerate(places)]
        taken, tried = set(), 0
        while tries:  # all look at the same state, and then try by turns
            tried += len(tries)
            found = [(one, next(one)["id"]) for one in tries]
            tries = [one for one, cell in found if cell in taken or taken.add(cell)]
        assert tried <= most
        assert sum(int(cell) < 500 for cell in taken) >= 170  # mostly the better half


def test_what_is_claimed_again_and_again_keeps_one_claim(root):
    for epoch in range(1, 5):
        lease = leases.claim(root, "cell00")
        assert lease.epoch == epoch
        lease.give_back()
        leases.tidy(lease)
        assert len(list((root / "cells" / "cell00" / "claims").iterdir())) == 1
