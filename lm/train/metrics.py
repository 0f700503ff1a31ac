"""Training metrics: `metrics.jsonl` (one line per logged step), TensorBoard event files, and a mirror in Weights & Biases.

metrics.jsonl is what everything here reads. Whatever befalls the other two ends no run.
"""

import contextlib
import json
import os
import secrets
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Union

import numpy as np

from lm import config as config_lib
from lm import distributed, files
from lm.errors import UserError, one_line
from lm.train.config import RunConfig
from lm.train.events import Events, flat
from lm.train.record import jsonable, writing

FILE = "metrics.jsonl"
MIRROR = "wandb_id.txt"  # of a work directory that has a mirror


def read(workdir: Path) -> list[dict[str, Any]]:
    """Reads the lines of metrics.jsonl, in order. A torn last line, left by a kill, is skipped; without a file there are none."""
    try:
        text = (workdir / FILE).read_bytes()
    except FileNotFoundError:
        return []
    rows = []
    for line in text.split(b"\n"):
        try:
            row = json.loads(line)
        except ValueError:  # also UnicodeDecodeError
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            rows.append(row)
    return rows


class MetricsLog:
    """Appends to metrics.jsonl, and to `others`. It drops lines past `step`, which a kill left."""

    def __init__(self, workdir: Path, step: int, others: Sequence[Union[Events, "Mirror"]] = ()):
        path = workdir / FILE
        kept = [row for row in read(workdir) if row["step"] <= step]
        with writing(path):
            files.write_text(path, "".join(json.dumps(row) + "\n" for row in kept))
            self._file = os.open(path, os.O_WRONLY | os.O_APPEND)
        self._unwritten = b""  # lines for which there was no room
        self._path, self._others = path, others

    def write(self, row: dict[str, Any]) -> None:
        """Appends one row: `step`, and numbers or (per layer) lists of numbers by name. While the disk takes none, rows wait in memory."""
        self._unwritten += (json.dumps(jsonable(row), allow_nan=False) + "\n").encode()
        with contextlib.suppress(UserError):
            self.flush()
        for other in self._others:
            other.write(row)

    def flush(self) -> None:
        """Writes the rows that wait; UserError if the disk takes none."""
        with writing(self._path):
            while self._unwritten:
                self._unwritten = self._unwritten[os.write(self._file, self._unwritten) :]

    def close(self) -> None:
        with contextlib.suppress(UserError):  # a run whose end counts has flushed them
            self.flush()
        os.close(self._file)
        for other in self._others:
            other.close()


class Mirror:
    """A run of Weights & Biases gets every row. A service that does not answer is said once and then left alone.

    It is the mirror of this work directory: another one of the same configuration is a run of its own there. Rows have `step` as a value of
    their own to be drawn over, because the service takes no row whose own step is below its newest, such as those after a return to an
    earlier state.
    """

    def __init__(self, project: str, run_id: str, workdir: Path, config: dict[str, Any], alarm: Callable[[str], None]):
        try:
            import wandb
        except ImportError:
            raise UserError("log.wandb needs the package wandb: pip install wandb, or leave log.wandb out") from None
        self._alarm = alarm
        name = _mirror_id(workdir, run_id)
        self._run = self._tried(
            lambda: wandb.init(project=project, id=name, name=workdir.name, dir=str(workdir), config=config, resume="allow")
        )
        if self._run is not None:
            self._tried(lambda: (self._run.define_metric("step"), self._run.define_metric("*", step_metric="step")))

    def write(self, row: dict[str, Any]) -> None:
        """Sends one row; lists, of one number for each layer, go as one entry a layer."""
        if self._run is not None:
            self._tried(lambda: self._run.log(flat(row)))

    def close(self) -> None:
        if self._run is not None:
            self._tried(self._run.finish)

    def _tried(self, action: Callable[[], Any]) -> Any:
        try:
            return action()
        except Exception as error:  # of a service elsewhere, in any of many ways: the run is worth more than its mirror
            self._run = None
            self._alarm(f"Weights & Biases gets no more metrics of this run ({one_line(error)[:200]}); metrics.jsonl has them")
            return None


def _mirror_id(workdir: Path, run_id: str) -> str:
    """Returns the id of a work directory's mirror, which a file there keeps."""
    path = workdir / MIRROR
    with contextlib.suppress(OSError, UnicodeDecodeError):
        if (kept := path.read_text(encoding="utf-8").strip()).startswith(f"{run_id}-"):
            return kept
    name = f"{run_id}-{secrets.token_hex(4)}"
    with writing(path):
        files.write_text(path, name + "\n")
    return name


class Silence:
    """Stands for the log in all processes but the first: it writes nothing."""

    def write(self, row: dict[str, Any]) -> None:
        del row

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass


def open_log(workdir: Path, step: int, config: RunConfig, run_id: str, alarm: Callable[[str], None]) -> Union[MetricsLog, Silence]:
    """Opens the log of a run, which the first process writes. Raises UserError for a mirror whose package is missing."""
    if not distributed.is_first():
        return Silence()
    others: list[Union[Events, Mirror]] = [Events(workdir, step, alarm)] if config.log.tensorboard else []
    if config.log.wandb is not None:
        others.append(Mirror(config.log.wandb, run_id, workdir, config_lib.to_dict(config), alarm))
    return MetricsLog(workdir, step, others)


class StepMetrics:
    """Turns the scalars of every step into lines at multiples of `every`. Steps since the last line survive a restart (`carried`)."""

    def __init__(
        self,
        log: Union[MetricsLog, Silence],
        names: Sequence[str],
        every: int,
        total_steps: int,
        tokens_per_step: int,
        *,
        pending: Sequence[Sequence[float]] = (),
        loss_tokens: float = 0.0,
        skipped: int = 0,
    ):
        self._log, self._every, self._total, self._tokens = log, every, total_steps, tokens_per_step
        self._column = {name: i for i, name in enumerate(names)}
        self._pending = [list(row) for row in pending]
        self.alarms: dict[str, float] = {}  # what lines say beside the scalars while something is wrong
        self.loss_tokens = loss_tokens  # sum of the weights of the targets that the run has learned from
        self._skipped = skipped  # steps since the last line that were left out (lm.train.bad_steps)
        self._loss = float("nan")  # of the last step that was not
        self._clock = time.monotonic()
        self._since = 0  # steps since the clock was read

    def carried(self) -> dict[str, Any]:
        """Returns the arguments with which a later process continues."""
        return {"pending": self._pending, "loss_tokens": self.loss_tokens} | ({"skipped": self._skipped} if self._skipped else {})

    def flush(self) -> None:
        """Writes lines that wait for room; UserError if there is none."""
        self._log.flush()

    def add(self, first: int, count: int, scalars: np.ndarray, vectors: dict[str, np.ndarray]) -> float:
        """Adds the `count` steps after `first`, rows of `scalars` [K, names] and `vectors`; returns the last loss.

        Steps that were left out are counted and enter no mean.
        """
        rows = scalars[:count]
        skipped = rows[:, self._column["skipped"]] > 0
        self.loss_tokens += float(rows[~skipped, self._column["weight"]].sum(dtype=np.float64))
        self._since += count
        for i, row in enumerate(rows.tolist()):
            if skipped[i]:
                self._skipped += 1
            else:
                self._pending.append(row)
                self._loss = row[self._column["loss"]]
            step = first + i + 1
            if step % self._every == 0 or step == self._total:
                self._write(step, {name: value[i].tolist() for name, value in vectors.items()})
        return self._loss

    def _write(self, step: int, vectors: dict[str, list]) -> None:
        """Writes a line: loss per target over the steps since the last line, means of other scalars, the last learning rate and vectors.

        Steps that were left out are its `skipped`; where all were, it has no loss.
        """
        row: dict[str, Any] = {"step": step, "tokens": step * self._tokens}
        if self._pending:
            values = np.asarray(self._pending, np.float64)
            weights = values[:, self._column["weight"]]
            row |= {name: float(values[:, column].mean()) for name, column in self._column.items() if name != "skipped"}
            row["loss"] = float(values[:, self._column["loss"]] @ weights / max(weights.sum(), 1.0))
            row["learning_rate"] = float(values[-1, self._column["learning_rate"]])
        if self._skipped:
            row["skipped"] = self._skipped
        now = time.monotonic()
        row["tokens_per_second"] = round(self._since * self._tokens / max(now - self._clock, 1e-9))
        self._log.write(row | self.alarms | vectors)
        self._pending, self._skipped, self._clock, self._since = [], 0, now, 0
