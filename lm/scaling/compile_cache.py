"""Compiled programs kept between commands: a third of the time of a small fit is compilation, the same each time.

Such a program is run as it is found, so that the folder belongs to its user alone; workers of a study keep theirs in it too, not in the
study's directory, in which others may write. JAX reads these settings from the environment when it is imported, so that `switch_on` comes
first and imports no jax itself.
"""

import contextlib
import hashlib
import os
import pathlib
import platform
import stat
from collections.abc import MutableMapping

DIRECTORY = "JAX_COMPILATION_CACHE_DIR"
LARGEST = 4_000_000_000  # bytes of the folder: beyond it the oldest programs are removed
_ALL = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1"}


def switch_on(environ: MutableMapping[str, str] = os.environ) -> None:
    """Sets JAX's persistent compilation cache, unless the environment says where it is; goes without where no folder is the user's alone.

    JAX_ENABLE_COMPILATION_CACHE=0 switches it off.
    """
    if DIRECTORY not in environ:
        folder = _folder(environ)
        try:
            folder.parent.parent.mkdir(parents=True, exist_ok=True)
            for place in (folder.parent, folder):
                place.mkdir(mode=0o700, exist_ok=True)
        except OSError:
            return
        if not is_private(folder) or not is_private(folder.parent) or not os.access(folder, os.W_OK | os.X_OK):
            return
        _trim(folder)
        environ[DIRECTORY] = str(folder)
    for name, value in _ALL.items():
        environ.setdefault(name, value)


def is_private(folder: pathlib.Path) -> bool:
    """Returns whether a path is a folder of this user's, and no link, in which no other user can write."""
    found = folder.lstat()
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _folder(environ: MutableMapping[str, str]) -> pathlib.Path:
    """Returns the folder of this kind of processor and number of cores: a home may be shared by machines whose programs differ."""
    home = environ.get("XDG_CACHE_HOME") or os.path.join(environ.get("HOME") or os.path.expanduser("~"), ".cache")
    machine = [_processor(), _cores(), environ.get("PJRT_NPROC", "")]
    return pathlib.Path(home) / "lm" / f"jax-{hashlib.sha256(' '.join(machine).encode()).hexdigest()[:12]}"


def _trim(folder: pathlib.Path, largest: int = LARGEST) -> None:
    """Removes the oldest programs of a folder beyond so many bytes. Other processes may do so at the same time."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        found = sorted((entry.stat().st_mtime, entry.stat().st_size, entry.path) for entry in entries)
        excess = sum(size for _, size, _ in found) - largest
        for _, size, path in found:
            if excess <= 0:
                break
            os.unlink(path)
            excess -= size


def _cores() -> str:
    """Returns how many cores this process may use: a program is compiled for as many."""
    return str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())


def _processor() -> str:
    """Returns the processor's architecture and, on Linux, the instructions that it has."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    features = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return " ".join([platform.machine(), platform.processor(), features])
