"""The verbs of `python -m experiments` (imports no jax: libraries that take long to import are imported where they are used)."""

import dataclasses
import functools
import importlib
import json
import math
import pathlib
import runpy
import shlex
import sys
import time
from collections.abc import Sequence
from typing import Any, Optional, TextIO, Union

from experiments import calibrate, cost, preflight
from experiments.comparison_results import ComparisonResults
from experiments.grid_results import GridResults
from launch import scheduled, table
from launch.backend import Backend, Job
from launch.local import LocalWorkers
from launch.view import View
from lm import files
from lm.analysis import collect
from lm.data import corpora, round_trip
from lm.data import info as data_info
from lm.errors import UserError, counted, nearest
from lm.preflight.topologies import Topology
from lm.scaling.settings import AnalysisSettings
from lm.study import directory, gate, leases, naming, plan, plan_table, records
from lm.study import status as status_lib
from lm.study.comparison import Comparison
from lm.study.rows import read_rows
from lm.study.study import Study

FOLDER = pathlib.Path(__file__).parent
NO_JOB = "no scheduler holds a job of this study; workers of a machine end with the command that started them (Ctrl-C)"
AnyStudy = Union[Study, Comparison]


def names() -> list[str]:
    """Returns the names of the studies in this folder."""
    return sorted(path.parent.name for path in FOLDER.glob("*/study.py"))


def load(name: str) -> AnyStudy:
    """Returns the study of a name, or of the path of a file with a function `get_study()`. Raises UserError when there is none."""
    if not name.endswith(".py") and name not in names():
        raise UserError(f"unknown study {name!r} (one of your own is named by its path, such as my_study.py): {nearest(name, names())}")
    if name.endswith(".py") and not files.here_or_shipped(name).is_file():
        raise UserError(f"no file {name}: give a study's name ({', '.join(names())}) or the path of a study.py")
    study = _defined(name)
    if not isinstance(study, (Study, Comparison)):
        raise UserError(f"{name}: its function get_study() must return a lm.study.study.Study or a lm.study.comparison.Comparison")
    naming.require_safe(study.name, f"{name}: the study's name")
    return study


def _defined(name: str) -> Any:
    """Returns what `get_study()` returns in a study's module or file; None where there is no such function, UserError where that fails."""
    path = files.here_or_shipped(name) if name.endswith(".py") else FOLDER / name / "study.py"
    try:
        with files.package_of(path):
            module = runpy.run_path(str(path)) if name.endswith(".py") else vars(importlib.import_module(f"experiments.{name}.study"))
            return module["get_study"]() if "get_study" in module else None
    except UserError:
        raise
    except Exception as error:  # the file is the user's program, and whatever it raises is for the user to fix
        raise UserError(f"{name}: {type(error).__name__}: {error} (LM_TRACEBACK=1 shows where)") from error


@dataclasses.dataclass(frozen=True)
class How:
    """How the cells of a study are trained: by which workers, and which cells."""

    workers: Optional[int] = None  # at once (default: one per GPU or core here; scheduled.WORKERS of each kind)
    train: Optional[str] = None  # MODULE:FUNCTION (default: the worker's)
    backend: Optional[Backend] = None  # the scheduler that starts the workers (default: they are processes of this machine)
    detach: bool = False  # with a backend: submit and end
    only: tuple[str, ...] = ()  # ids of the cells (default: all), or their first digits
    max_cells: Optional[int] = None  # the shortest so many
    calibrate: bool = False  # whether `plan` measures this machine's speed first


@dataclasses.dataclass(frozen=True)
class Commands:
    """Carries out the verbs of one study; each can be called again, and does only what is missing.

    The verbs that all studies have are here. What follows the training depends on the kind of study: see `GridResults` and
    `ComparisonResults`.
    """

    study: AnyStudy
    root: pathlib.Path  # the study's directory
    data_dir: pathlib.Path  # the folder of prepared data
    how: How = How()
    out: TextIO = sys.stdout
    topology: Optional[Topology] = None  # hardware that `plan` compiles every shape for
    timeout: float = 1800.0  # seconds for each compilation
    retry: str = "python -m experiments NAME retry"  # the command that trains failed cells again
    terms: Optional[cost.Terms] = None  # devices whose costs `plan` states
    without_data: bool = False  # whether `plan` leaves the data alone, and writes nothing

    def do(self, verb: str, *, as_json: bool = False, from_start: bool = False, cells: Sequence[str] = (), follow: bool = False) -> int:
        """Carries out a verb and returns the exit status."""
        if verb in ("logs", "cancel"):
            return self._logs(cells, follow) if verb == "logs" else self._cancel(cells)
        if verb not in self._results.VERBS:
            raise UserError(f"{self.study.name} is a {self._results.KIND} and has no verb {verb}; it has {', '.join(self._results.VERBS)}")
        if verb == "collect":
            return self._collect()
        if verb == "status":
            return self._status(as_json=as_json, watch=follow)
        if verb == "plan":
            made = self._plan(verb)
            if self.how.calibrate:
                speed = calibrate.measure(made.planned, self.study.speed, self.data_dir, self._say)
                made = plan.make(dataclasses.replace(self.study, speed=speed), made.data)
                self._say(f"measured: speed=Speed(flops_per_second={speed.flops_per_second:.3g}, per_token={speed.per_token:.3g})\n")
            of_devices = plan_table.HERE if self.terms is None else cost.estimates(self.terms)
            self._say(plan_table.render(made, self._launcher.count, of_devices))
            if self.terms is not None:
                self._say("\n" + cost.render(made, self.terms))
                for line in (large := cost.too_large(made, self.terms)):
                    print(f"refused: {line}", file=sys.stderr)
                if large:
                    raise UserError("what is printed above fits no device; nothing was written")
            if self.without_data:
                for refusal in made.refusals:
                    print(f"refused: {refusal}", file=sys.stderr)
                self._say(f"nothing was written: without --without-data, `plan` prepares the data and writes {self.root}")
                return int(bool(made.refusals)) if self.topology is None else self._preflight(made, self.topology)
            self._write(made)
            if words := calibrate.recorded(status_lib.read_status(self.root)):
                self._say(words)
            self._say(f"planned in {self.root}")
            return 0 if self.topology is None else self._preflight(made, self.topology)
        self._write(self._plan(verb))  # the directory has to be of the study as it is defined now
        if verb == "retry" and not self._reset(from_start, cells):
            return 0
        failed = self._run() if verb in ("all", "run", "retry") else 0
        return self._results.do(verb, as_json=as_json) or int(failed > 0)

    def _status(self, *, as_json: bool, watch: bool) -> int:
        """Shows the state of the study, once or until every cell has ended."""
        known: dict[str, status_lib.CellStatus] = {}
        queue: list[Job] = []
        asked = -math.inf

        def read() -> tuple[status_lib.Status, list[Job]]:
            nonlocal queue, asked
            if time.monotonic() - asked > scheduled.POLL_SECONDS:
                asked = time.monotonic()
                try:
                    queue = [job for _, job in scheduled.live(self.root)]
                except UserError as error:
                    print(f"the queue is not known: {error}", file=sys.stderr)
            kinds = frozenset((job.kind.stage, job.kind.devices) for job in queue if not job.kind.only)
            return status_lib.read_status(self.root, known=known, on_their_way=kinds), queue

        def draw() -> tuple[str, bool]:
            state, queue = read()
            return table.render(state, self.root, self.retry, queue), state.finished < len(state.cells)

        if as_json:
            print(json.dumps(status_lib.described(read()[0], self.root), indent=1), flush=True)
        elif watch:
            table.watch(draw, self.out)
        else:
            self._say(draw()[0])
        return 0

    @property
    def _results(self) -> Union[GridResults, ComparisonResults]:
        """The verbs that follow the training."""
        if isinstance(self.study, Comparison):
            return ComparisonResults(self.study, self.root, self._say)
        return GridResults(self.study, self.root, self._say)

    @property
    def _launcher(self) -> LocalWorkers:
        return LocalWorkers(self.how.workers, self.how.train, self._only())

    def _say(self, text: str) -> None:
        print(text, file=self.out, flush=True)

    def _plan(self, verb: str) -> plan.Plan:
        """Plans the study on prepared data; prepares the data first when they are missing, and refuses text that has changed since.

        What follows the training needs no text: there the study is planned on the record of the data in its directory.
        """
        if self.without_data:
            return plan.make(self.study, plan.assumed_data())
        if (self.root / "study.json").exists() and verb != "plan":
            stored = directory.open_study(self.root)["data"]
            state = status_lib.read_status(self.root)
            if verb in ("forecast", "fit", "report") or state.finished == len(state.cells):
                return plan.make(self.study, stored)
        config, data_dir = self.study.base.data, str(self.data_dir)
        data = data_info.info(config, data_dir)
        found = [corpora.require_unchanged(component, data_dir) for component in config.components] if data is not None else []
        if data is None or not all(found) or not round_trip.is_measured(data):
            self._say(f"preparing the data in {self.data_dir} (once)")
            from lm.data import pipeline

            data = pipeline.prepare(config, data_dir, log=self._say).info
        return plan.make(self.study, data)

    def _preflight(self, made: plan.Plan, topology: Topology) -> int:
        configs = [planned.cell.config for planned in made.planned]
        progress = functools.partial(print, file=sys.stderr, flush=True)
        return preflight.shapes(configs, topology, timeout=self.timeout, say=self._say, progress=progress)

    def _write(self, made: plan.Plan) -> dict[str, Any]:
        """Writes the study's directory, or checks that it was written from this plan; a refused plan is printed and raises UserError."""
        for refusal in made.refusals:
            print(f"refused: {refusal}", file=sys.stderr)
        if made.refusals:
            raise UserError(
                f"{counted(len(made.refusals), 'refusal')}, printed above; nothing was written. Change the study's definition or its text"
            )
        return directory.write(made, self.root, self.data_dir)

    def _reset(self, from_start: bool, named: Sequence[str]) -> int:
        """Makes failed cells free to train again, or those that are named, whatever ended them but success. Returns how many there were."""
        cells = directory.open_study(self.root)["cells"]
        ids = self._ids(named) if named else [cell["id"] for cell in cells]
        freed = leases.retry(self.root, ids, from_start=from_start, states=("failed", "cancelled", "diverged") if named else ("failed",))
        none = "no such cell has ended without success" if named else "no cell has failed; `run` trains those that are missing"
        again = counted(len(freed), "named cell" if named else "failed cell")
        self._say(f"to be trained again: {again}" if freed else none)
        forecast = gate.read_forecast(self.root)
        if forecast is not None and any(cell["stage"] == 0 for cell in cells if cell["id"] in freed):
            self._say(f"the forecast of {forecast['time']} was made without them and stays as it is")
        return len(freed)

    def _run(self) -> int:
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
            cells, workers = counted(len(state.cells), "cell"), counted(self._launcher.count, "worker")
            self._say(f"{cells} in {self.root}, {workers}; Ctrl-C stops, the same command continues")
            state = self._launcher.run(self.root, self._results.before_stage_1, View(self.out))
        for line in status_lib.excluded(state, self.root, self.retry):
            self._say(line)
        if self.how.only or self.how.max_cells is not None:
            self._say(f"{state.count('completed')} of {len(state.cells)} cells have completed; run without --only and --max-cells goes on")
        else:
            status_lib.require_completed(state.cells, self.study.limits.min_completed)
        return state.count("failed")

    def _collect(self) -> int:
        """Writes one table of all runs, and says which command fits it."""
        rows = read_rows(self.root)
        settings = self.study.analysis if isinstance(self.study, Study) else AnalysisSettings()
        table_csv, _ = collect.write(rows, self.root, settings.n, settings.c)
        ended = sum(row.completed for row in rows)
        self._say(f"wrote {table_csv} and {table_csv.with_suffix('.parquet').name} beside it: {len(rows)} runs, {ended} of them completed")
        if isinstance(self.study, Study):
            fit = ["python", "-m", "lm.scaling", "fit", str(table_csv), "--flops=C", "--run=run", "--seed-column=seed", "--budget=budget"]
            self._say(f"fit it: {shlex.join([*fit, '--where=role!=bracket'])}")
        return 0

    def _scheduled(self, backend: Backend) -> Optional[status_lib.Status]:
        """Lets a scheduler's workers train the cells that are missing. Returns the state at the end, and None where this does not wait."""
        workers, only = scheduled.WORKERS if self.how.workers is None else self.how.workers, self._only()
        if workers < 1:
            raise UserError(f"--workers={workers}: give 1 or more")
        if self.how.detach or backend.by_hand(self.root, 1) is not None:
            made = scheduled.apply(self.root, backend, workers, self._say, train=self.how.train, only=only)
            if not made.submit:
                self._say("nothing to submit: the queue holds as many workers as there is work for; `status` shows them")
            return None
        self._say(f"workers in {backend.NAME}; Ctrl-C ends this view alone, `cancel` the jobs, and the same command looks again")
        return scheduled.watch(self.root, backend, workers, View(self.out), self._say, train=self.how.train, only=only)

    def _only(self) -> tuple[str, ...]:
        """Returns the ids of the cells that are asked for; () for all."""
        ids = self._ids(self.how.only) if self.how.only else []
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

    def _ids(self, named: Sequence[str]) -> list[str]:
        """Returns the ids of cells that are named by their first digits. Raises UserError for none or several of a name."""
        every, found = [cell["id"] for cell in directory.open_study(self.root)["cells"]], []
        for name in named:
            these = [cell_id for cell_id in every if cell_id.startswith(name)]
            if len(these) != 1:
                several = f"{len(these)} cells of {self.root} begin so" if these else f"{self.root} has no such cell"
                raise UserError(f"cell {name}: {several}; `status --json` lists the ids")
            found += these
        return found

    def _cancel(self, named: Sequence[str]) -> int:
        """Ends the cells that are named, or else every job of the study in a scheduler's queue."""
        if named:
            cells = {cell["id"]: cell for cell in directory.open_study(self.root)["cells"]}
            ended = [cell_id for cell_id in self._ids(named) if leases.cancel(self.root, cells[cell_id])]
            self._say(f"{len(ended)} of {len(named)} cells cancelled" + ("" if len(ended) == len(named) else "; the others had ended"))
            return 0
        found = scheduled.live(self.root)
        for backend in {backend.NAME: backend for backend, _ in found}.values():
            backend.cancel([job.id for other, job in found if other.NAME == backend.NAME])
        self._say(f"{counted(len(found), 'job')} cancelled; their cells are free" if found else NO_JOB)
        return 0

    def _logs(self, named: Sequence[str], follow: bool) -> int:
        """Prints the log of the worker that trains or trained a cell."""
        if len(named) != 1:
            raise UserError("logs takes one cell: its id or its first digits, which `status --json` lists")
        from launch import logs

        logs.show(self.root, self._ids(named)[0], self.out, follow=follow)
        return 0
