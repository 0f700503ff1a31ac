"""The verbs `run`, `retry` and `cancel`: which cells are trained, by which workers, and how they end (imports no jax)."""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import Optional, TextIO

from launch import scheduled
from launch.backend import Backend
from launch.local import LocalWorkers
from launch.view import View
from lm.errors import UserError, counted
from lm.study import directory, gate, leases, records
from lm.study import status as status_lib
from lm.study.cell import Limits

NO_JOB = "no scheduler holds a job of this study; workers of a machine end with the command that started them (Ctrl-C)"


@dataclasses.dataclass(frozen=True)
class How:
    """How the cells of a study are trained: by which workers, and which cells."""

    workers: Optional[int] = None  # at once (default: one per GPU or core here; scheduled.WORKERS of each kind)
    train: Optional[str] = None  # MODULE:FUNCTION (default: the worker's)
    backend: Optional[Backend] = None  # the scheduler that starts the workers (default: they are processes of this machine)
    detach: bool = False  # with a backend: submit and end
    only: tuple[str, ...] = ()  # ids of the cells (default: all), or their first digits
    max_cells: Optional[int] = None  # the shortest so many


@dataclasses.dataclass(frozen=True)
class Training:
    """Trains the cells of the study in a directory, and ends them."""

    root: pathlib.Path  # the study's directory
    how: How
    limits: Limits
    before_stage_1: Callable[[], bool]  # is called when stage 0 is finished; says whether stage 1 may start
    retry: str  # the command that trains failed cells again
    out: TextIO

    @property
    def launcher(self) -> LocalWorkers:
        """The workers of this machine."""
        return LocalWorkers(self.how.workers, self.how.train, self._only())

    def say(self, text: str) -> None:
        print(text, file=self.out, flush=True)

    def run(self) -> int:
        """Trains the cells that are missing and returns how many failed; raises UserError when too few completed."""
        state = status_lib.read_status(self.root)
        if self.how.detach and self.how.backend is None:
            raise UserError("--detach needs a scheduler, such as --backend=slurm: workers of this machine end with this command")
        if self.how.backend is not None and state.finished < len(state.cells):
            ended = self._scheduled(self.how.backend)
            if ended is None:
                return 0
            state = ended
        elif state.finished < len(state.cells):
            cells, workers = counted(len(state.cells), "cell"), counted(self.launcher.count, "worker")
            self.say(f"{cells} in {self.root}, {workers}; Ctrl-C stops, the same command continues")
            state = self.launcher.run(self.root, self.before_stage_1, View(self.out))
        for line in status_lib.excluded(state, self.root, self.retry):
            self.say(line)
        if self.how.only or self.how.max_cells is not None:
            self.say(
                f"{state.count('completed')} of {counted(len(state.cells), 'cell')} have "
                "completed; run without --only and --max-cells goes on"
            )
        else:
            status_lib.require_completed(state.cells, self.limits.min_completed)
        return state.count("failed")

    def reset(self, from_start: bool, named: Sequence[str]) -> int:
        """Makes failed cells free to train again, or those that are named, whatever ended them but success. Returns how many there were."""
        cells = directory.open_study(self.root)["cells"]
        ids = directory.ids_of(self.root, named) if named else [cell["id"] for cell in cells]
        freed = leases.retry(self.root, ids, from_start=from_start, states=("failed", "cancelled", "diverged") if named else ("failed",))
        none = "no such cell has ended without success" if named else "no cell has failed; `run` trains those that are missing"
        again = counted(len(freed), "named cell" if named else "failed cell")
        self.say(f"to be trained again: {again}" if freed else none)
        forecast = gate.read_forecast(self.root)
        if forecast is not None and any(cell["stage"] == 0 for cell in cells if cell["id"] in freed):
            self.say(f"the forecast of {forecast['time']} was made without them and stays as it is")
        return len(freed)

    def cancel(self, named: Sequence[str]) -> int:
        """Ends the cells that are named, or else every job of the study in a scheduler's queue."""
        if named:
            cells = {cell["id"]: cell for cell in directory.open_study(self.root)["cells"]}
            ended = [cell_id for cell_id in directory.ids_of(self.root, named) if leases.cancel(self.root, cells[cell_id])]
            self.say(
                f"{len(ended)} of {counted(len(named), 'cell')} cancelled" + ("" if len(ended) == len(named) else "; the others had ended")
            )
            return 0
        directory.open_study(self.root)  # which says what to do where there is none
        count = scheduled.cancel(self.root)
        self.say(f"{counted(count, 'job')} cancelled; their cells are free" if count else NO_JOB)
        return 0

    def _scheduled(self, backend: Backend) -> Optional[status_lib.Status]:
        """Lets a scheduler's workers train the cells that are missing. Returns the state at the end, and None where this does not wait."""
        workers, only = scheduled.WORKERS if self.how.workers is None else self.how.workers, self._only()
        if workers < 1:
            raise UserError(f"--workers={workers}: give 1 or more")
        if self.how.detach or backend.by_hand(self.root, 1) is not None:
            made = scheduled.apply(self.root, backend, workers, self.say, train=self.how.train, only=only)
            if not made.submit and not made.waits:
                self.say("nothing to submit: the queue holds as many workers as there is work for; `status` shows them")
            return None
        self.say(f"workers in {backend.NAME}; Ctrl-C ends this view alone, `cancel` the jobs, and the same command looks again")
        return scheduled.watch(self.root, backend, workers, View(self.out), self.say, train=self.how.train, only=only)

    def _only(self) -> tuple[str, ...]:
        """Returns the ids of the cells that are asked for; () for all."""
        ids = directory.ids_of(self.root, self.how.only) if self.how.only else []
        if ids and not gate.is_open(self.root, 1):
            stage = {cell["id"]: cell["stage"] for cell in directory.open_study(self.root)["cells"]}
            if later := [cell_id for cell_id in ids if stage[cell_id] > 0]:
                raise UserError(
                    f"cell {later[0]} is of the second stage, which the forecast opens when the first is finished: run that first"
                )
        if self.how.max_cells is None:
            return tuple(ids)
        if self.how.max_cells < 1:
            raise UserError(f"--max-cells={self.how.max_cells}: give 1 or more")
        state = status_lib.read_status(self.root)
        missing = [c.cell for c in state.cells if c.state not in records.FINISHED and (not ids or c.cell["id"] in ids)]
        return tuple(cell["id"] for cell in sorted(missing, key=lambda cell: (cell["stage"], cell["seconds"]))[: self.how.max_cells])
