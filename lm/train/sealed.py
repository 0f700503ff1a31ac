"""The checkpoints of a run on disk: which there are, and whether they are as they were written (imports no jax).

`lm.train.checkpoint` reads and writes what is in them, and lm.train.manifest has their checksums.
"""

import itertools
import json
from pathlib import Path
from typing import Any, Optional

from lm import files
from lm.errors import UserError
from lm.train import manifest

FOLDER = "checkpoints"


def steps(workdir: Path) -> list[int]:
    """Returns the steps of the checkpoints, ascending; UserError if the directory cannot be read."""
    folder = workdir / FOLDER
    try:
        return files.reading(folder, lambda: sorted(int(entry.name) for entry in folder.iterdir() if entry.name.isdecimal()))
    except (FileNotFoundError, NotADirectoryError):
        return []


def require_own(workdir: Path) -> None:
    """Raises UserError for a folder of checkpoints that is a link: what a run removes there may be another's."""
    folder = workdir / FOLDER
    if folder.is_symlink():
        raise UserError(
            f"{folder} is a link to {folder.readlink()}, and a run renames and removes checkpoints: replace it by a folder, or choose a"
            " --workdir that lies there as a whole"
        )


def require(workdir: Path, step: Optional[int] = None) -> None:
    """Raises UserError unless there is a checkpoint, or that of this step, whether sound or not."""
    there = steps(workdir)
    if step is not None and step not in there:
        raise UserError(f"{workdir} has no checkpoint of step {step}; it has {', '.join(map(str, there)) or 'none'}")
    if not there:
        raise UserError(f"{workdir} has no checkpoint: train it first, or name another run")


def sound(workdir: Path, step: Optional[int]) -> int:
    """Returns this step, or that of the newest checkpoint; UserError if it is not there or damaged."""
    require(workdir, step)
    there = steps(workdir)
    wanted = there[-1] if step is None else step
    fault = fault_of(workdir, wanted)
    if fault is not None:
        others = [other for other in there if other != wanted and fault_of(workdir, other) is None]
        remedy = f"name another step, such as {others[-1]}" if others else "train again"
        raise UserError(f"checkpoint {path_of(workdir, wanted)} {fault}: {remedy}")
    return wanted


def fault_of(workdir: Path, step: int, arrays: Optional[dict[str, str]] = None) -> Optional[str]:
    """Returns what keeps a checkpoint from being restored as `arrays`; None if nothing does, and UserError if it cannot be read."""
    found = verify(workdir, step)
    if found:
        return f"is damaged ({found[0]}{f', and {len(found) - 1} more' if len(found) > 1 else ''})"
    return None if arrays is None else misfit_of(meta_of(workdir, step)["arrays"], arrays)


def verify(workdir: Path, step: int) -> list[str]:
    """Returns a phrase for each file of a checkpoint that is not as it was written; UserError where one cannot be read."""
    return files.reading(path_of(workdir, step), lambda: manifest.damages(path_of(workdir, step)))


def misfit_of(stored: dict[str, str], wanted: dict[str, str]) -> Optional[str]:
    """Returns the first name whose shape or dtype differs, as a phrase. Groups of which nothing is wanted are not compared."""
    groups = {name.partition("/")[0] for name in wanted}
    names = set(wanted) | {name for name in stored if name.partition("/")[0] in groups}
    for name in sorted(names, key=lambda name: (not name.startswith("params/"), name)):
        if stored.get(name) != wanted.get(name):
            return f"is of another model: {name} is {stored.get(name, 'absent')} there and {wanted.get(name, 'absent')} here"
    return None


def meta_of(workdir: Path, step: int) -> dict[str, Any]:
    """Reads the meta.json of a sound checkpoint."""
    path = path_of(workdir, step) / "meta.json"
    return json.loads(files.reading(path, lambda: path.read_text(encoding="utf-8")))


def path_of(workdir: Path, step: int) -> Path:
    return workdir / FOLDER / f"{step:08d}"


def set_aside(folder: Path) -> Path:
    """Gives a checkpoint that is not sound another name, under which nothing looks for it, and returns that."""
    names = itertools.chain([".aside"], (f".aside-{number}" for number in itertools.count(2)))
    place = next(path for path in (folder.with_name(folder.name + name) for name in names) if not path.exists())
    return folder.rename(place)
