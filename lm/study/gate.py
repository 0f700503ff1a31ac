"""The gate of stage 1: its cells start only when the forecast that they test has been written (imports no jax).

forecast.json holds {"sha256", "time", "runs", "content"}. The hash covers the other three; `runs` are the ids of the runs that the forecast
was made from. The file is written once and never rewritten.
"""

import datetime
import os
import pathlib
from typing import Any, Optional

from lm import files
from lm.errors import UserError
from lm.study import directory
from lm.study.rows import read_json


def is_open(root: pathlib.Path, stage: int) -> bool:
    """Says whether cells of a stage may start. Raises UserError when the forecast was changed after it was written."""
    return stage == 0 or read_forecast(root) is not None


def read_forecast(root: pathlib.Path) -> Optional[dict[str, Any]]:
    """Returns the content of forecast.json, or None before it is written. Raises UserError when its hash does not match."""
    path = root / "forecast.json"
    if not path.exists():
        return None
    stored = read_json(path, "")
    if stored.get("sha256") != directory.sha256({key: stored.get(key) for key in ("time", "runs", "content")}):
        raise UserError(f"{path} was changed after it was written: restore it, or start the study again in another directory with --dir")
    return stored


def write_forecast(root: pathlib.Path, content: dict[str, Any], runs: list[str]) -> dict[str, Any]:
    """Writes the forecast unless there is one already.

    Args:
        content: the forecast as JSON values
        runs: ids of the runs that it was made from

    Returns: the content of forecast.json, whoever wrote it.
    """
    if (present := read_forecast(root)) is not None:
        return present
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    stored: dict[str, Any] = {"time": now, "runs": runs, "content": content}
    stored = {"sha256": directory.sha256(stored)} | stored
    draft = root / f"forecast.json.{os.getpid()}"
    files.write_json(draft, stored)
    try:
        os.link(draft, root / "forecast.json")  # unlike a rename, never replaces another process's forecast
    except FileExistsError:
        pass
    finally:
        draft.unlink(missing_ok=True)
    written = read_forecast(root)
    assert written is not None
    return written
