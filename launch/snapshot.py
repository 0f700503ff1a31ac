"""A snapshot of the code: jobs that wait in a queue run what was submitted, whatever happens to the checkout meanwhile."""

import hashlib
import os
import pathlib
import shutil

import lm

PACKAGES = ("lm", "launch", "experiments", "configs")
FOLDER = "code"


def take(root: pathlib.Path) -> pathlib.Path:
    """Copies this program into the study's directory, once for each content, and returns the copy's absolute path.

    Args:
        root: the study's directory

    Returns: ROOT/code/HASH, for PYTHONPATH. An installed program is copied as well: it may be upgraded.
    """
    source = pathlib.Path(lm.__file__).resolve().parent.parent
    files = sorted(path for name in PACKAGES for path in (source / name).rglob("*") if path.is_file() and path.suffix != ".pyc")
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.relative_to(source)}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    target = root.resolve() / FOLDER / digest.hexdigest()[:12]
    if not target.exists():
        draft = target.with_name(f".{target.name}.{os.getpid()}")
        shutil.rmtree(draft, ignore_errors=True)
        for path in files:
            copy = draft / path.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
        try:
            draft.rename(target)
        except OSError:  # another process made the same
            shutil.rmtree(draft, ignore_errors=True)
    return target
