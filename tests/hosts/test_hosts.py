"""Real processes on one machine, which meet through JAX's coordination service and add up over gloo."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
import small_study
from hosts.starting import ROOT, TOKENS, ended, metrics_of, record_of, small, started, underway, wait_for, written

from lm.study import records

ALL = os.environ.get("HOSTS") == "all"
LONG = 4000  # steps of a run that is not to end by itself
FLAGS = [f"--config.train_tokens={LONG * TOKENS}", "--config.evaluation.points_per_decade=0", "--config.log.every_steps=20"]


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hosts")
    return ["-m", "lm.run", f"--config={written(small(folder), folder / 'c.json')}", *FLAGS]


def stopped(words, workdir, *, processes, devices, number, status):
    """Starts a run, or continues it, and sends one of its processes a signal; the step at which all have stopped."""
    seen = (workdir / "metrics.jsonl").stat().st_size if workdir.exists() else 0
    with started(*words, f"--workdir={workdir}", processes=processes, devices=devices) as children:
        underway(workdir, children, seen)
        children[-1].send_signal(number)
        found = ended(children)
    assert [code for code, *_ in found] == [status] * processes, found
    assert "stopped at step" in found[0][1]
    assert "stopped at step" not in "".join(out for _, out, _ in found[1:])
    steps = record_of(workdir)["steps"]
    assert 0 < steps < LONG
    assert f"{steps:08d}" in [folder.name for folder in (workdir / "checkpoints").iterdir()]
    return steps


@pytest.mark.skipif(not ALL, reason="starts processes for longer than make test has: make hosts runs it")
def test_any_number_of_processes_continues_what_four_began(command, tmp_path):
    words, workdir, steps = [*command, "--config.mesh.fsdp=2", "--config.mesh.data=2"], tmp_path / "run", []
    for processes, number, status in ((4, signal.SIGTERM, 143), (1, signal.SIGINT, 130), (2, signal.SIGINT, 130)):
        steps.append(stopped(words, workdir, processes=processes, devices=4, number=number, status=status))
    assert [resume["step"] for resume in record_of(workdir)["resumes"]] == steps[:-1]
    rows = [row["step"] for row in metrics_of(workdir)]
    assert rows == list(range(20, rows[-1] + 1, 20))


def ends_by_name(errors, who):
    assert f"process {who}" in errors.splitlines()[-1]
    assert "continues from the last checkpoint" in errors.splitlines()[-1]
    assert "Traceback" not in errors


@pytest.mark.skipif(not ALL, reason="starts processes for longer than make test has: make hosts runs it")
def test_strangers_that_speak_to_process_0_do_not_end_a_run(command, tmp_path):
    stranger = "from jaxlib import _jax; _jax.get_distributed_runtime_client('{}', 7, init_timeout=5).connect()"
    with started(*command, f"--workdir={tmp_path}", processes=2, devices=2) as children:
        underway(tmp_path, children)
        place = next(word for word in children[0].args if word.startswith("--coordinator=")).partition("=")[2]
        port = int(place.rpartition(":")[2])
        for said in (b"\0" * 100, b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(range(256)), b"x" * 100_000):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)) as call:
                call.sendall(said)
        silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(50)]
        assert subprocess.run([sys.executable, "-c", stranger.format(place)], capture_output=True, check=False).returncode != 0
        twice = subprocess.run(children[1].args, cwd=ROOT, capture_output=True, text=True, check=False)
        assert twice.returncode == 2
        assert "process 1" in twice.stderr
        for address in {found[4][0] for found in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)} | {_outward()}:
            if address and not address.startswith("127."):
                with pytest.raises(ConnectionRefusedError):
                    socket.create_connection((address, port), timeout=5)
        underway(tmp_path, children, (tmp_path / "metrics.jsonl").stat().st_size)
        children[0].send_signal(signal.SIGTERM)
        assert [code for code, *_ in ended(children)] == [143, 143]
        for call in silent:
            call.close()


def _outward():
    """The address from which this machine would call others; '' without a network."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        return probe.getsockname()[0]
    return ""


@pytest.mark.skipif(not ALL, reason="starts processes for longer than make test has: make hosts runs it")
@pytest.mark.parametrize(("who", "number"), [(0, signal.SIGKILL), (1, signal.SIGSTOP), (1, signal.SIGKILL)])
def test_a_process_that_dies_in_training_ends_the_others(command, tmp_path, who, number):
    with started(*command, f"--workdir={tmp_path}", processes=2, devices=2) as children:
        underway(tmp_path, children)
        children[who].send_signal(number)
        _, errors = children[1 - who].communicate(timeout=120)
        assert children[1 - who].returncode == 75
        ends_by_name(errors, who)


def meeting(how, folder):
    return started(ROOT / "tests/hosts/meeting.py", how, folder, processes=2, devices=2)


def test_processes_that_die_or_hang_end_the_others_by_name(tmp_path):
    """One run of each kind at once: most of their time is the limit of 5 s."""
    runs = []
    with contextlib.ExitStack() as stack:
        for who, number in ((0, signal.SIGKILL), (1, signal.SIGSTOP)):
            (folder := tmp_path / number.name).mkdir()
            runs.append((who, number, folder, stack.enter_context(meeting("waiting", folder))))
        for who, number, folder, children in runs:
            wait_for(lambda folder=folder: len(list(folder.iterdir())) == 2, children)
            children[who].send_signal(number)
        since = time.monotonic()
        for who, _, _, children in runs:
            _, errors = children[1 - who].communicate(timeout=120)
            assert children[1 - who].returncode == 75
            assert time.monotonic() - since < 40  # the machine may be busy
            ends_by_name(errors, who)


def test_a_signal_before_the_first_step_ends_all_at_once_with_its_status(tmp_path):
    """They may be in a compiler then, and have nothing to save."""
    with meeting("waiting", tmp_path) as children:
        wait_for(lambda: len(list(tmp_path.iterdir())) == 2, children)
        children[1].send_signal(signal.SIGUSR1)
        since = time.monotonic()
        found = ended(children)
    assert time.monotonic() - since < 20
    assert [status for status, *_ in found] == [138, 138], found
    assert "Traceback" not in "".join(errors for *_, errors in found)


def test_a_refusal_is_one_line_of_both(tmp_path):
    with meeting("refused", tmp_path) as children:
        found = ended(children)
    assert [status for status, *_ in found] == [2, 2], found
    for _, _, errors in found:
        assert errors.splitlines()[-1] == "error: no such run"
        assert "Traceback" not in errors


def test_an_error_on_one_ends_the_other_by_its_name(tmp_path):
    with meeting("failed", tmp_path) as children:
        (first, _, says), (second, _, says_itself) = ended(children)
    assert (first, second) == (75, 2)
    assert says_itself.splitlines()[-1] == "error: no room here"
    assert "no room here" in says.splitlines()[-1]
    ends_by_name(says, 1)
    assert "Traceback" not in says_itself


@pytest.mark.skipif(not ALL, reason="starts processes for longer than make test has: make hosts runs it")
def test_an_error_of_one_process_of_a_worker_fails_the_cell_with_its_reason(tmp_path):
    """The others wait in a collective, and end within seconds; the cell is tried once more, and then the worker goes on with the next."""
    root = tmp_path / "s"
    cells = [cell["id"] for cell in small_study.planned(root)["cells"][:1]]
    words = ["-m", "lm.study.worker", root, "--train=tests.hosts.one_fails:train", f"--only={cells[0]}"]
    for expected in ([75, 1], [75, 1], [0, 0]):
        since = time.monotonic()
        with started(*words, processes=2, devices=2) as children:
            found = ended(children)
        assert [status for status, *_ in found] == expected, found
        assert time.monotonic() - since < 90
    record = records.read(root / "cells" / cells[0])
    assert record["status"] == "failed"
    assert record["reason"] == f"process 1 of 2 ({socket.gethostname()}): ValueError: here alone"
    assert "one_fails.py" in (root / "cells" / cells[0] / records.FAILURES).read_text()
