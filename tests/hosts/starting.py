"""Starts the processes of one run on this machine: a small configuration, and how to wait for their end."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from lm.config import apply_overrides, to_dict
from lm.train.config import RunConfig

ROOT = Path(__file__).resolve().parents[2]
STEPS, LIMIT = 12, 600  # seconds, of which a busy machine may need many
TOKENS = 8 * 32  # of a step
SMALL = [
    "data.sequence_length=32", "evaluation.documents_bytes=2000", "evaluation.curve_bytes=1000", "evaluation.stride=16",
    "evaluation.points_per_decade=1", "log.tensorboard=false", "log.every_steps=1", "model.vocab_size=262", "model.d_model=16",
    "model.num_layers=2", "model.max_length=32", "model.attention.num_heads=2", "model.attention.head_dim=8", "model.mlp.d_ff=32",
    "optim.learning_rate=1e-2", "execution.unroll=false", "data.components.0.corpus=text_files", "data.allow_epochs=true",
    f"train_tokens={STEPS * TOKENS}",
]  # fmt: skip


def small(folder: Path, *changes: str) -> RunConfig:
    """A model of two layers, and 8 rows of 32 bytes a step from texts in `folder`."""
    for part in range(20):
        lines = (f"the {i}th line says that {i} and {i * i % 97} are numbers\n" for i in range(part * 100, part * 100 + 100))
        (folder / f"{part:02d}.txt").write_text("".join(lines))
    paths = ",".join(map(str, sorted(folder.glob("*.txt"))))
    return apply_overrides(RunConfig(), [*SMALL, f"data_dir={folder / 'data'}", f"data.components.0.paths={paths}", *changes])


def written(config: RunConfig, path: Path) -> Path:
    path.write_text(json.dumps(to_dict(config)))
    return path


@contextlib.contextmanager
def started(*words, processes, devices, peer_timeout=5):
    """Processes of one run, of `devices` together; killed in any case when the block ends."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    hosts = [f"--coordinator=127.0.0.1:{port}", f"--num_processes={processes}", f"--peer_timeout={peer_timeout}", "--join_timeout=60"]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices // processes), "PYTHONPATH": str(ROOT)}

    def command(process):
        place = [*hosts, f"--process_id={process}"] if processes > 1 else []
        whole = [sys.executable, *map(str, words), *place]
        return subprocess.Popen(whole, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)

    children = [command(process) for process in range(processes)]
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


def wait_for(condition, children):
    """Waits until a condition holds, while all processes live."""
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline
        assert all(child.poll() is None for child in children), [child.communicate() for child in children]
        time.sleep(0.05)


def underway(workdir, children, seen=0):
    """Waits until the run has written more than so many bytes of metrics."""
    metrics = workdir / "metrics.jsonl"
    wait_for(lambda: metrics.exists() and metrics.stat().st_size > seen, children)


def metrics_of(workdir):
    """Returns the metrics of each step, without its speed."""
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "tokens_per_second"} for row in rows]


def record_of(workdir):
    return json.loads((workdir / "run.json").read_text())
