"""The bundle of a bad step: what reproduces it, in a folder of its own. `python -m lm.replay FOLDER` does (imports no jax).

bad_steps/00000017/step.json      the step, its batch's number and the seed, loss and gradient norm, why it is bad, and where it begins
bad_steps/00000017/run.json       the record of the run at that time
bad_steps/00000017/batch.npz      the batch as it was on the host; of several processes batch-1.npz and so on, each its own rows
bad_steps/00000017/checkpoints/   the newest checkpoint before it, by hard links; none where there was none
bad_steps/00000017-batch-31/      the same step on another batch than its first, in a run that has gone back
"""

import contextlib
import json
import os
import shutil
import zipfile
import zlib
from pathlib import Path
from typing import Any, Optional

import numpy as np

from lm import distributed, files
from lm.errors import UserError, one_line
from lm.train import record, sealed
from lm.types import Batch

FOLDER = "bad_steps"
FILE = "step.json"
NEEDED = {"step", "batch", "loss", "grad_norm", "checkpoint"}  # of step.json, for a replay
MOST = 3  # bundles of a run; further bad steps are counted only


def path_of(workdir: Path, step: int, batch: int) -> Path:
    """Returns the folder of a bad step. It names the batch too where that is not the one of this step in a run that never goes back."""
    return workdir / FOLDER / (f"{step:08d}" if batch == step - 1 else f"{step:08d}-batch-{batch}")


def write(workdir: Path, step: dict[str, Any], batch: Batch, run: record.Record, newest: Optional[int]) -> Optional[Path]:
    """Writes the bundle of a bad step and returns its folder; None if the run has `MOST` already.

    Args:
      workdir: the run's work directory.
      step: the content of step.json, with `step` and `batch`.
      batch: this process's part of the batch.
      run: the run's record.
      newest: the step of the newest checkpoint, if there is one.

    Raises:
      UserError, OSError: it could not be written.
    """
    folder = path_of(workdir, step["step"], step["batch"])
    made = distributed.first(lambda: _begin(workdir, folder, step | {"checkpoint": newest}, run))
    if not made:
        return None
    arrays = {name: value for name, value in vars(batch).items() if value is not None}
    np.savez(folder / _part(distributed.index()), **arrays)
    return folder


def _begin(workdir: Path, folder: Path, step: dict[str, Any], run: record.Record) -> bool:
    others = [path for path in folder.parent.glob("*") if path != folder] if folder.parent.is_dir() else []
    if len(others) >= MOST:
        return False
    with record.writing(folder):
        shutil.rmtree(folder, ignore_errors=True)  # of the same step and batch, before a restart
        folder.mkdir(parents=True)
        if step["checkpoint"] is not None:
            there = sealed.path_of(workdir, step["checkpoint"])
            shutil.copytree(there, sealed.path_of(folder, step["checkpoint"]), copy_function=_linked)
    record.write_json(folder / record.FILE, run)
    record.write_json(folder / FILE, step)
    return True


def _linked(source: str, target: str) -> None:
    with contextlib.suppress(OSError):  # a file system without links
        return os.link(source, target)
    shutil.copy2(source, target)


def _part(process: int) -> str:
    return f"batch-{process}.npz" if process else "batch.npz"


def read(folder: Path) -> tuple[dict[str, Any], list[dict[str, np.ndarray]]]:
    """Reads a bundle: the content of step.json, and the fields of each process's rows. UserError for a folder that is none."""
    path = folder / FILE
    try:
        step = json.loads(files.reading(path, lambda: path.read_text(encoding="utf-8")))
        parts: list[dict[str, np.ndarray]] = []
        while (part := folder / _part(len(parts))).exists():
            with np.load(part) as fields:
                parts.append(dict(fields))
    except FileNotFoundError:
        raise UserError(f"{folder} holds no {FILE}: name a folder such as WORKDIR/{FOLDER}/00000017") from None
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{folder} cannot be read ({one_line(error)}): restore it, or replay another step") from error
    if not isinstance(step, dict) or (lacking := sorted(NEEDED - step.keys())):
        raise UserError(f"{path} is damaged (it lacks {lacking[0] if isinstance(step, dict) else 'everything'}): replay another step")
    return step, parts
