"""The state of a study's cells, read from its directory alone (imports no jax)."""

import collections
import dataclasses
import json
import math
import pathlib
from collections.abc import Collection, Sequence
from typing import Any, Optional

from lm.errors import UserError, counted
from lm.study import directory, leases, naming, records
from lm.study.index import Index, stamp_of
from lm.train.config import MEASURE

UNITS = {"text": "nats/byte", "pairs": "nats/target"}  # the unit of the held-out loss, by the run's likelihood
MANY = 500  # cells from which on an index of the completed ones is kept
_PLACE = ("id", "role", "stage", "budget", "group", "variant", "seed", "tokens", "steps")  # of a cell's entry in study.json


@dataclasses.dataclass(frozen=True)
class CellStatus:
    """The state of one cell (lm.study.states).

    `step`, `tokens_per_second` and `device` are of a run that has begun and not ended.

    `progress` is the share of steps done, and `loss` the last one known, in `unit`. `bad_steps` is how many a run that has ended left out.
    """

    cell: dict[str, Any]
    state: str
    progress: float
    loss: Optional[float]
    reason: Optional[str]
    seconds: float
    unit: str = UNITS["text"]
    step: int = 0
    tokens_per_second: Optional[float] = None
    device: Optional[str] = None
    bad_steps: int = 0


@dataclasses.dataclass(frozen=True)
class Status:
    """The state of a study; `forecast` says whether its forecast has been written."""

    cells: tuple[CellStatus, ...]
    forecast: bool

    def count(self, *states: str) -> int:
        """Counts the cells in some states."""
        return sum(c.state in states for c in self.cells)

    @property
    def finished(self) -> int:
        """Number of cells that have ended, well or not."""
        return self.count(*records.FINISHED)

    @property
    def flops(self) -> float:
        """FLOPs of all cells, matmul + causal attention."""
        return sum(c.cell["flops"]["matmul_causal"] for c in self.cells)

    @property
    def flops_done(self) -> float:
        """FLOPs done so far; a running cell counts by its share of steps, and a failed one does not."""
        return sum(c.progress * c.cell["flops"]["matmul_causal"] for c in self.cells)


def read_status(
    root: pathlib.Path,
    study: Optional[dict[str, Any]] = None,
    known: Optional[dict[str, CellStatus]] = None,
    on_their_way: Collection[tuple[int, int]] = (),
) -> Status:
    """Reads every cell's state.

    Args:
        root: the study's directory
        study: the content of study.json, if it is read already
        known: keeps completed cells between calls: nothing changes them, while a user may take up others again
        on_their_way: the (stage, devices) of cells that workers in a scheduler's queue will come to
    """
    study = study or directory.open_study(root)
    known = {} if known is None else known
    index = Index(root) if not known and len(study["cells"]) >= MANY else None
    states = []
    for cell in study["cells"]:
        state = known.get(cell["id"]) or _looked_up(root, cell, (cell["stage"], cell.get("devices", 1)) in on_their_way, index)
        if state.state == "completed":
            known[cell["id"]] = state
        states.append(state)
    if index is not None:
        index.save()
    return Status(tuple(states), (root / "forecast.json").exists())


def require_completed(cells: Sequence[CellStatus], least: float) -> None:
    """Raises UserError unless at least this share of the cells completed with a finite loss."""
    completed = sum(c.state == "completed" and c.loss is not None for c in cells)
    if completed < least * len(cells):
        failed = sum(c.state == "failed" for c in cells)
        retry = f", and `retry` trains the {failed} failed ones again" if failed else ""
        raise UserError(
            f"{completed} of {counted(len(cells), 'cell')} completed, and limits.min_completed is "
            f"{least:.0%}: `status` gives the reasons{retry}"
        )


def excluded(status: Status, root: pathlib.Path, retry: str) -> list[str]:
    """Returns a line for each cell that failed or diverged, with the reason, then the way out, and one line of those that left steps out.

    Args:
        status: the state of the study
        root: the study's directory
        retry: the command that trains failed cells again
    """
    lines = []
    for c in status.cells:
        if c.state in ("diverged", "failed"):
            log = root / "cells" / c.cell["id"] / records.FAILURES
            more = f" (traceback: {log})" if c.state == "failed" and log.exists() else ""
            lines.append(f"{c.state:8s} cell {c.cell['id']} ({naming.words(c.cell)}): {c.reason}{more}")
        elif c.state == "cancelled":
            lines.append(f"{c.state:8s} cell {c.cell['id']} ({naming.words(c.cell)}): `retry {c.cell['id'][:6]}` takes it up again")
    if failed := status.count("failed"):
        lines.append(f"{counted(failed, 'cell')} failed and fits leave them out; when the cause is mended, train again: {retry}")
    if diverged := status.count("diverged"):
        why = "which is a result, unless text or device were at fault: fits leave them out"
        lines.append(f"{counted(diverged, 'cell')} diverged, {why}, and with the cells' ids `{retry} ID ...` trains them on")
    if bad := [c for c in status.cells if c.state == "completed" and c.bad_steps]:
        most = ", ".join(f"{c.cell['id']} {c.bad_steps:,} of {c.cell['steps']:,}" for c in sorted(bad, key=lambda c: -c.bad_steps)[:3])
        more = f", and {len(bad) - 3} more" if len(bad) > 3 else ""
        lines.append(f"{counted(len(bad), 'cell')} completed without some steps, which were bad (`bad_steps` in run.json): {most}{more}")
    return lines


def described(status: Status, root: pathlib.Path) -> dict[str, Any]:
    """Returns a study's state as JSON values: what `status` shows, and for each cell its place, size, state, progress, loss and reason.

    Missing losses are null, and so are losses that are not finite.
    """
    states = collections.Counter(c.state for c in status.cells)
    return {
        "directory": str(root), "count": len(status.cells), "states": dict(states), "flops": status.flops, "flops_done": status.flops_done,
        "forecast_written": status.forecast, "cells": [_described(c) for c in status.cells],
    }  # fmt: skip


def _described(c: CellStatus) -> dict[str, Any]:
    place = {name: c.cell[name] for name in _PLACE if name in c.cell}
    loss = c.loss if c.loss is not None and math.isfinite(c.loss) else None
    state = {"state": c.state, "progress": c.progress, "loss": loss, "unit": c.unit, "reason": c.reason, "seconds": c.seconds}
    state |= {"bad_steps": c.bad_steps} if c.bad_steps else {}
    state |= {"step": c.step, "tokens_per_second": c.tokens_per_second} if c.state in ("running", "preempted") else {}
    return place | {"params": c.cell["params"]["total"]} | state


def _looked_up(root: pathlib.Path, cell: dict[str, Any], is_queued: bool, index: Optional[Index]) -> CellStatus:
    """Returns the state of a cell, from the index of completed ones where it is there."""
    if index is None:
        return _cell_status(root, cell, is_queued)
    stamp = stamp_of(root / "cells" / cell["id"] / records.FILE)
    if stamp and len(kept := index.get(cell["id"], stamp) or []) == 5:
        loss, reason, seconds, unit, bad = kept
        return CellStatus(cell, "completed", 1.0, loss, reason, seconds, unit, bad_steps=bad)
    found = _cell_status(root, cell, is_queued)
    if stamp and found.state == "completed":
        index.put(cell["id"], stamp, [found.loss, found.reason, found.seconds, found.unit, found.bad_steps])
    return found


def _cell_status(root: pathlib.Path, cell: dict[str, Any], is_queued: bool) -> CellStatus:
    folder = root / "cells" / cell["id"]
    run = records.read(folder)
    if run.get("status") in records.FINISHED:
        likelihood, seconds = run.get("likelihood", "text"), (run.get("seconds") or {}).get("total") or 0.0
        loss = (run.get("final") or {}).get(MEASURE[likelihood])
        done = float(run["status"] != "failed")
        bad = (run.get("bad_steps") or {}).get("count", 0)
        return CellStatus(cell, run["status"], done, loss, run.get("reason"), seconds, UNITS[likelihood], bad_steps=bad)
    if (owner := leases.holder(folder)) is None:
        epoch = leases.newest(folder)
        begun = leases.workdir(folder, epoch) if epoch else folder
        if not epoch or not begun.exists():
            return CellStatus(cell, "queued" if is_queued else "pending", 0.0, None, None, 0.0)
        return _on_the_way(cell, "queued" if is_queued else "preempted", begun)
    return _on_the_way(cell, "running", leases.workdir(folder, owner["epoch"]))


def _on_the_way(cell: dict[str, Any], state: str, workdir: pathlib.Path) -> CellStatus:
    """Returns the state of a cell that has begun, with what its metrics say last."""
    last = _last_metrics(workdir / "metrics.jsonl")
    progress = min(1.0, last.get("step", 0) / max(cell["steps"], 1))
    device = (records.read(workdir).get("environment") or {}).get("device")
    return CellStatus(
        cell, state, progress, last.get("loss"), None, 0.0, step=last.get("step", 0), tokens_per_second=last.get("tokens_per_second"),
        device=device,
    )  # fmt: skip


def _last_metrics(path: pathlib.Path) -> dict[str, Any]:
    """Returns the last complete line with a training loss of a metrics file that is being written; {} when there is none.

    The file's first line has no rate: its time is that of the first steps, which are slow.
    """
    try:
        with open(path, "rb") as file:
            begin = max(0, file.seek(0, 2) - 8192)
            file.seek(begin)
            lines = file.read().decode("utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    for number, line in reversed(list(enumerate(lines))):
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(entry, dict) and "step" in entry and "loss" in entry:
            return entry | ({"tokens_per_second": None} if begin == number == 0 else {})
    return {}
