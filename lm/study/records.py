"""The record of a finished cell, `cells/ID/run.json`, and its seal (imports no jax).

The seal is {"epoch", "sha256"}: which lease the record was committed under (lm.study.leases), and the hash of that and of the rest. A
record whose hash differs was altered and is believed by nobody. A failed or cancelled cell keeps its record, which says why, until it is
trained again.
`cells/ID/failures.txt` keeps every failure with its traceback.
"""

import datetime
import hashlib
import json
import pathlib
import traceback
from typing import Any

from lm.study.states import FINISHED

FILE = "run.json"
CHECKPOINTS = "checkpoints"
CLAIMS = "claims"  # of a cell that only records with a seal are believed of; directories before version 0.6 have none until a claim
FAILURES = "failures.txt"

KINDS = {"status": str, "likelihood": str, "curve": list} | dict.fromkeys(
    ("final", "tokens", "flops", "parameters", "seconds", "seal"), dict
)


def read(folder: pathlib.Path) -> dict[str, Any]:
    """Returns the record in a cell's folder; {} while its run has not begun.

    A record that cannot be read, or that is missing beside checkpoints, is one of a failed run with that reason: nobody can say which run
    the checkpoints are of.
    """
    try:
        record = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        lost = (folder / CHECKPOINTS).is_dir() and any((folder / CHECKPOINTS).iterdir())
        return {"status": "failed", "reason": f"{folder / CHECKPOINTS} has no run.json beside it"} if lost else {}
    except (ValueError, RecursionError) as error:  # no JSON, or no UTF-8
        return _unbelieved(folder, f"cannot be read: {error}")
    if not isinstance(record, dict):
        return _unbelieved(folder, "holds no JSON object")
    if wrong := [name for name, kind in KINDS.items() if not isinstance(record.get(name), (kind, type(None)))]:
        return _unbelieved(folder, f"is no record of a run: its {wrong[0]} is a {type(record[wrong[0]]).__name__}")
    if record.get("status") in FINISHED and (folder / CLAIMS).is_dir() and record != sealed(record, epoch_of(record)):
        return _unbelieved(folder, "was changed after its run, or is of another program: its checksum differs")
    return record


def _unbelieved(folder: pathlib.Path, why: str) -> dict[str, Any]:
    return {"status": "failed", "reason": f"{folder / FILE} {why}"}


def is_finished(folder: pathlib.Path) -> bool:
    """Says whether a cell's record has an end: completed, diverged, failed or cancelled."""
    return read(folder).get("status") in FINISHED


def is_begun(record: dict[str, Any]) -> bool:
    """Says whether a record is of a run that had begun, and can go on from its checkpoints."""
    return {"experiment", "execution", "data"} <= record.keys()


def sealed(record: dict[str, Any], epoch: int) -> dict[str, Any]:
    """Returns a record with the seal of the lease under which it is committed."""
    content = {key: value for key, value in record.items() if key != "seal"}
    digest = hashlib.sha256(json.dumps([epoch, content], sort_keys=True).encode()).hexdigest()
    return content | {"seal": {"epoch": epoch, "sha256": digest}}


def epoch_of(record: dict[str, Any]) -> int:
    """Returns the epoch under which a record was committed; 0 for one without a seal."""
    epoch = (record.get("seal") or {}).get("epoch")
    return epoch if isinstance(epoch, int) else 0


def failed(workdir: pathlib.Path, cell: dict[str, Any], reason: str) -> dict[str, Any]:
    """Returns a record with status "failed" that keeps what the run in `workdir` had recorded. Fits leave such runs out."""
    return _ended(workdir, cell, "failed", reason)


def cancelled(workdir: pathlib.Path, cell: dict[str, Any]) -> dict[str, Any]:
    """Returns a record with status "cancelled" that keeps what the run in `workdir` had recorded. Fits leave such runs out."""
    return _ended(workdir, cell, "cancelled", "a user cancelled it")


def _ended(workdir: pathlib.Path, cell: dict[str, Any], status: str, reason: str) -> dict[str, Any]:
    record = read(workdir)
    if "id" not in record:
        record = {"schema": 1, "id": cell["id"], "final": None, "curve": [], "steps": cell["steps"]}
    return record | {"status": status, "reason": reason}


def reason_of(folder: pathlib.Path, error: BaseException) -> str:
    """Returns an error as one line, and adds its traceback to the cell's failures.txt."""
    with open(folder / FAILURES, "a", encoding="utf-8") as file:
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        file.write(f"{now}\n{''.join(traceback.format_exception(error))}\n")
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
