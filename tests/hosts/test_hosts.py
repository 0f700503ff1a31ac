"""Real processes on one machine, which meet through JAX's coordination service and add up over gloo."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lm.config import apply_overrides, to_dict
from lm.train.config import RunConfig

ROOT = Path(__file__).resolve().parents[2]
STEPS, LIMIT = 12, 120  # seconds


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """A model of one layer, 8 rows of 32 bytes a step; the path of its file, and of one of many steps."""
    folder = tmp_path_factory.mktemp("hosts")
    for part in range(20):
        lines = (f"the {i}th line says that {i} and {i * i % 97} are numbers\n" for i in range(part * 100, part * 100 + 100))
        (folder / f"{part:02d}.txt").write_text("".join(lines))
    changes = ["data.sequence_length=32", "evaluation.documents_bytes=2000", "evaluation.curve_bytes=1000", "evaluation.stride=16"]
    changes += ["log.tensorboard=false", "log.every_steps=1", "model.vocab_size=259", "model.d_model=16", "model.num_layers=1"]
    changes += ["model.max_length=32", "model.attention.num_heads=1", "model.mlp.d_ff=32", "optim.learning_rate=1e-2"]
    changes += [f"data_dir={folder / 'data'}", "data.components.0.corpus=text_files", "data.allow_epochs=true"]
    changes += ["data.components.0.paths=" + ",".join(map(str, sorted(folder.glob("*.txt")))), f"train_tokens={STEPS * 8 * 32}"]
    (folder / "c.json").write_text(json.dumps(to_dict(apply_overrides(RunConfig(), changes))))
    return folder / "c.json"


def command(config, workdir, *flags, devices):
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices)}
    words = [sys.executable, "-m", "lm.run", f"--config={config}", f"--workdir={workdir}", *flags]
    return subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


@contextlib.contextmanager
def started(config, workdir, *flags, processes, devices):
    """Processes of one run; killed in any case when the block ends."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    hosts = [f"--coordinator=127.0.0.1:{port}", f"--num_processes={processes}", "--peer_timeout=5", "--join_timeout=60"]
    if processes == 1:
        hosts = []
    children = [
        command(config, workdir, *flags, *hosts, *([f"--process_id={i}"] if hosts else []), devices=devices // processes)
        for i in range(processes)
    ]
    try:
        yield children
    finally:
        for child in children:
            child.kill()
            child.communicate()


def ended(children):
    """(exit status, stdout, stderr) of each."""
    deadline, found = time.monotonic() + LIMIT, []
    for child in children:
        out, errors = child.communicate(timeout=max(deadline - time.monotonic(), 1))
        found.append((child.returncode, out, errors))
    return found


def trained(config, workdir, *flags, processes, devices):
    with started(config, workdir, *flags, processes=processes, devices=devices) as children:
        found = ended(children)
    assert [status for status, *_ in found] == [0] * processes, found
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()], found


def underway(workdir, children):
    metrics, deadline = workdir / "metrics.jsonl", time.monotonic() + LIMIT
    while not (metrics.exists() and metrics.stat().st_size) and time.monotonic() < deadline:
        assert all(child.poll() is None for child in children), [child.communicate() for child in children]
        time.sleep(0.05)


def numbers(rows):
    return [{name: value for name, value in row.items() if name != "tokens_per_second"} for row in rows]


def test_two_processes_are_as_one(config, tmp_path):
    """Bit for bit on two devices: a sum of two does not depend on its order. And what is written is written once."""
    one, _ = trained(config, tmp_path / "one", processes=1, devices=2)
    two, found = trained(config, tmp_path / "two", processes=2, devices=2)
    assert [row["step"] for row in two] == list(range(1, STEPS + 1))
    assert numbers(one) == numbers(two)
    records = [json.loads((tmp_path / name / "run.json").read_text()) for name in ("one", "two")]
    assert [record["environment"]["processes"] for record in records] == [1, 2]
    for part in ("final", "curve", "tokens", "steps", "status"):
        assert records[0][part] == records[1][part]
    assert "held out" in found[0][1]
    assert "held out" not in found[1][1]
    with started(config, tmp_path / "two", "--config.seed=5", processes=2, devices=2) as children:
        refused = ended(children)
    assert [status for status, *_ in refused] == [2, 2]
    for _, _, errors in refused:
        assert "holds another run (seed: 0 -> 5)" in errors.splitlines()[-1]
        assert "Traceback" not in errors


def test_a_signal_to_one_of_four_stops_all_at_one_step_and_any_number_continues(config, tmp_path):
    steps = 4000
    flags = [f"--config.train_tokens={steps * 256}", "--config.evaluation.points_per_decade=0", "--config.log.every_steps=20"]
    flags += ["--config.mesh.fsdp=2", "--config.mesh.data=2"]
    with started(config, tmp_path, *flags, processes=4, devices=4) as children:
        underway(tmp_path, children)
        children[2].send_signal(signal.SIGTERM)
        found = ended(children)
    assert [status for status, *_ in found] == [143] * 4, found
    stopped = json.loads((tmp_path / "run.json").read_text())["steps"]
    assert 0 < stopped < steps
    assert [folder.name for folder in (tmp_path / "checkpoints").iterdir()] == [f"{stopped:08d}"]
    for processes, number, status in ((1, signal.SIGINT, 130), (2, signal.SIGINT, 130)):  # each goes on where the one before stopped
        before = json.loads((tmp_path / "run.json").read_text())["steps"]
        seen = (tmp_path / "metrics.jsonl").stat().st_size
        with started(config, tmp_path, *flags, processes=processes, devices=4) as children:
            while (tmp_path / "metrics.jsonl").stat().st_size <= seen:
                assert all(child.poll() is None for child in children), [child.communicate() for child in children]
                time.sleep(0.05)
            children[-1].send_signal(number)
            found = ended(children)
        assert [code for code, *_ in found] == [status] * processes, found
        assert json.loads((tmp_path / "run.json").read_text())["resumes"][-1]["step"] == before
    rows = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert rows == list(range(20, rows[-1] + 1, 20))


@pytest.mark.parametrize(("who", "number"), [(1, signal.SIGKILL), (0, signal.SIGKILL), (1, signal.SIGSTOP)])
def test_a_process_that_dies_or_hangs_ends_the_others_by_name(config, tmp_path, who, number):
    with started(config, tmp_path, f"--config.train_tokens={4000 * 256}", processes=2, devices=2) as children:
        underway(tmp_path, children)
        children[who].send_signal(number)
        since = time.monotonic()
        _, errors = children[1 - who].communicate(timeout=LIMIT)
        assert children[1 - who].returncode == 75
        assert time.monotonic() - since < 40  # the limit is 5 s, and the machine may be busy
        assert f"process {who}" in errors.splitlines()[-1]
        assert "continues from the last checkpoint" in errors.splitlines()[-1]
        assert "Traceback" not in errors
