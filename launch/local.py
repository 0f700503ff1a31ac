"""Starts workers on this machine, one for each GPU or core, and shows their progress. It holds no training logic.

    python -m launch.local STUDY_DIR [--workers=2]

starts workers on a planned study and waits until every cell that may run has ended: a study with a forecast stops before the cells that
test it. `python -m experiments NAME run` does the same, and writes the forecast when the first stage is complete.
"""

import contextlib
import dataclasses
import os
import pathlib
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, Optional

import lm
from launch import logs, table
from launch.places import Place, places
from launch.view import View
from lm.errors import OVER, Parser, UserError, counted, run_cli, status_after
from lm.peers import LOST
from lm.study import directory, leases, records
from lm.study import status as status_lib
from lm.train import signals

POLL_SECONDS = 0.25
PATIENCE_SECONDS = 60.0  # between SIGTERM, after which a worker saves its state, and SIGKILL
STOPPED = (LOST, *map(status_after, (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)))  # LOST: it hung
MAX_DEATHS = 3  # deaths in a row, for each worker, with no cell finished in between; so many of one cell's workers make it a failed one


@dataclasses.dataclass
class _Worker:
    """A worker process in its place, and the log that holds its output."""

    place: Place
    process: subprocess.Popen
    log: pathlib.Path


@dataclasses.dataclass(frozen=True)
class LocalWorkers:
    """Starts worker processes, each in a place of its own (launch.places): a core, or the GPUs that its cells need.

    Cells of one number of devices are trained after those of a smaller number.
    """

    workers: Optional[int] = None  # default: as many as fit
    train: Optional[str] = None  # MODULE:FUNCTION (default: the worker's)
    only: tuple[str, ...] = ()  # ids of the cells to train (default: all)

    @property
    def count(self) -> int:
        """Number of workers for cells of one device. Raises UserError for more than fit."""
        return len(places(1, self.workers))

    def run(self, root: pathlib.Path, before_stage_1: Callable[[], bool], view: Optional[View] = None) -> status_lib.Status:
        """Keeps workers at work until every cell is finished, or until `before_stage_1` says to stop.

        Workers end with this call, also on an error or Ctrl-C, and leave no claim behind.

        Args:
            root: the study's directory
            before_stage_1: is called once, when all cells of stage 0 are finished and the forecast is not written yet; it writes the
                forecast and returns True, or returns False to stop there
            view: shows the progress (default: on standard output)

        Returns: the state of the study at the end.

        Raises: UserError with the last line of a worker's log when workers cannot go on.
        """
        study = directory.open_study(root)
        cells = [cell["id"] for cell in study["cells"]]
        leases.clear_stale(root, cells)
        known: dict[str, status_lib.CellStatus] = {}
        state = status_lib.read_status(root, study, known)
        view = view or View(sys.stdout)
        view.start(state)
        team = _Team(root, self, is_mixed=len({cell.get("devices", 1) for cell in study["cells"]}) > 1)
        try:
            while missing := self._missing(state):
                if (
                    not state.forecast
                    and all(c.state in records.FINISHED for c in state.cells if c.cell["stage"] == 0)
                    and not before_stage_1()
                ):
                    break
                team.tend(missing, state.finished)
                time.sleep(POLL_SECONDS)
                state = status_lib.read_status(root, study, known)
                view.update(state)
        finally:
            team.stop()
            leases.clear_stale(root, cells)  # a worker that is interrupted just as it claims, or has to be killed, leaves its claim
            view.close()
        return state

    def _missing(self, state: status_lib.Status) -> list[dict[str, Any]]:
        """Returns the unfinished cells that are asked for."""
        wanted = (c.cell for c in state.cells if c.state not in records.FINISHED)
        return [cell for cell in wanted if not self.only or cell["id"] in self.only]


@dataclasses.dataclass
class _Team:
    """The worker processes of the cells of one number of devices, `devices`.

    `is_mixed` says whether the study has cells of other numbers as well. `deaths` counts those since the last cell that ended.
    """

    root: pathlib.Path
    launcher: LocalWorkers
    is_mixed: bool
    devices: int = 0
    workers: list[_Worker] = dataclasses.field(default_factory=list)
    deaths: int = 0
    finished: int = 0
    looked: float = dataclasses.field(default_factory=time.monotonic)

    def tend(self, missing: list[dict[str, Any]], finished: int) -> None:
        """Starts workers that are missing, and turns to cells of more devices when those of fewer have ended.

        Args:
            missing: the unfinished cells
            finished: the number of finished ones

        Raises: UserError for a worker that ended with an error, and when too many die in a row.
        """
        devices = min(missing, key=lambda cell: (cell["stage"], cell.get("devices", 1))).get("devices", 1)
        if devices != self.devices:
            self.stop()
            self.devices = devices
        self.deaths, self.finished = (self.deaths, finished) if finished == self.finished else (0, finished)
        if time.monotonic() - self.looked > leases.HEARTBEAT_SECONDS:
            self.looked = time.monotonic()
            self._kill_silent([cell["id"] for cell in missing])
        if not self.workers:
            for place in places(devices, self.launcher.workers):
                self.workers.append(self._start(place))  # one by one: an interrupt in between finds those that were started
        for i, worker in enumerate(self.workers):
            if _has_died(worker):
                self.deaths += 1
                self.workers[i] = self._start(worker.place)
        if self.deaths > MAX_DEATHS * len(self.workers):
            words = "; ".join(sorted({logs.last_line(worker.log)[:200] for worker in self.workers}))
            raise UserError(f"{counted(self.deaths, 'worker')} in a row were killed ({words}): if memory ran out, lower --workers")

    def _kill_silent(self, cells: list[str]) -> None:
        """Kills workers that hold a cell but have no heartbeat, such as stopped ones; `tend` replaces them."""
        silent = leases.silent(self.root, cells)
        for worker in self.workers:
            if worker.process.pid in silent and worker.process.poll() is None:
                worker.process.kill()
                worker.process.wait()

    def _start(self, place: Place) -> _Worker:
        """Starts a worker process whose output goes to a log in the study's directory."""
        folder = self.root / "logs"
        folder.mkdir(exist_ok=True)
        log = folder / f"worker-{place.name}.log"
        command = [sys.executable, "-m", "lm.study.worker", str(self.root), "--follow", "--between=none", f"--parent={os.getpid()}"]
        command += [*place.flags, *([f"--devices={self.devices}"] if self.is_mixed or place.environment else [])]
        command += [f"--train={self.launcher.train}"] if self.launcher.train else []
        command += [f"--only={','.join(self.launcher.only)}"] if self.launcher.only else []
        environment = dict(os.environ) | place.environment
        code = pathlib.Path(lm.__file__).parent.parent
        if code.name != "site-packages":  # which must not come before Python's own library
            environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(code), os.environ.get("PYTHONPATH"))))
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            environment.setdefault(name, "1")
        with open(log, "ab") as file:  # a session of its own: Ctrl-C reaches this process only, which then ends the workers
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=environment, start_new_session=True)
        return _Worker(place, process, log)

    def stop(self) -> None:
        """Asks workers to give back their claims and end (SIGTERM); kills those that do not."""
        for worker in self.workers:
            if worker.process.poll() is None:
                worker.process.terminate()
        deadline = time.monotonic() + PATIENCE_SECONDS
        try:
            for worker in self.workers:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    worker.process.wait(max(0.1, deadline - time.monotonic()))
        finally:  # also after a second Ctrl-C
            for worker in self.workers:
                worker.process.kill()
                worker.process.wait()
        self.workers.clear()


def _has_died(worker: _Worker) -> bool:
    """Says whether a worker was killed. Raises UserError for one that ended with an error."""
    code = worker.process.poll()
    if code is None or code == 0:
        return False
    if code == 2:
        raise UserError(logs.last_line(worker.log).removeprefix("error: "))
    if code == OVER:  # the end of the SLURM job, which is that of the others too
        raise SystemExit(OVER)
    if code > 0 and code not in STOPPED:
        raise UserError(f"a worker ended with status {code} ({logs.last_line(worker.log)}); its log is {worker.log}")
    return True


def main(argv: Optional[list[str]] = None) -> int:
    parser = Parser(
        prog="python -m launch.local",
        description="Trains the cells of a planned study with workers on this machine, one for each GPU or core, and shows the progress. "
        "Stops before the cells that test a forecast until the forecast is written (python -m experiments NAME forecast).",
    )
    parser.add_argument("study_dir", type=pathlib.Path, help="the directory that `python -m experiments NAME plan` wrote")
    parser.add_argument("--workers", type=int, default=None, help="number of worker processes (default: as many as fit)")
    parser.add_argument(
        "--train", default=None, metavar="MODULE:FUNCTION", help="training function of the workers (default: lm.runner:train_cell)"
    )
    args = parser.parse_args(argv)
    signals.interrupt()  # stops the workers, as Ctrl-C does
    state = LocalWorkers(args.workers, args.train).run(args.study_dir, lambda: False)
    retry = shlex.join(["python", "-m", "experiments", directory.open_study(args.study_dir)["name"], "retry", f"--dir={args.study_dir}"])
    print(table.render(state, args.study_dir, retry))
    return int(state.count("failed") > 0)


if __name__ == "__main__":
    run_cli(main)
