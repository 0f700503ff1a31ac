"""Stops, wakes and kills workers at random while they share a study, and compares the results with those of an undisturbed one.

    python tests/faults/leases.py [--faults=40]

Three workers train cells of .3 s with leases of .8 s. Every fault is a signal: SIGKILL, or SIGSTOP for longer than a
lease and then SIGCONT. Then two workers at a time share small studies while calls on the files of cells fail, one kind of
call after the other; one that ends with a line is started again. Exits non-zero when a result differs, a record has no
seal, or anything of an epoch is left.
"""

import argparse
import contextlib
import errno
import itertools
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

import preloaded

preloaded.run_again()

import small_study  # noqa: E402 after the script has been started again

from lm.study import leases, records  # noqa: E402
from lm.study.rows import read_rows  # noqa: E402

LEASE, STALE = 0.8, 1.2  # seconds
WORKER = f"""
import pathlib, sys, fake_train
from lm.errors import run_cli
from lm.study import leases, worker
from lm.train import signals
leases.LEASE_SECONDS, leases.STALE_SECONDS, leases.HEARTBEAT_SECONDS, worker.MAX_DEATHS = {LEASE}, {STALE}, 0.1, 1000
with signals.Stop(at_once=True):
    run_cli(lambda: worker.work(pathlib.Path(sys.argv[1]), fake_train.train, follow=True) and None)
"""


FAILING = {
    "create": errno.ENOSPC, "write": errno.ENOSPC, "mkdir": errno.ENOSPC, "open": errno.EIO, "read": errno.ESTALE, "touch": errno.ESTALE,
    "link": errno.EIO, "rename": errno.EIO, "unlink": errno.EIO,
}  # fmt: skip


def start(root: pathlib.Path, seconds: float, **faults: object) -> subprocess.Popen:
    path = os.pathsep.join(sys.path[:2])
    with open(root / "worker.log", "a") as log:
        environment = os.environ | {"PYTHONPATH": path, "FAKE_SECONDS": str(seconds)}
        environment |= {f"FAULTY_{name}": str(value) for name, value in faults.items()}
        return subprocess.Popen([sys.executable, "-c", WORKER, str(root)], stdout=log, stderr=log, env=environment)


def disturb(root: pathlib.Path, faults: int, rng: random.Random) -> dict[str, int]:
    """Trains the study with three workers and returns how many faults of each kind they met."""
    team, woken = [start(root, 0.3) for _ in range(3)], {}
    met = {"killed": 0, "stopped and woken": 0}
    ended = [path.stem for path in root.glob("cells/*")]
    while not all(records.is_finished(root / "cells" / name) for name in ended):
        time.sleep(rng.uniform(0.05, 0.4))
        for worker in [worker for worker, moment in woken.items() if time.monotonic() > moment]:
            worker.send_signal(signal.SIGCONT)
            del woken[worker]
        team = [worker if worker.poll() is None else start(root, 0.3) for worker in team]
        worker = rng.choice(team)
        if sum(met.values()) >= faults or worker in woken:
            continue
        if rng.random() < 0.3:
            worker.kill()
            met["killed"] += 1
        else:
            worker.send_signal(signal.SIGSTOP)
            woken[worker] = time.monotonic() + STALE * rng.uniform(0.5, 2.5)
            met["stopped and woken"] += 1
    for worker in team:
        worker.send_signal(signal.SIGCONT)  # those that sleep still find their cells ended by others
    time.sleep(1.0)
    for worker in team:
        worker.kill()
        worker.wait()
    return met


def failing_calls(root: pathlib.Path, call: str, number: int) -> int:
    """Trains the study with two workers, in each of which three calls on files of cells fail; returns how often one was started again."""
    names, skips, again = [path.stem for path in root.glob("cells/*")], itertools.count(2, 9), 0

    def begin() -> subprocess.Popen:
        return start(root, 0.1, CALLS=call, PATH=f"{root}/cells", ERRNO=number, SKIP=next(skips), LIMIT=3)

    team = [begin() for _ in range(2)]
    while not all(records.is_finished(root / "cells" / name) for name in names):
        time.sleep(0.1)
        again += sum(worker.poll() is not None for worker in team)
        team = [worker if worker.poll() is None else begin() for worker in team]
    for worker in team:
        with contextlib.suppress(subprocess.TimeoutExpired):
            worker.wait(5)
        worker.kill()
        worker.wait()
    return again


def compared(straight: pathlib.Path, root: pathlib.Path) -> list[str]:
    """Returns a line for everything in which a disturbed study differs from an undisturbed one."""
    expected, rows = ({row.id: (row.status, row.loss) for row in read_rows(place)} for place in (straight, root))
    found = [f"cell {name}: {expected[name]} -> {rows[name]}" for name in rows if rows[name] != expected[name]]
    found += [f"left behind: {path}" for path in root.glob("cells/*/epoch-*")]
    found += [] if all(records.epoch_of(records.read(path)) for path in root.glob("cells/*")) else ["a record without a seal"]
    log = (root / "worker.log").read_text()
    return found + ([log[-3000:]] if "Traceback" in log else [])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=40, help="at most so many, while the study lasts (default: %(default)s)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        roots = [pathlib.Path(folder) / name for name in ("straight", "disturbed")]
        for root in roots:
            small_study.planned(root, budgets=small_study.small().budgets[:2])
        leases.STALE_SECONDS = STALE
        disturb(roots[0], 0, random.Random(0))
        met = disturb(roots[1], args.faults, random.Random(1))
        found = compared(*roots)
        epochs = [records.epoch_of(records.read(path)) for path in roots[1].glob("cells/*")]
        lost = (roots[1] / "worker.log").read_text().count("left to another worker")
        print(f"{met}; {len(epochs)} cells, {sum(epochs)} epochs, {lost} leases lost and noticed", flush=True)
        for call, number in FAILING.items():
            root = pathlib.Path(folder) / call
            small_study.planned(root, budgets=small_study.small().budgets[:2])
            again = failing_calls(root, call, number)
            print(f"{errno.errorcode[number]} of {call}: {again} workers started again", flush=True)
            found += [f"{call}: {line}" for line in compared(roots[0], root)]
    print("\n".join(found) or "every result is that of the undisturbed study")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
