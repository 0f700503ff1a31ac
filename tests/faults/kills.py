"""Kills a small run at random moments, again and again, and compares it with one that nothing disturbed.

    python tests/faults/kills.py [--kills=50]

Each time SIGKILL comes after up to 1.5 s of training, in which the run makes steps, saves, evaluates and logs. The same
command then goes on. A run that has ended must have the weights, moments, metrics and record of the undisturbed run bit for
bit, and all checkpoints have to be sound after every kill. Exits non-zero when one is not so.
"""

import argparse
import dataclasses
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

import preloaded

preloaded.run_again()

import jax  # noqa: E402 after the script has been started again

from lm.mesh import MeshConfig  # noqa: E402
from lm.sharding import make_mesh  # noqa: E402
from lm.train import manifest, record, sealed  # noqa: E402
from lm.train.program import compile_program  # noqa: E402
from tests.train.conftest import CONFIG  # noqa: E402
from tests.train.stub import StubModel, StubStream  # noqa: E402
from tests.train.test_loop import lasting, lines, run, with_checkpoints  # noqa: E402

EVERY, STEPS = 4, 40
SECONDS = 1.5  # of training until a kill, at most


@dataclasses.dataclass(frozen=True)
class SlowStream(StubStream):
    """Takes as long for a batch as a step of a larger model."""

    def iterate(self, start: int, stop: int):
        for k in range(start, stop):
            time.sleep(0.02)
            yield self[k]


def train(workdir: Path, cache: Path, after: float | None) -> None:
    """Trains or continues the run, and kills it after some seconds."""
    jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    config = with_checkpoints(EVERY, dataclasses.replace(CONFIG, train_tokens=STEPS * 64))
    program = compile_program(config, StubModel(), make_mesh(MeshConfig(), devices=jax.devices()[:1]))
    if after is not None:
        threading.Timer(after, lambda: os.kill(os.getpid(), signal.SIGKILL)).start()
    run(workdir, program, SlowStream(), config)
    os._exit(0)  # before the timer


def outcome(workdir: Path) -> tuple:
    """Returns what has to be the same: the record, the metrics, and the checksums of weights and moments, which are sound."""
    step = sealed.steps(workdir)[-1]
    assert not sealed.verify(workdir, step)
    found = record.read(workdir)
    assert found is not None
    return lasting(found), lines(workdir), step, manifest.read(sealed.path_of(workdir, step))["arrays"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, help="SIGKILLs (default: %(default)s)")
    wanted, rng, began = parser.parse_args().kills, random.Random(0), time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        assert preloaded.forked(lambda: train(folder / "straight", folder / "cache", None)) == 0
        expected = outcome(folder / "straight")
        kills, ended, lost, found, workdir = 0, 0, 0, [], folder / "killed"
        while kills < wanted or workdir.exists():
            before = max(sealed.steps(workdir), default=0)
            after = rng.uniform(0, SECONDS) if kills < wanted else None
            status = preloaded.forked(lambda after=after: train(workdir, folder / "cache", after))
            if status == -signal.SIGKILL:
                kills += 1
                made = max((row["step"] for row in lines(workdir)), default=0)
                lost = max(lost, made - max(sealed.steps(workdir), default=0))
                found += [f"after kill {kills} step {step} is not sound" for step in sealed.steps(workdir) if sealed.verify(workdir, step)]
                found += [f"kill {kills}: an earlier checkpoint is gone"] if max(sealed.steps(workdir), default=0) < before else []
                continue
            ended += 1
            found += [f"run {ended} ended with status {status}"] if status else []
            found += [] if outcome(workdir) == expected else [f"run {ended}, killed and continued, is not the undisturbed one"]
            shutil.rmtree(workdir)
    print(f"{kills} kills at random, {ended} runs that ended meanwhile, at most {lost} steps lost; {time.monotonic() - began:.0f} s")
    print("\n".join(found) or "every run is the undisturbed one bit for bit")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
