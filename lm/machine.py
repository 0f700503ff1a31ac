"""Processes, machines and clocks are told apart here, for machines that share a directory (imports no jax)."""

import functools
import os
import pathlib
import socket
import tempfile
import time
from typing import Any, Optional

from lm.errors import UserError

MAX_SKEW_SECONDS = 30.0  # between this machine's clock and the file server's
MEASURE_SECONDS = 10.0  # a measured time of the file server is carried on by this machine's clock for so long
_measured: dict[pathlib.Path, tuple[float, float]] = {}


def clock() -> float:
    """Returns the seconds of a clock that nobody sets and that goes on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


@functools.cache
def identity() -> dict[str, str]:
    """Returns what the processes that see each other have in common: host name, boot and namespace of process numbers.

    A host name alone is not enough: containers share or reuse it, and see other processes under the same numbers.
    """
    boot, namespace = pathlib.Path("/proc/sys/kernel/random/boot_id"), pathlib.Path("/proc/self/ns/pid")
    try:
        return {"host": socket.gethostname(), "boot": boot.read_text(encoding="ascii").strip(), "namespace": os.readlink(namespace)}
    except OSError:  # systems without /proc
        return {"host": socket.gethostname(), "boot": "", "namespace": ""}


def process() -> dict[str, Any]:
    """Returns what identifies this process: its machine, its number, and when it was born; the scheduler's job that it is of, if any."""
    job = {"job": os.environ["SLURM_JOB_ID"]} if "SLURM_JOB_ID" in os.environ else {}
    return identity() | {"pid": os.getpid(), "born": born(os.getpid())} | job


def is_gone(owner: dict[str, Any]) -> bool:
    """Says whether a process of this machine has ended. Of other machines' processes nothing can be said, so they are not gone."""
    return is_here(owner) and (owner["born"] is None or born(owner["pid"]) != owner["born"])


def is_here(owner: dict[str, Any]) -> bool:
    """Says whether a process is one that this process sees under its number."""
    return all(owner.get(name) == value for name, value in identity().items())


def born(pid: int) -> Optional[str]:
    """Returns when a process started, which tells it from an earlier one with the same number; None when it is gone."""
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


def output() -> Optional[str]:
    """Returns the file that this process's output goes to, which `LM_LOG` names where a pipe is in between; None for a terminal."""
    if named := os.environ.get("LM_LOG"):
        return os.path.abspath(named)
    try:
        path = os.readlink("/proc/self/fd/1")
    except OSError:
        return None
    return path if os.path.isfile(path) and path.startswith("/") else None


def server_time(folder: pathlib.Path) -> float:
    """Returns the present time of the file server, which stamps the files in `folder`; this machine's where nothing can be written."""
    if folder not in _measured or clock() - _measured[folder][0] > MEASURE_SECONDS:
        try:
            with tempfile.TemporaryFile(dir=folder) as file:
                stamp = os.fstat(file.fileno()).st_mtime
        except OSError:
            return time.time()
        _measured[folder] = (clock(), stamp)
    at, stamp = _measured[folder]
    return stamp + clock() - at


def require_clock(folder: pathlib.Path) -> None:
    """Raises UserError when this machine's clock differs from the file server's by more than `MAX_SKEW_SECONDS`."""
    skew = time.time() - server_time(folder)
    if abs(skew) > MAX_SKEW_SECONDS:
        raise UserError(
            f"this machine's clock is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} that of the server of {folder}: "
            f"set it (NTP), to at most {MAX_SKEW_SECONDS:.0f} s"
        )
