"""The record of a cell's run, `cells/ID/run.json`, and what makes a failed cell trainable again (imports no jax).

A failed cell keeps its record, which says why, until it is reset. `cells/ID/failures.txt` keeps every failure with its traceback.
"""

import datetime
import json
import pathlib
import shutil
import traceback
from typing import Any

from lm import files

FINISHED = ("completed", "diverged", "failed")  # states in run.json after which no worker takes a cell, until a failed one is reset
CHECKPOINTS = "checkpoints"
FAILURES = "failures.txt"


def read(folder: pathlib.Path) -> dict[str, Any]:
    """Returns the record in a cell's folder; {} while its run has not begun.

    A record that cannot be read, or that is missing beside checkpoints, is one of a failed run with that reason: nobody can say which run
    the checkpoints are of.
    """
    try:
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        lost = (folder / CHECKPOINTS).is_dir() and any((folder / CHECKPOINTS).iterdir())
        return {"status": "failed", "reason": f"{folder / CHECKPOINTS} has no run.json beside it"} if lost else {}
    except ValueError as error:  # no JSON, or no UTF-8
        return {"status": "failed", "reason": f"{folder / 'run.json'} cannot be read: {error}"}
    if not isinstance(record, dict):
        return {"status": "failed", "reason": f"{folder / 'run.json'} holds no JSON object"}
    return record


def record_failure(folder: pathlib.Path, cell: dict[str, Any], error: BaseException) -> None:
    """Writes a run.json with status "failed" that keeps what the run had recorded, and adds the traceback to failures.txt.

    Fits leave such runs out.
    """
    reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    with open(folder / FAILURES, "a", encoding="utf-8") as file:
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        file.write(f"{now}\n{''.join(traceback.format_exception(error))}\n")
    record = read(folder)
    if "id" not in record:
        record = {"schema": 1, "id": cell["id"], "final": None, "curve": [], "steps": cell["steps"]}
    files.write_json(folder / "run.json", record | {"status": "failed", "reason": reason})


def reset(folder: pathlib.Path, *, from_start: bool) -> None:
    """Makes a failed cell one that workers take: its run goes on from its newest checkpoint, or from its start.

    Args:
        folder: the cell's folder, which no worker holds
        from_start: remove the checkpoints; without readable records they are removed in any case
    """
    record = read(folder)
    if not from_start and {"experiment", "execution", "data"} <= record.keys():
        files.write_json(folder / "run.json", record | {"status": "running", "reason": None})
        return
    if (folder / CHECKPOINTS).exists():
        shutil.rmtree(folder / CHECKPOINTS)
    (folder / "run.json").unlink(missing_ok=True)  # last: until then the cell is a failed one
