"""The verbs `status`, `logs` and `collect`, which look at what has been trained and change no cell (imports no jax)."""

import dataclasses
import json
import math
import pathlib
import shlex
import sys
import time
from collections.abc import Sequence
from typing import TextIO

from experiments.studies import AnyStudy
from launch import scheduled, table
from launch.backend import Job
from lm.analysis import collect
from lm.errors import UserError, counted
from lm.scaling.settings import AnalysisSettings
from lm.study import directory
from lm.study import status as status_lib
from lm.study.rows import read_rows
from lm.study.study import Study


@dataclasses.dataclass(frozen=True)
class Looking:
    """Shows the study in a directory."""

    root: pathlib.Path  # the study's directory
    retry: str  # the command that trains failed cells again
    out: TextIO

    def say(self, text: str) -> None:
        print(text, file=self.out, flush=True)

    def status(self, *, as_json: bool, watch: bool) -> int:
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
            self.say(draw()[0])
        return 0

    def logs(self, named: Sequence[str], follow: bool) -> int:
        """Prints the log of the worker that trains or trained a cell."""
        if len(named) != 1:
            raise UserError("logs takes one cell: its id or its first digits, which `status --json` lists")
        from launch import logs

        logs.show(self.root, directory.ids_of(self.root, named)[0], self.out, follow=follow)
        return 0

    def collect(self, study: AnyStudy) -> int:
        """Writes one table of all runs, and says which command fits it."""
        rows = read_rows(self.root)
        settings = study.analysis if isinstance(study, Study) else AnalysisSettings()
        table_csv, _ = collect.write(rows, self.root, settings.n, settings.c)
        ended = sum(row.completed for row in rows)
        self.say(
            f"wrote {table_csv} and {table_csv.with_suffix('.parquet').name} beside it: {counted(len(rows), 'run')}, {ended} completed"
        )
        if isinstance(study, Study):
            fit = ["python", "-m", "lm.scaling", "fit", str(table_csv), "--flops=C", "--run=run", "--seed-column=seed", "--budget=budget"]
            self.say(f"fit it: {shlex.join([*fit, '--where=role!=bracket'])}")
        return 0
