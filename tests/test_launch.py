"""Workers on this machine: killed at any moment, a study ends as if nothing had happened."""

import dataclasses
import io
import json
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import time

import pytest
import small_study

from launch import local, logs, places, table
from launch.local import LocalWorkers
from launch.view import View
from lm import files, platforms
from lm.errors import UserError
from lm.preflight.topologies import CHIPS
from lm.study import directory, gate, leases, plan_table, records
from lm.study import status as status_lib
from lm.study.rows import read_rows

HERE = pathlib.Path(__file__).parent
PATH = os.pathsep.join(filter(None, [str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH")]))


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", PATH)
    monkeypatch.delenv("FAKE_SECONDS", raising=False)


def _run(root, before_stage_1=lambda: False, workers=None):
    out = io.StringIO()
    state = LocalWorkers(workers, small_study.TRAIN).run(root, before_stage_1, View(out))
    return state, out.getvalue()


def _launcher(root, **more):
    """The command in a process of its own, with one worker."""
    command = [sys.executable, "-m", "launch.local", str(root), "--workers=1", f"--train={small_study.TRAIN}"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, **more)


def _wait_for(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _held(root):
    """The processes that hold a cell, or died while they did."""
    claims = [json.loads(path.read_text()) for path in root.glob("cells/*/claims/[0-9]*") if path.stat().st_size]
    return [claim for claim in claims if claim["pid"]]


def _results(root):
    return {row.id: (row.status, row.reason, row.loss) for row in read_rows(root) if row.status != "pending"}


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """A study that ran through undisturbed, and what it printed."""
    root = tmp_path_factory.mktemp("straight") / "s"
    small_study.planned(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", PATH)
        _, printed = _run(root, lambda: bool(gate.write_forecast(root, {"losses": {}}, [])))
    return root, printed


def test_every_cell_is_trained_on_one_core_and_reported(straight):
    root, printed = straight
    rows = read_rows(root)
    assert all(row.completed for row in rows)
    assert {row.environment["cores"] for row in rows} == {1}
    assert printed.count("nats/byte, ") == len(rows)
    assert f"[{len(rows)}/{len(rows)}]" in printed
    assert "\r" not in printed  # no bar where there is no terminal


def test_a_cell_s_log_is_that_of_its_worker(straight):
    root, _ = straight
    cell = directory.open_study(root)["cells"][0]["id"]
    out = io.StringIO()
    logs.show(root, cell, out, follow=True)  # it has ended, so that there is nothing to wait for
    assert f"cell {cell} finished" in out.getvalue()


def test_killed_at_random_moments_a_study_ends_with_the_same_results(straight, tmp_path, monkeypatch):
    root = tmp_path / "s"
    small_study.planned(root)
    monkeypatch.setenv("FAKE_SECONDS", "0.05")
    rng = random.Random(0)
    for attempt in range(2):
        launcher = _launcher(root, start_new_session=True)
        _wait_for(lambda: status_lib.read_status(root).count("running"))
        time.sleep(0.3 * rng.random())
        children = pathlib.Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text(encoding="utf-8").split()
        if attempt:
            for child in children:
                os.kill(int(child), signal.SIGKILL)
        launcher.kill()
        launcher.wait()
    monkeypatch.setenv("FAKE_SECONDS", "0")
    _run(root)
    gate.write_forecast(root, {"losses": {}}, [])
    _run(root)
    assert _results(root) == _results(straight[0])
    assert not _held(root)


def test_a_worker_that_is_killed_is_replaced(tmp_path, monkeypatch):
    root = tmp_path / "s"
    small_study.planned(root)
    monkeypatch.setenv("FAKE_SECONDS", "0.1")
    killed = []

    class Assassin(View):
        def update(self, state):
            super().update(state)
            if not killed and (held := _held(root)):
                os.kill(held[0]["pid"], signal.SIGKILL)
                killed.append(held[0]["pid"])

    state = LocalWorkers(None, small_study.TRAIN).run(root, lambda: False, Assassin(io.StringIO()))
    assert killed
    assert state.count("completed") == 16


@pytest.mark.parametrize("fault", ["stop", "hang"])
def test_a_worker_that_is_stopped_or_hangs_is_replaced(straight, tmp_path, monkeypatch, fault):
    """The launcher kills one without a heartbeat; one whose training makes no progress ends itself."""
    root = tmp_path / "s"
    small_study.planned(root)
    for name, value in {"FAKE_ONCE": fault, "FAKE_FILE": str(tmp_path / "once"), "FAKE_HEARTBEAT": "0.1"}.items():
        monkeypatch.setenv(name, value)
    if fault == "stop":
        monkeypatch.setattr(leases, "HEARTBEAT_SECONDS", 0.2)
        monkeypatch.setattr(leases, "STALE_SECONDS", 2.0)
    state = LocalWorkers(1, small_study.TRAIN).run(root, lambda: False, View(io.StringIO()))
    assert (tmp_path / "once").exists()
    assert state.count("completed") == 16
    assert _results(root).items() <= _results(straight[0]).items()
    assert ("in fail_once" in next((root / "logs").iterdir()).read_text()) == (fault == "hang")


def test_a_fault_of_the_environment_ends_the_study_in_one_line(tmp_path):
    root = tmp_path / "s"
    small_study.planned(root)
    with pytest.raises(UserError, match="no_such_module:train"):
        local.main([str(root), "--workers=1", "--train=no_such_module:train"])


@pytest.mark.parametrize("count", [10_000, 0, -1])
def test_a_number_of_workers_that_the_cores_do_not_hold_is_refused(count):
    with pytest.raises(UserError, match=rf"--workers={count}"):
        _ = LocalWorkers(count).count


def test_each_worker_has_gpus_of_its_own_and_a_large_cell_several(monkeypatch):
    """On a node of 4 GPUs: four workers for cells of one device, two for cells of two, and none for cells of eight."""
    monkeypatch.setattr(platforms, "installed", lambda module: True)
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,GPU-3")
    shown = [[place.environment["CUDA_VISIBLE_DEVICES"] for place in places.places(devices)] for devices in (1, 2, 3)]
    assert shown == [["0", "1", "2", "GPU-3"], ["0,1", "2,GPU-3"], ["0,1,2"]]
    assert all("--cores" not in flag for place in places.places() for flag in place.flags)
    with pytest.raises(UserError, match="8 GPUs"):
        places.places(8)
    assert [place.environment["CUDA_VISIBLE_DEVICES"] for place in places.places(2, 4)] == [
        "0,1",
        "2,GPU-3",
    ]  # 4 were asked for small cells
    with pytest.raises(UserError, match="--workers=5"):
        places.places(1, 5)
    for name, value in (("JAX_PLATFORMS", "cpu"), ("CUDA_VISIBLE_DEVICES", "")):
        monkeypatch.setenv(name, value)
        assert not places.gpus()


def test_cells_of_several_devices_are_trained_after_small_ones_by_workers_that_have_them(tmp_path):
    root = tmp_path / "s"
    study = small_study.planned(root)
    large = [cell["id"] for cell in study["cells"] if cell["shape"]["d_model"] == 48 and cell["stage"] == 0]
    for cell in study["cells"]:
        cell["devices"] = 2 if cell["id"] in large else 1
    files.write_json(root / "study.json", study)
    _run(root)
    made = {cell_id: records.read(root / "cells" / cell_id)["environment"] for cell_id in large}
    others = [row.environment for row in read_rows(root) if row.completed and row.id not in large]
    assert {made[cell_id]["devices"] for cell_id in large} == {"2"}
    assert {found["devices"] for found in others} == {None}
    assert min(made[cell_id]["time"] for cell_id in large) >= max(found["time"] for found in others)


def test_a_worker_whose_launcher_died_before_it_looked_ends(tmp_path, monkeypatch):
    root = tmp_path / "s"
    small_study.planned(root)
    monkeypatch.setenv("FAKE_SECONDS", "60")
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    command = [sys.executable, "-m", "lm.study.worker", str(root), "--follow", f"--parent={gone.pid}", f"--train={small_study.TRAIN}"]
    assert subprocess.run(command, stdout=subprocess.DEVNULL, timeout=120).returncode == 143


def test_workers_do_not_outlive_a_killed_launcher(tmp_path, monkeypatch):
    root = tmp_path / "s"
    small_study.planned(root)
    monkeypatch.setenv("FAKE_SECONDS", "60")
    launcher = _launcher(root)
    _wait_for(lambda: status_lib.read_status(root).count("running"))
    launcher.kill()
    launcher.wait()
    _wait_for(lambda: not status_lib.read_status(root).count("running"))
    assert leases.clear_stale(root, [c["id"] for c in directory.open_study(root)["cells"]]) == 0  # it gave its claim back


def test_an_interrupt_gives_the_claims_back(tmp_path, monkeypatch):
    root = tmp_path / "s"
    small_study.planned(root)
    monkeypatch.setenv("FAKE_SECONDS", "60")
    launcher = _launcher(root, stderr=subprocess.PIPE, text=True)
    _wait_for(lambda: status_lib.read_status(root).count("running"))
    launcher.send_signal(signal.SIGINT)
    _, message = launcher.communicate(timeout=120)
    assert launcher.returncode == 130
    assert "the same command continues" in message
    assert not _held(root)


def test_a_worker_that_had_to_be_killed_leaves_no_claim(tmp_path, monkeypatch):
    root = tmp_path / "s"
    small_study.planned(root)
    monkeypatch.setenv("FAKE_SECONDS", "60")
    monkeypatch.setenv("FAKE_DEAF", "1")
    monkeypatch.setattr(local, "PATIENCE_SECONDS", 0.1)

    class Interrupt(View):
        def update(self, state):
            if any(c.progress for c in state.cells):
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        LocalWorkers(1, small_study.TRAIN).run(root, lambda: False, Interrupt(io.StringIO()))
    assert not _held(root)


class _Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_shows_a_bar_over_cells_and_flops(straight):
    root, _ = straight
    full = status_lib.read_status(root)
    pending = [dataclasses.replace(c, state="pending", progress=0.0, loss=None) for c in full.cells]
    half = len(pending) // 2
    out = _Terminal()
    view = View(out)
    view.start(status_lib.Status(tuple(pending), False))
    view.update(status_lib.Status((*full.cells[:half], *pending[half:]), False))
    view.close()
    lines = out.getvalue().split("\n")
    assert len(lines) == half + 1
    bar = lines[-1].split("\r")[-3]  # behind it nothing but what removes it
    for text in (f"{half}/{len(pending)} cells", "0 running", f"last {full.cells[half - 1].loss:.4f} nats/byte", "FLOP/s"):
        assert text in bar


def test_steps_that_were_lost_make_no_negative_rate(straight):
    root, _ = straight
    full = status_lib.read_status(root)
    half = [dataclasses.replace(c, state="preempted", progress=0.5) for c in full.cells]
    out = _Terminal()
    view = View(out)
    view.start(status_lib.Status(tuple(half), False))
    time.sleep(0.01)
    view.update(status_lib.Status(tuple(dataclasses.replace(c, state="running", progress=0.4) for c in half), False))
    view.close()
    assert "-" not in re.findall(r"\[\d+:\d+<([^\]]*)FLOP/s", out.getvalue())[-1]


def test_status_shows_what_runs_and_what_is_excluded(tmp_path):
    root = tmp_path / "s"
    study = small_study.planned(root)
    running, failed = study["cells"][0], study["cells"][1]
    folder = leases.claim(root, running["id"]).begin()
    half, rate = running["steps"] // 2, 1000.0
    files.write_json(folder / "run.json", {"environment": {"device": "1 x NVIDIA H100 80GB HBM3"}})
    first, last = {"step": 1, "loss": 5.0, "tokens_per_second": 1.0}, {"step": half, "loss": 2.5, "tokens_per_second": rate}
    (folder / "metrics.jsonl").write_text(json.dumps(first) + "\n")
    assert status_lib.read_status(root).cells[0].tokens_per_second is None  # the first steps are slow: they are no rate
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in (first, last)) + '{"st')
    diverged = records.sealed({"status": "diverged", "reason": "loss is not finite"}, 1)
    files.write_json(root / "cells" / failed["id"] / "run.json", diverged)
    ended = [(cell, count) for cell, count in zip(study["cells"][2:5], (3, 0, 1234), strict=True)]
    for cell, count in ended:
        bad = {"bad_steps": {"count": count}} if count else {}
        files.write_json(root / "cells" / cell["id"] / "run.json", records.sealed({"status": "completed", **bad}, 1))
    text = table.render(status_lib.read_status(root), root, "retry")
    line = next(line for line in text.splitlines() if line.startswith(running["id"]))
    share = rate * running["flops"]["matmul_causal"] / running["tokens"] / CHIPS["h100"].flops
    left = plan_table.duration(0.5 * running["tokens"] / rate)
    assert line.split()[-6:-3] == [f"{half:,}/{running['steps']:,}", "2.500", "1k"]
    assert line.split()[-2:] == [f"{share:.0%}", left]
    assert re.search(rf"diverged cell {failed['id']} .*: loss is not finite", text)
    assert "3/19 cells completed, 1 diverged, 1 running" in text
    (line,) = [line for line in text.splitlines() if "bad" in line]
    assert line.startswith("2 cells")
    assert re.findall(r"(\w+) ([\d,]+) of", line) == [(ended[2][0]["id"], "1,234"), (ended[0][0]["id"], "3")]
    assert "the forecast is not written yet" in text
