"""The checkpoints of a run on disk: which there are, and whether their files are as they were written (imports no jax).

`lm.train.checkpoint` says what is in them.
"""

import hashlib
import json
from pathlib import Path
from typing import Optional

from lm.errors import UserError

FOLDER = "checkpoints"


def steps(workdir: Path) -> list[int]:
    """Returns the steps of the finished checkpoints, ascending."""
    folder = workdir / FOLDER
    if not folder.is_dir():
        return []
    return sorted(int(entry.name) for entry in folder.iterdir() if entry.name.isdecimal() and (entry / "manifest.json").is_file())


def require(workdir: Path, step: Optional[int] = None) -> None:
    """Raises UserError unless there is a checkpoint, or that of this step, whether sound or not."""
    there = steps(workdir)
    if step is not None and step not in there:
        raise UserError(f"{workdir} has no checkpoint of step {step}; it has {', '.join(map(str, there)) or 'none'}")
    if not there:
        raise UserError(f"{workdir} has no checkpoint: train it first, or name another run")


def sound(workdir: Path, step: Optional[int]) -> int:
    """Returns this step, or that of the newest sound checkpoint; UserError if it is not there or damaged."""
    require(workdir, step)
    damages = []
    for candidate in [step] if step is not None else reversed(steps(workdir)):
        damage = verify(workdir, candidate)
        if damage is None:
            return candidate
        damages.append(f"{path_of(workdir, candidate)} is damaged ({damage})")
    raise UserError("; ".join(damages) + ": train again")


def verify(workdir: Path, step: int) -> Optional[str]:
    """Returns None for a sound checkpoint, else a phrase that says what is wrong with which file."""
    folder = path_of(workdir, step)
    try:
        sealed = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        found = manifest(folder)
    except (OSError, ValueError) as error:
        return f"manifest.json: {error}"
    for name in sorted(set(sealed) | set(found)):
        if name not in found:
            return f"{name} is missing"
        if sealed.get(name) != found[name]:
            return f"{name} has changed"
    return None


def path_of(workdir: Path, step: int) -> Path:
    return workdir / FOLDER / f"{step:08d}"


def manifest(folder: Path) -> dict[str, list]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / "manifest.json")
    return {str(path.relative_to(folder)): [path.stat().st_size, _sha256(path)] for path in files}


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
