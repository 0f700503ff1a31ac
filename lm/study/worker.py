"""`python -m lm.study.worker STUDY_DIR [--cores=0]` trains the pending cells of a planned study until none is left.

Any number of workers, on any number of machines that share the directory, may run at once. Each should have one core: XLA on CPU gives
other bits on another number of cores. A worker that is killed leaves a claim that others find stale; the cell is trained again from its
last checkpoint, or from its start, with the same result.
"""

import argparse
import collections
import dataclasses
import importlib
import os
import pathlib
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any, Optional, Protocol

from lm import config as config_lib
from lm.errors import UserError, run_cli
from lm.study import directory, gate, leases, machine, records
from lm.study.rows import read_json
from lm.train.config import RunConfig

POLL_SECONDS = 0.3
MAX_DEATHS = 3  # workers that may be killed one after another while they train a cell, with no checkpoint in between


class Train(Protocol):
    """Trains one run in `workdir` and writes its run.json there; raises errors that it cannot handle."""

    def __call__(self, config: RunConfig, workdir: pathlib.Path, /) -> Any: ...


def pending(root: pathlib.Path, study: dict[str, Any], finished: set[str]) -> list[dict[str, Any]]:
    """Returns the cells that are not finished and whose stage is open; adds the ids of finished ones to `finished`."""
    stages: dict[int, bool] = {}
    cells = []
    for cell in study["cells"]:
        if cell["id"] in finished:
            continue
        if records.is_finished(root / "cells" / cell["id"]):
            leases.settle(root / "cells" / cell["id"])  # its worker may have been killed before it did
            finished.add(cell["id"])
        elif stages.setdefault(cell["stage"], gate.is_open(root, cell["stage"])):
            cells.append(cell)
    return cells


def order(root: pathlib.Path, cells: list[dict[str, Any]], shape_key: Optional[str]) -> Iterator[dict[str, Any]]:
    """Yields the free cells, best first: those of the shape just compiled, then of shapes that nobody works on, then the rest.

    So one worker compiles each executable, and others read it from the cache when they come to help. Longer cells go first.
    """
    held = {cell["id"] for cell in cells if leases.holder(root / "cells" / cell["id"]) is not None}
    busy = {cell["shape_key"] for cell in cells if cell["id"] in held}
    work: dict[str, float] = collections.defaultdict(float)  # seconds of free cells, by shape
    for cell in cells:
        work[cell["shape_key"]] += cell["seconds"] * (cell["id"] not in held)

    def rank(cell: dict[str, Any]) -> tuple:
        key = cell["shape_key"]
        return (key != shape_key, key in busy, -work[key], key, -cell["seconds"])

    yield from sorted((cell for cell in cells if cell["id"] not in held), key=rank)


def work(root: pathlib.Path, train: Train, *, follow: bool = False, log: Callable[[str], None] = print) -> int:
    """Trains cells until none can be claimed.

    Args:
        root: the study's directory
        train: trains one run
        follow: wait for cells that others hold or whose stage is not open yet, until all are finished
        log: takes a line for each cell

    Returns: how many cells it trained.
    """
    study = directory.open_study(root)
    finished: set[str] = set()
    shape_key, trained = None, 0
    while True:
        cells = pending(root, study, finished)
        lease = next(filter(None, (leases.claim(root, c["id"]) for c in order(root, cells, shape_key))), None)
        if lease is not None:
            cell = next(c for c in cells if c["id"] == lease.cell.name)
            run_cell(root, study, cell, lease, train, log)
            shape_key, trained = cell["shape_key"], trained + 1
        elif follow and len(finished) < len(study["cells"]):
            time.sleep(POLL_SECONDS)
        else:
            return trained


def run_cell(
    root: pathlib.Path, study: dict[str, Any], cell: dict[str, Any], lease: leases.Lease, train: Train, log: Callable[[str], None]
) -> None:
    """Trains a claimed cell, commits its record and gives the claim back. A cell that another took over meanwhile is left to it.

    An error of the cell (out of memory, say) is recorded in its run.json. UserError and OSError are faults of the environment: raised.
    """
    start = time.monotonic()
    try:
        with _Heartbeat(lease, log):
            lease.commit(_trained(root, study, cell, lease, train, log))
        log(f"cell {cell['id']} finished after {time.monotonic() - start:.1f} s")
    except (leases.Lost, UserError, OSError, KeyboardInterrupt, SystemExit) as error:
        if not isinstance(error, leases.Lost) and not lease.is_lost():
            raise  # a fault of the disk, the data or the installation, or a signal
        log(f"cell {cell['id']} is left to another worker: this one had no heartbeat for too long")
    finally:
        lease.give_back()


def _trained(
    root: pathlib.Path, study: dict[str, Any], cell: dict[str, Any], lease: leases.Lease, train: Train, log: Callable[[str], None]
) -> dict[str, Any]:
    """Trains a claimed cell and returns the record of its end."""
    path = lease.cell / "config.json"
    if not path.exists():
        again = f"`python -m experiments {study['name']} retry` writes it and trains the cell"
        return records.failed(lease.workdir, cell, f"{path} is missing: {again}")
    config = config_lib.from_dict(RunConfig, read_json(path, f"{path} is missing"))
    if config_lib.identity(config, fingerprint=study["fingerprint"]) != cell["id"]:
        raise UserError(
            f"{path} is not the run that was planned: delete it, and `python -m experiments {study['name']} plan` writes it as it was"
        )
    workdir = lease.begin()
    if lease.deaths >= MAX_DEATHS:
        why = f"its worker died {lease.deaths} times in the same place, killed from outside (memory ran out?)"
        return records.failed(workdir, cell, why)
    try:
        train(config, workdir)
    except (UserError, OSError):
        raise
    except Exception as error:  # a fault of this cell alone: it is recorded, and the others go on
        log(traceback.format_exc())
        return records.failed(workdir, cell, records.reason_of(lease.cell, error))
    return _checked(workdir, cell)


def _checked(workdir: pathlib.Path, cell: dict[str, Any]) -> dict[str, Any]:
    """Returns the record that the training function left; UserError unless it is of this run, on the data that the study was planned on."""
    path = workdir / records.FILE
    record = read_json(path, f"cell {cell['id']} ended without {path}: this is a fault of the training function")
    if record.get("status") not in records.FINISHED:
        raise UserError(f"cell {cell['id']} ended with status {record.get('status')}: this is a fault of the training function")
    if record.get("id") != cell["id"]:
        shutil.rmtree(workdir)  # it is the other run's: this cell must not go on from it
        raise UserError(
            f"the data have changed since the study was planned: cell {cell['id']} became run {record.get('id')}; restore the data"
        )
    return record


class _Heartbeat:
    """Renews a lease while its cell trains, and stops the training when the lease is lost."""

    def __init__(self, lease: leases.Lease, log: Callable[[str], None]):
        self._lease, self._log, self._stop = lease, log, threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def _beat(self) -> None:
        while not self._stop.wait(leases.HEARTBEAT_SECONDS):
            try:
                if not self._lease.renew():
                    return _interrupt()
            except OSError as error:  # of the file server, such as ESTALE: it may be back before the lease runs out
                left = self._lease.until - machine.clock()
                self._log(f"no heartbeat of cell {self._lease.cell.name} ({error.strerror}); its lease ends in {left:.0f} s")

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def _interrupt() -> None:
    """Stops what the main thread trains, as SIGTERM does, unless that would end the process."""
    if callable(signal.getsignal(signal.SIGTERM)):
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)


def pin(cores: set[int]) -> None:
    """Binds this process and the threads that it starts to cores; has to come before jax is imported, which sizes its thread pool then."""
    if not hasattr(os, "sched_setaffinity"):
        print("this system cannot bind a process to cores: results depend on this machine's number of cores", file=sys.stderr)
        return
    try:
        os.sched_setaffinity(0, cores)
    except OSError:
        allowed = ",".join(map(str, sorted(os.sched_getaffinity(0))))
        raise UserError(
            f"--cores={','.join(map(str, sorted(cores)))}: choose among the cores {allowed}, which this process may use"
        ) from None


def use_cache(root: pathlib.Path) -> None:
    """Keeps compiled executables in the study's directory; has to come before jax is imported."""
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str((root / "cache").resolve()))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")


def end_with(parent: int) -> None:
    """Ends this process soon after its parent, even one that is gone already, so that a killed launcher leaves no worker behind."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        leases.give_back_all()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def load_train(name: str, root: pathlib.Path) -> Train:
    """Imports the training function "MODULE:FUNCTION" and gives its runs the study's folder of data."""
    module, _, function = name.partition(":")
    try:
        function = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise UserError(f"cannot load the training function {name}: {error}") from error
    data_dir = os.path.normpath(root / directory.open_study(root)["data_dir"])

    def train(config: RunConfig, workdir: pathlib.Path) -> Any:
        return function(dataclasses.replace(config, data_dir=str(data_dir)), workdir)

    return train


def main(argv: Optional[list[str]] = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m lm.study.worker",
        description="Trains the pending cells of a planned study, one after another, until none is left. Start as many workers as there "
        "are cores, on one machine or several that share the directory; each claims a cell before it trains it.",
    )
    parser.add_argument("study_dir", type=pathlib.Path, help="the directory that `python -m experiments NAME plan` wrote")
    parser.add_argument("--cores", default=None, help="cores to bind to, such as 0 or 0,1 (default: all); give each worker one core")
    parser.add_argument(
        "--follow", action="store_true", help="wait for cells that other workers hold or whose stage is closed, until all are finished"
    )
    parser.add_argument("--parent", type=int, default=None, metavar="PID", help="process that starts this one; end soon after it")
    parser.add_argument(
        "--train", default="lm.runner:train_cell", metavar="MODULE:FUNCTION", help="training function (default: %(default)s)"
    )
    args = parser.parse_args(argv)
    directory.open_study(args.study_dir)
    machine.require_clock(args.study_dir)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if args.cores is not None:
        pin(_cores(args.cores))
    if args.parent is not None:
        end_with(args.parent)
    use_cache(args.study_dir)
    count = work(args.study_dir, load_train(args.train, args.study_dir), follow=args.follow, log=lambda line: print(line, flush=True))
    print(f"{count} cells trained", flush=True)
    return 0


def _cores(text: str) -> set[int]:
    try:
        return {int(part) for part in text.split(",")}
    except ValueError:
        raise UserError(f"--cores={text}: give core numbers, such as 0 or 0,1") from None


if __name__ == "__main__":
    run_cli(main)
