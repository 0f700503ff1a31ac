"""Claims divide work among processes that share a directory, on one machine or several (imports no jax).

    FOLDER/000003    the third claim of one piece of work: which process its worker is, touched as a heartbeat

A worker takes a piece by creating its next claim. Only one of several can: a hard link is made or fails as a whole, on POSIX file systems
and on NFS, and no lock is needed. The newest claim counts. It is stale when its process is gone (same machine) or its heartbeat is older
than `STALE_SECONDS` by the file server's clock; then anyone may take the next.

Here whoever was paused past its claim may end its work all the same: a piece comes out the same whoever does it, and appears as a whole.
The leases of a study (lm.study.leases), whose work does not, guard against that too.
"""

import contextlib
import errno
import json
import os
import pathlib
import tempfile
from typing import Any, Optional

from lm import machine
from lm.errors import SHARED, UserError

STALE_SECONDS = 120.0
NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)


class Claim:
    """This process's hold on a piece of work."""

    def __init__(self, path: pathlib.Path):
        self._path = path

    def beat(self) -> None:
        """Says that the worker is alive."""
        with contextlib.suppress(OSError):  # the work can go on without: at worst another does it too
            os.utime(self._path)

    def give_back(self) -> None:
        """Frees the piece for others."""
        with contextlib.suppress(OSError):
            os.truncate(self._path, 0)


def take(folder: pathlib.Path, root: pathlib.Path) -> Optional[Claim]:
    """Takes a piece of work for this process; returns None while another living process holds it.

    Args:
      folder: the folder of the claims on this piece.
      root: a folder of the same file server, which tells the time.

    Raises:
      UserError: the file system has no hard links.
    """
    folder.mkdir(parents=True, exist_ok=True)
    last = max((int(name) for name in os.listdir(folder) if name.isdecimal()), default=0)
    if last and _is_held(folder / f"{last:06d}", root):
        return None
    path = folder / f"{last + 1:06d}"
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", prefix=".new-", dir=folder) as file:
        os.fchmod(file.fileno(), 0o644)
        json.dump(machine.process(), file)
        file.flush()
        return Claim(path) if link(pathlib.Path(file.name), path) else None


def link(source: pathlib.Path, target: pathlib.Path) -> bool:
    """Makes a file exist under a second name; returns False when that name is taken."""
    try:
        os.link(source, target)
    except FileExistsError:
        return os.stat(source).st_nlink > 1  # NFS: made, and the answer was lost
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        raise UserError(f"cannot link {target}: this file system has no hard links; {SHARED}") from error
    return True


def require_links(folder: pathlib.Path) -> None:
    """Raises UserError where the file system of a folder has no hard links, as mounted buckets have none."""
    with tempfile.TemporaryDirectory(prefix=".links-", dir=folder) as inside:
        path = pathlib.Path(inside) / "file"
        path.touch()
        link(path, path.with_name("link"))


def _is_held(path: pathlib.Path, root: pathlib.Path) -> bool:
    try:
        owner: Any = json.loads(path.read_text(encoding="utf-8"))
        age = machine.server_time(root) - path.stat().st_mtime
    except (FileNotFoundError, ValueError):
        return False  # given back
    return isinstance(owner, dict) and "born" in owner and not machine.is_gone(owner) and age < STALE_SECONDS
