"""Starts workers on this machine, one core each, and shows their progress. It holds no training logic.

    python -m launch.local STUDY_DIR [--workers=2]

starts workers on a planned study and waits until every cell that may run has ended: a study with a forecast stops before the cells that
test it. `python -m experiments NAME run` does the same, and writes the forecast when the first stage is complete.
"""

import argparse
import dataclasses
import os
import pathlib
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Optional

import lm
from launch.view import View
from lm.errors import UserError, run_cli
from lm.study import directory, leases, records
from lm.study import status as status_lib

POLL_SECONDS = 0.25
PATIENCE_SECONDS = 10.0  # between SIGTERM and SIGKILL
MAX_DEATHS = 3  # deaths in a row, for each worker, with no cell finished in between; so many of one cell's workers make it a failed one


@dataclasses.dataclass
class _Worker:
    """A worker process on its core, and the log that holds its output."""

    core: Optional[int]
    process: subprocess.Popen
    log: pathlib.Path


@dataclasses.dataclass(frozen=True)
class LocalWorkers:
    """Starts worker processes, each bound to one core of its own."""

    workers: Optional[int] = None  # default: one per core that this process may use
    train: Optional[str] = None  # MODULE:FUNCTION (default: the worker's)
    only: tuple[str, ...] = ()  # ids of the cells to train (default: all)

    @property
    def cores(self) -> list[Optional[int]]:
        """The core of each worker; None where the system binds no process to a core. Raises UserError for more workers than cores."""
        allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [None] * (os.cpu_count() or 1)
        count = len(allowed) if self.workers is None else self.workers
        if not 0 < count <= len(allowed):
            raise UserError(
                f"--workers={count}: this process may use {len(allowed)} cores, and each worker needs one; give 1 to {len(allowed)}"
            )
        return list(allowed[:count])

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
        team: list[_Worker] = []
        try:
            deaths, finished, looked = 0, state.finished, time.monotonic()
            while any(c.state not in records.FINISHED and (not self.only or c.cell["id"] in self.only) for c in state.cells):
                if (
                    not state.forecast
                    and all(c.state in records.FINISHED for c in state.cells if c.cell["stage"] == 0)
                    and not before_stage_1()
                ):
                    break
                deaths = 0 if state.finished > finished else deaths
                finished = state.finished
                if time.monotonic() - looked > leases.HEARTBEAT_SECONDS:
                    looked = time.monotonic()
                    self._kill_silent(root, [c.cell["id"] for c in state.cells if c.state not in records.FINISHED], team)
                deaths += self._tend(root, team)
                if deaths > MAX_DEATHS * len(team):
                    raise UserError(f"{deaths} workers in a row were killed ({_last_words(team)}): if memory ran out, lower --workers")
                time.sleep(POLL_SECONDS)
                state = status_lib.read_status(root, study, known)
                view.update(state)
        finally:
            _stop(team)
            leases.clear_stale(root, cells)  # a worker that is interrupted just as it claims, or has to be killed, leaves its claim
            view.close()
        return state

    def _kill_silent(self, root: pathlib.Path, cells: list[str], team: list[_Worker]) -> None:
        """Kills workers that hold a cell but have no heartbeat, such as stopped ones; `_tend` replaces them."""
        silent = leases.silent(root, cells)
        for worker in team:
            if worker.process.pid in silent and worker.process.poll() is None:
                worker.process.kill()
                worker.process.wait()

    def _tend(self, root: pathlib.Path, team: list[_Worker]) -> int:
        """Starts missing workers and returns how many had died; raises UserError for one that ended with an error."""
        if not team:
            for core in self.cores:
                team.append(_start(root, core, self.train, self.only))  # one by one: an interrupt in between finds those that were started
            return 0
        deaths = 0
        for i, worker in enumerate(team):
            code = worker.process.poll()
            if code is None or code == 0:
                continue
            if code == 2:
                raise UserError(_last_line(worker.log).removeprefix("error: "))
            if code > 0 and code not in (130, 143):  # SIGINT and SIGTERM
                raise UserError(f"a worker ended with status {code} ({_last_line(worker.log)}); its log is {worker.log}")
            deaths += 1
            team[i] = _start(root, worker.core, self.train, self.only)
        return deaths


def _start(root: pathlib.Path, core: Optional[int], train: Optional[str], only: tuple[str, ...]) -> _Worker:
    """Starts a worker process whose output goes to a log in the study's directory."""
    folder = root / "logs"
    folder.mkdir(exist_ok=True)
    log = folder / f"worker-{'all' if core is None else core}.log"
    command = [sys.executable, "-m", "lm.study.worker", str(root), "--follow", "--between=none", f"--parent={os.getpid()}"]
    command += [f"--cores={core}"] if core is not None else []
    command += [f"--train={train}"] if train else []
    command += [f"--only={','.join(only)}"] if only else []
    environment = dict(os.environ)
    code = pathlib.Path(lm.__file__).parent.parent
    if code.name != "site-packages":  # which must not come before Python's own library
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(code), os.environ.get("PYTHONPATH"))))
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        environment.setdefault(name, "1")
    with open(log, "ab") as file:  # a session of its own: Ctrl-C reaches this process only, which then ends the workers
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=environment, start_new_session=True)
    return _Worker(core, process, log)


def _stop(team: list[_Worker]) -> None:
    """Asks workers to give back their claims and end (SIGTERM); kills those that do not."""
    for worker in team:
        if worker.process.poll() is None:
            worker.process.terminate()
    deadline = time.monotonic() + PATIENCE_SECONDS
    for worker in team:
        try:
            worker.process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            worker.process.kill()
            worker.process.wait()


def _last_line(path: pathlib.Path) -> str:
    """Returns the last line of a log, which holds the error of a worker that ended with one."""
    lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "no message"


def _last_words(team: list[_Worker]) -> str:
    return "; ".join(sorted({_last_line(worker.log)[:200] for worker in team}))


def main(argv: Optional[list[str]] = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m launch.local",
        description="Trains the cells of a planned study with workers on this machine, one core each, and shows the progress. "
        "Stops before the cells that test a forecast until the forecast is written (python -m experiments NAME forecast).",
    )
    parser.add_argument("study_dir", type=pathlib.Path, help="the directory that `python -m experiments NAME plan` wrote")
    parser.add_argument("--workers", type=int, default=None, help="number of worker processes (default: one per core)")
    parser.add_argument(
        "--train", default=None, metavar="MODULE:FUNCTION", help="training function of the workers (default: lm.runner:train_cell)"
    )
    args = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # stops the workers, as Ctrl-C does
    state = LocalWorkers(args.workers, args.train).run(args.study_dir, lambda: False)
    retry = shlex.join(["python", "-m", "experiments", directory.open_study(args.study_dir)["name"], "retry", f"--dir={args.study_dir}"])
    print(status_lib.render(state, args.study_dir, retry))
    return int(state.count("failed") > 0)


if __name__ == "__main__":
    run_cli(main)
