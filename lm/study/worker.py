"""`python -m lm.study.worker STUDY_DIR [--cores=0]` trains the pending cells of a planned study until none is left.

Any number of workers, on any number of machines that share the directory, may run at once. Each should have one core: XLA on CPU gives
other bits on another number of cores. A worker that is killed leaves a claim that others find stale; the cell is trained again from its
last checkpoint, or from its start, with the same result.

A worker may be several processes that train every cell together (lm.distributed): process 0 takes the cells and writes their records. Who
ends the first stage writes the forecast that opens the second.
"""

import argparse
import dataclasses
import importlib
import os
import pathlib
import random
import shutil
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any, Optional, Protocol

from lm import config as config_lib
from lm import distributed, machine, peers
from lm.errors import Parser, UserError, counted, run_cli
from lm.scaling import compile_cache
from lm.study import directory, gate, leases, records
from lm.study.order import order, place, spread
from lm.study.rows import read_json
from lm.train import made_by, signals
from lm.train.config import RunConfig
from lm.train.progress import show

POLL_SECONDS = 0.3
SAVE_SECONDS = 60.0  # in which a worker ends when its launcher is gone
PATIENCE_SECONDS = 5.0  # in which process 0 records an error that all processes of a worker meet
MAX_DEATHS = 3  # workers that may be killed one after another while they train a cell, with no checkpoint in between
MAX_ERRORS = 1  # errors of a cell's own after which it is tried again
MAX_PREEMPTED = 20  # preemptions of jobs that train a cell, one after another, with no checkpoint in between
NO_MEMORY = ("RESOURCE_EXHAUSTED", "Out of memory", "MemoryError")  # in an error that comes again whenever the cell is tried
NO_MEMORY_ADVICE = "no memory: give it more devices, more base.execution.micro_batches, or base.execution.remat='full'"
TRAIN = "lm.runner:train_cell"
BETWEEN = "lm.analysis.stage:write_forecast"


class Train(Protocol):
    """Trains one run in `workdir` and writes its run.json there; raises errors that it cannot handle."""

    def __call__(self, config: RunConfig, workdir: pathlib.Path, /) -> Any: ...


class TryAgainError(Exception):
    """A cell ended with its first error: it is given back, and tried once more."""


@dataclasses.dataclass(frozen=True)
class Wanted:
    """The cells that a worker takes; None stands for any."""

    stage: Optional[int] = None
    devices: Optional[int] = None
    only: Optional[frozenset[str]] = None

    def has(self, cell: dict[str, Any]) -> bool:
        """Says whether a cell is one of them."""
        fits = self.stage in (None, cell["stage"]) and self.devices in (None, cell.get("devices", 1))
        return fits and (self.only is None or cell["id"] in self.only)


def pending(root: pathlib.Path, study: dict[str, Any], finished: set[str], wanted: Wanted = Wanted()) -> list[dict[str, Any]]:
    """Returns the wanted cells that are not finished and whose stage is open; adds the ids of finished ones to `finished`."""
    stages: dict[int, bool] = {}
    cells = []
    for cell in study["cells"]:
        if cell["id"] in finished or not wanted.has(cell):
            continue
        if records.is_finished(root / "cells" / cell["id"]):
            leases.settle(root / "cells" / cell["id"])  # its worker may have been killed before it did
            finished.add(cell["id"])
        elif stages.setdefault(cell["stage"], gate.is_open(root, cell["stage"])):
            cells.append(cell)
    return cells


def work(
    root: pathlib.Path,
    train: Train,
    *,
    wanted: Wanted = Wanted(),
    follow: bool = False,
    between: Optional[Callable[[pathlib.Path], None]] = None,
    log: Callable[[str], None] = print,
) -> int:
    """Trains cells until none can be claimed.

    Args:
        root: the study's directory
        train: trains one run
        wanted: the cells that it takes
        follow: wait for cells that others hold or whose stage is not open yet, until all are finished
        between: opens the second stage when the first is finished (default: that is left to others)
        log: takes a line for each cell

    Returns: how many cells it trained.
    """
    study = directory.open_study(root)
    mine = [cell for cell in study["cells"] if wanted.has(cell)]
    finished: set[str] = set()
    shape_key, trained, drawn = None, 0, random.Random()
    lease: Optional[leases.Lease] = None
    idle_since: Optional[float] = None

    def choose() -> Optional[str]:
        """Takes a cell and returns its id: "" while there may be one later, None at the end."""
        nonlocal lease, idle_since
        cells = pending(root, study, finished, wanted)
        free = order(root, cells, shape_key, is_first=not finished and not trained)
        lease = next(filter(None, (leases.claim(root, cell["id"]) for cell in spread(free, 0 if trained else place(), drawn))), None)
        if lease is not None:
            idle_since = None
            return lease.cell.name
        idle_since = idle_since or time.monotonic()
        opened = between is not None and _open_next_stage(root, study, between)
        waits = opened or (follow and len(finished) < len(mine))
        return "" if waits or leases.may_fall_free(root, [cell["id"] for cell in cells], time.monotonic() - idle_since) else None

    while (chosen := distributed.first(choose)) is not None:
        if chosen:
            cell = next(cell for cell in mine if cell["id"] == chosen)
            run_cell(root, study, cell, lease, train, log)
            shape_key, trained = cell["shape_key"], trained + 1
        else:
            time.sleep(POLL_SECONDS)
    return trained


def _open_next_stage(root: pathlib.Path, study: dict[str, Any], between: Callable[[pathlib.Path], None]) -> bool:
    """Opens the second stage if the first is finished and nobody else is about to. Returns whether it did."""
    before, after = ([cell["id"] for cell in study["cells"] if (cell["stage"] > 0) is later] for later in (False, True))
    if not after or gate.is_open(root, 1) or not all(records.is_finished(root / "cells" / cell_id) for cell_id in before):
        return False
    lease = leases.claim_folder(root / "gates" / "1")
    if lease is None:
        return False
    try:
        between(root)
    finally:
        lease.give_back()
    return True


def run_cell(
    root: pathlib.Path, study: dict[str, Any], cell: dict[str, Any], lease: Optional[leases.Lease], train: Train, log: Callable[[str], None]
) -> None:
    """Trains a claimed cell, commits its record and gives the claim back. A cell that another took over meanwhile is left to it.

    An error of the cell's own is tried once more, and then recorded in its run.json; one of memory is recorded at once. UserError and
    OSError are faults of the environment: raised.

    Args:
        root: the study's directory
        study: the content of study.json
        cell: the cell's entry there
        lease: the claim, of process 0; None for the other processes of a worker
        train: trains one run
        log: takes lines
    """
    if lease is None:
        return _train_along(root, cell, train)
    start, error_of_cell, tried = time.monotonic(), None, None
    if (odd := leases.strange(lease)) is not None:
        log(f"cell {cell['id']}: {odd} is nothing that a worker wrote, and counts as given back")
    try:
        with _Heartbeat(lease, log):
            record, was_tried = _trained(root, study, cell, lease, train, log)
            lease.commit(record)
        error_of_cell = record["reason"] if record["status"] == "failed" and was_tried else None
        log(f"cell {cell['id']} finished after {time.monotonic() - start:.1f} s")
    except TryAgainError as error:
        error_of_cell = tried = str(error)
        log(f"cell {cell['id']} is tried once more: {tried}")
    except (leases.Lost, UserError, OSError, KeyboardInterrupt, SystemExit) as error:
        if not isinstance(error, leases.Lost) and not lease.is_lost():
            raise  # a fault of the disk, the data or the installation, or a signal
        log(f"cell {cell['id']} is left to another worker: it was taken or cancelled, or this one had no heartbeat for too long")
        if distributed.count() > 1:  # the others have left the cell and are at its end: all begin again together
            raise SystemExit(peers.LOST) from error
    finally:
        if signals.current is not None:
            signals.current.go_on()
        lease.give_back(tried, is_preempted=isinstance(sys.exc_info()[1], (KeyboardInterrupt, SystemExit)) and not lease.lost)
    if signals.current is not None and signals.current.requested is not None:  # a signal came as the cell was lost
        signals.current.leave()
    if error_of_cell is not None and distributed.count() > 1:
        raise UserError(f"cell {cell['id']}: {error_of_cell}; the processes of this worker may be out of step: start it again")


def _train_along(root: pathlib.Path, cell: dict[str, Any], train: Train) -> None:
    """Trains a cell in a process that is not the first, which holds the lease and tells whether and where to train."""
    workdir = distributed.first(lambda: None)
    if workdir is None:
        return
    try:
        train(_config(root, cell), pathlib.Path(workdir))
    except Exception as error:
        time.sleep(PATIENCE_SECONDS)  # the same error on process 0 is recorded there before this one ends all
        if not isinstance(error, (UserError, OSError)) and not peers.is_of_connection(error):
            where = f"process {distributed.index()} of {distributed.count()} ({socket.gethostname()})"
            leases.accuse(pathlib.Path(workdir), f"{where}: {_reason(pathlib.Path(workdir).parent, error)[0]}")
        raise


def _trained(
    root: pathlib.Path, study: dict[str, Any], cell: dict[str, Any], lease: leases.Lease, train: Train, log: Callable[[str], None]
) -> tuple[dict[str, Any], bool]:
    """Trains a claimed cell and returns the record of its end, and whether it was tried. Raises TryAgainError for its first error."""
    refusal = ""

    def begin() -> Optional[str]:
        """Returns the folder to train in, and None for a cell that cannot be."""
        nonlocal refusal
        path = lease.cell / "config.json"
        if not path.exists():
            lease.begin()  # which keeps what an earlier worker saved
            refusal = f"{path} is missing: `python -m experiments {study['name']} retry` writes it and trains the cell"
            return None
        if config_lib.identity(_config(root, cell), fingerprint=study["fingerprint"]) != cell["id"]:
            raise UserError(
                f"{path} is not the run that was planned: delete it, and `python -m experiments {study['name']} plan` writes it as it was"
            )
        workdir = lease.begin()
        refusal = _hopeless(lease)
        return None if refusal else str(workdir)

    began = distributed.first(begin)
    if began is None:
        return records.failed(lease.workdir, cell, refusal), False
    workdir = pathlib.Path(began)
    try:
        train(_config(root, cell), workdir)
    except (UserError, OSError):
        raise
    except Exception as error:  # a fault of this cell alone: it is recorded, and the others go on
        if distributed.count() > 1 and peers.is_of_connection(error):
            raise  # another process is gone, which is no fault of the cell
        log(traceback.format_exc())
        reason, is_memory = _reason(lease.cell, error)
        if not is_memory and len(lease.errors) < MAX_ERRORS:
            raise TryAgainError(reason) from error
        return records.failed(workdir, cell, reason), True
    return _checked(workdir, cell, study), True


def _hopeless(lease: leases.Lease) -> str:
    """Returns why a cell is not tried again after what befell the workers before this one; "" where it is."""
    if lease.deaths >= MAX_DEATHS:
        return f"its worker died {lease.deaths} times in the same place, killed from outside (memory ran out?)"
    if len(lease.errors) > MAX_ERRORS or (lease.errors and NO_MEMORY_ADVICE in lease.errors[-1]):
        return lease.errors[-1]  # of a process that cannot end the cell itself
    if len(lease.preempted) >= MAX_PREEMPTED:
        return (
            f"it was preempted {len(lease.preempted)} times with no step saved in between, last in {lease.preempted[-1]}: "
            "give jobs a longer time, or a longer notice before their end"
        )
    return ""


def _reason(folder: pathlib.Path, error: Exception) -> tuple[str, bool]:
    """Returns a cell's error as a line, with its traceback in the cell's folder, and whether it is one of memory, which comes again."""
    reason = records.reason_of(folder, error)
    is_memory = any(words in f"{type(error).__name__}: {error}" for words in NO_MEMORY)
    return reason + f" ({NO_MEMORY_ADVICE})" * is_memory, is_memory


def _config(root: pathlib.Path, cell: dict[str, Any]) -> RunConfig:
    """Returns the configuration of a cell as it was planned."""
    path = root / "cells" / cell["id"] / "config.json"
    return config_lib.from_dict(RunConfig, read_json(path, f"{path} is missing"))


def _checked(workdir: pathlib.Path, cell: dict[str, Any], study: dict[str, Any]) -> dict[str, Any]:
    """Returns the record that the training function left; UserError unless it is of this run, on the data that the study was planned on."""
    path = workdir / records.FILE
    record = read_json(path, f"cell {cell['id']} ended without {path}: this is a fault of the training function")
    if record.get("status") not in records.FINISHED:
        raise UserError(f"cell {cell['id']} ended with status {record.get('status')}: this is a fault of the training function")
    if record.get("id") != cell["id"]:
        shutil.rmtree(workdir)  # it is the other run's: this cell must not go on from it
        why = made_by.other_recipes(study, record.get("data", {}).get("corpora") or [])
        raise UserError(
            f"the data have changed since the study was planned{why}: cell {cell['id']} became run {record.get('id')}; restore the data"
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
        self._log(f"cell {self._lease.cell.name} begins or goes on, in {self._lease.workdir.name}")
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def _interrupt() -> None:
    """Stops what the main thread trains, as a signal does."""
    if signals.current is not None:
        signals.current.abandon()


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


def end_with(parent: int) -> None:
    """Ends this process soon after its parent, even one that is gone already, so that a killed launcher leaves no worker behind.

    What is trained is saved first, within `SAVE_SECONDS`.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(SAVE_SECONDS)
        leases.give_back_all()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def load_train(name: str, root: pathlib.Path) -> Train:
    """Imports the training function "MODULE:FUNCTION" and gives its runs the study's folder of data."""
    function = _loaded(name, "the training function")
    data_dir = directory.data_dir(root)

    def train(config: RunConfig, workdir: pathlib.Path) -> Any:
        return function(dataclasses.replace(config, data_dir=str(data_dir)), workdir)

    return train


def load_between(name: str) -> Callable[[pathlib.Path], None]:
    """Returns what imports the function "MODULE:FUNCTION" and calls it with the study's directory, when the first stage is finished."""
    return lambda root: _loaded(name, "--between")(root)


def _loaded(name: str, what: str) -> Any:
    """Imports "MODULE:FUNCTION"; UserError where there is none."""
    module, _, function = name.partition(":")
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"cannot load {what} {name}: {error}") from error


def main(argv: Optional[list[str]] = None) -> int:
    parser = Parser(
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
    parser.add_argument("--train", default=TRAIN, metavar="MODULE:FUNCTION", help="training function (default: %(default)s)")
    parser.add_argument(
        "--between",
        default=BETWEEN,
        metavar="MODULE:FUNCTION",
        help="what opens the second stage; none leaves it closed (default: %(default)s)",
    )
    cells = parser.add_argument_group("which cells it takes (default: any)")
    cells.add_argument("--stage", type=int, default=None, help="those of this stage")
    cells.add_argument("--devices", type=int, default=None, help="those that are planned for this number of devices, which it has to have")
    cells.add_argument("--only", default=None, metavar="ID,...", help="those with these ids")
    several = parser.add_argument_group(
        "a worker of several processes, which train each cell together (srun is recognised; see lm.run --help)"
    )
    for flag in distributed.FLAGS:
        several.add_argument(f"--{flag}", default=None)
    args = parser.parse_args(argv)
    study = directory.open_study(args.study_dir)
    machine.require_clock(args.study_dir)
    if args.cores is not None:
        pin(_cores(args.cores))
    compile_cache.switch_on()  # once the cores are chosen, before jax is imported
    hosts = distributed.settings({flag: str(value) for flag in distributed.FLAGS if (value := getattr(args, flag)) is not None})
    with signals.Stop(at_once=True, seconds=signals.seconds_left(None, os.environ)) as stop, distributed.joined(hosts):
        stop.last_acts.append(leases.give_back_all)
        if args.parent is not None:
            end_with(args.parent)
        if distributed.is_first() and os.environ.get("SLURM_RESTART_COUNT", "0") != "0":
            leases.give_back_of_job(args.study_dir, [cell["id"] for cell in study["cells"]], os.environ.get("SLURM_JOB_ID", ""))
        count = work(
            args.study_dir,
            load_train(args.train, args.study_dir),
            wanted=_wanted(args, study),
            follow=args.follow,
            between=None if args.between == "none" else load_between(args.between),
            log=show if distributed.is_first() else _silent,
        )
    show(f"{counted(count, 'cell')} trained")
    return 0


def _wanted(args: argparse.Namespace, study: dict[str, Any]) -> Wanted:
    """Returns the cells that flags ask for. Raises UserError for ids that the study lacks and for devices that this worker lacks."""
    only = None if args.only is None else frozenset(args.only.split(","))
    if only and (strangers := sorted(only - {cell["id"] for cell in study["cells"]})):
        raise UserError(f"--only={','.join(strangers)}: {args.study_dir} has no such cell; `status --json` lists the ids")
    if args.devices is not None and args.train == TRAIN:
        import jax

        if jax.device_count() != args.devices:
            raise UserError(
                f"--devices={args.devices}: this worker has {jax.device_count()} devices ({jax.devices()[0].device_kind}); show it as many "
                "(CUDA_VISIBLE_DEVICES for GPUs, JAX_NUM_CPU_DEVICES for cores), or leave the flag out"
            )
    return Wanted(args.stage, args.devices, only)


def _silent(line: str) -> None:
    del line


def _cores(text: str) -> set[int]:
    try:
        return {int(part) for part in text.split(",")}
    except ValueError:
        raise UserError(f"--cores={text}: give core numbers, such as 0 or 0,1") from None


if __name__ == "__main__":
    run_cli(main)
