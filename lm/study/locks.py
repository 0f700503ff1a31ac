"""Claims keep two workers from training one cell at the same time (imports no jax).

A claim is the file `cells/ID/claim`. A worker creates it while it holds a lock on the study, touches it as a heartbeat, and removes it
when the cell ends. A claim is stale when its process is gone (same host) or its heartbeat is older than `STALE_SECONDS` (another host);
anyone may take a stale claim over. The kernel drops the lock of a process that ends, so that a kill at any moment blocks nobody.
"""

import contextlib
import fcntl
import json
import os
import pathlib
import socket
import time
from collections.abc import Iterator
from typing import Any, Optional

from lm.study import records

STALE_SECONDS = 120.0
HEARTBEAT_SECONDS = 10.0


def claim(study_dir: pathlib.Path, cell_id: str) -> bool:
    """Takes a cell for this process. Returns False when the cell is finished or another living process holds it."""
    path = claim_path(study_dir, cell_id)
    with _locked(study_dir):
        if is_finished(study_dir, cell_id) or holder(path) is not None:
            return False
        path.unlink(missing_ok=True)
        with open(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644), "w", encoding="utf-8") as file:
            json.dump({"pid": os.getpid(), "host": socket.gethostname(), "born": _born(os.getpid()), "time": time.time()}, file)
        return True


def release(study_dir: pathlib.Path, cell_id: str) -> None:
    """Removes this process's claim. A claim that another process took over meanwhile (because this one slept, say) stays."""
    path = claim_path(study_dir, cell_id)
    with _locked(study_dir):
        owner = _owner(path)
        if owner is not None and (owner["host"], owner["pid"]) == (socket.gethostname(), os.getpid()):
            path.unlink(missing_ok=True)


def heartbeat(study_dir: pathlib.Path, cell_id: str) -> None:
    """Says that the claim's process is alive."""
    with contextlib.suppress(FileNotFoundError):
        os.utime(claim_path(study_dir, cell_id))


def holder(path: pathlib.Path) -> Optional[dict[str, Any]]:
    """Returns the living process that holds a claim, as {pid, host, born, time}; None when the claim is absent, torn or stale."""
    owner = _owner(path)
    try:
        age = time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return None
    if owner is None:
        return None
    if owner["host"] == socket.gethostname():
        alive = owner["born"] is not None and _born(owner["pid"]) == owner["born"]
        return owner if alive else None
    return owner if age < STALE_SECONDS else None


def _owner(path: pathlib.Path) -> Optional[dict[str, Any]]:
    """Returns a claim's content; None when it is absent, or torn because its process was killed while it wrote."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError, UnicodeDecodeError):
        return None


def clear_stale(study_dir: pathlib.Path, cell_ids: list[str]) -> int:
    """Removes claims that no living process holds and returns how many there were."""
    removed = 0
    with _locked(study_dir):
        for path in (claim_path(study_dir, cell_id) for cell_id in cell_ids):
            if path.exists() and holder(path) is None:
                path.unlink(missing_ok=True)
                removed += 1
    return removed


def retry(study_dir: pathlib.Path, cell_ids: list[str], *, from_start: bool) -> list[str]:
    """Makes failed cells free again and returns their ids. One that a living process holds is left to it.

    Args:
        study_dir: the study's directory
        cell_ids: the cells to look at
        from_start: train them from their start, not from their newest checkpoint
    """
    freed = []
    with _locked(study_dir):
        for cell_id in cell_ids:
            folder = study_dir / "cells" / cell_id
            if records.read(folder).get("status") == "failed" and holder(claim_path(study_dir, cell_id)) is None:
                records.reset(folder, from_start=from_start)
                freed.append(cell_id)
    return freed


def claim_path(study_dir: pathlib.Path, cell_id: str) -> pathlib.Path:
    return study_dir / "cells" / cell_id / "claim"


def is_finished(study_dir: pathlib.Path, cell_id: str) -> bool:
    """Says whether the cell's run.json records an end: completed, diverged or failed."""
    return records.read(study_dir / "cells" / cell_id).get("status") in records.FINISHED


@contextlib.contextmanager
def _locked(study_dir: pathlib.Path) -> Iterator[None]:
    with open(study_dir / "claims.lock", "a", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _born(pid: int) -> Optional[str]:
    """Returns when a process started, which tells it from an earlier one with the same pid; None when it is gone."""
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        fields = stat.rpartition(")")[2].split()  # from the third on: state, ..., start time as the 22nd
        return None if fields[0] in "ZX" else fields[19]
    except (FileNotFoundError, ProcessLookupError):
        if pathlib.Path("/proc/self/stat").exists():
            return None
    try:  # systems without /proc: alive is all that can be said
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return "unknown"
