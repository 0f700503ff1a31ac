"""Sends a run signals at random moments, until it is complete, and compares it with the undisturbed run.

    python tests/faults/signals.py [--faults 12 4] [--seed=0]

A run of one process and one of two get SIGINT, SIGTERM, SIGHUP, SIGUSR1 and SIGUSR2 while they prepare, compile, train and evaluate; of two
one gets it, or both. Some get a second signal, some a limit on their time, and some have their standard output closed. Exits non-zero when
a status is not the documented one, an end takes too long, there is a traceback, or the loss differs. 5 minutes.
"""

import argparse
import collections
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from hosts.starting import TOKENS, metrics_of, record_of, small, started, written  # noqa: E402 from tests/, which the lines above put on the path

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
STEPS = {1: 1500, 2: 60}  # by processes
WITHIN, AT_ONCE = 30.0, 3.0  # seconds for an end, and after a second signal: 1, and what a busy machine needs
CHANGES = ("log.every_steps=10", "evaluation.points_per_decade=3", "checkpoint.every_steps=1000")


def catches(child: subprocess.Popen) -> bool:
    """Says whether the command takes signals itself: earlier ones have their usual effect."""
    status = Path(f"/proc/{child.pid}/status").read_text(encoding="utf-8")
    caught = next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(caught >> (signal.SIGUSR1 - 1) & 1)


def wait_for_moment(workdir: Path, children: list, rng: random.Random) -> None:
    """Waits until the run trains, or a part of the time that it prepares and compiles."""
    if rng.random() > 0.7:
        time.sleep(rng.uniform(0, 4))
        return
    seen, deadline = lines(workdir), time.monotonic() + 120
    while lines(workdir) == seen and time.monotonic() < deadline and all(child.poll() is None for child in children):
        time.sleep(0.02)
    time.sleep(rng.uniform(0, 0.3))


def disturb(words: list, workdir: Path, how: str, rng: random.Random, processes: int) -> tuple[str, list[str]]:
    """Starts or continues the run, disturbs it once, and returns what happened and what was wrong."""
    limit = ["--time_limit=8s"] if how == "time" else []
    with started(*words, *limit, processes=processes, devices=processes) as children:
        while not all(child.poll() is not None or catches(child) for child in children):
            time.sleep(0.02)
        if how == "closed":
            for child in children:
                child.stdout.close()
                child.stdout = None
        wait_for_moment(workdir, children, rng)
        number, who, allowed = rng.choice(SIGNALS), rng.choice(children), WITHIN
        expected = 124 if how == "time" else 128 + number
        if how != "time":
            for child in children if how == "both" else [who]:
                child.send_signal(number)
            if how == "second":
                time.sleep(0.4)
                who.send_signal(number)
                children, allowed = [who], AT_ONCE
        since = time.monotonic()
        found = [child.communicate(timeout=120) for child in children]
        spent = time.monotonic() - since
        # As a shell has it: a process that is at its very end, its run complete, has no handler any more.
        codes = [128 - code if code < 0 else code for code in (child.returncode for child in children)]
    errors = "".join(error for _, error in found)
    if "did not meet the others" in errors:  # by the limit on the time to join: the signal ended one before they had met
        return f"{how}: before they had met", []
    wrong = [] if set(codes) <= {expected, 0} else [f"{how}: status {codes}, not {expected}: {errors[-500:]}"]
    wrong += [f"{how}: it took {spent:.1f} s"] if spent > allowed else []
    wrong += [f"{how}: {errors[-1500:]}"] if "Traceback" in errors or "loop is closed" in errors else []
    return f"{how}: {'ended' if codes == [0] * len(codes) else 'stopped'}", wrong


def lines(workdir: Path) -> int:
    """Returns the size of the metrics, which grow while the run trains."""
    path = workdir / "metrics.jsonl"
    return path.stat().st_size if path.exists() else 0


def complete(words: list, processes: int) -> None:
    """Lets the run go to its end."""
    with started(*words, processes=processes, devices=processes) as children:
        ends = [child.communicate(timeout=600) for child in children]
    assert all(child.returncode == 0 for child in children), ends


def outcome(workdir: Path) -> tuple:
    record = record_of(workdir)
    return record["status"], record["final"], record["curve"], metrics_of(workdir)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, nargs=2, default=(12, 4), help="of the run of one process and of that of two (default: 12 4)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng, wrong, met = random.Random(args.seed), [], collections.Counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder / "no-cache")
        os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "0"  # to meet the compiler each time
        config = written(small(folder, *CHANGES), folder / "c.json")
        for processes, faults in enumerate(args.faults, 1):
            if not faults:
                continue
            extra = [f"--config.mesh.data={processes}", f"--config.train_tokens={STEPS[processes] * TOKENS}"]
            command = ["-m", "lm.run", f"--config={config}", *extra]
            words = {kind: [*command, f"--workdir={folder / kind}-{processes}"] for kind in ("straight", "disturbed")}
            complete(words["straight"], processes)
            hows = ["first", "first", "closed", "second", "first", "time"] if processes == 1 else ["first", "both", "second"]
            for i in range(faults):
                said, faulty = disturb(words["disturbed"], folder / f"disturbed-{processes}", hows[i % len(hows)], rng, processes)
                met[said] += 1
                print("\n".join([f"  {said}", *faulty]), flush=True)
                wrong += faulty
            complete(words["disturbed"], processes)
            straight, disturbed = (outcome(folder / f"{kind}-{processes}") for kind in ("straight", "disturbed"))
            resumes = len(record_of(folder / f"disturbed-{processes}")["resumes"])
            print(f"{processes} process{'es' * (processes > 1)}: {faults} faults, continued {resumes} times", flush=True)
            wrong += [] if straight == disturbed else [f"the run of {processes} processes is another: {straight[:2]} -> {disturbed[:2]}"]
    print(dict(met))
    print("\n".join(wrong) or "every status is the documented one, and the runs are the undisturbed ones bit for bit")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
