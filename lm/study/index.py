"""An index of the cells of a large study that have completed: their records need not be read and checked at each `status` (imports no jax).

`DIR/status.index` holds what `status` shows of a record, and the stamp of its file: inode, size, and the times of its last change. A record
whose file has another stamp is read. Nothing but `status` and the progress of a run believes it: fits read every record, with its seal.
"""

import contextlib
import json
import os
import pathlib
import time
from typing import Any, Optional

from lm import files
from lm.errors import UserError

FILE = "status.index"
SCHEMA = 1
SETTLED_SECONDS = 60.0  # a file that changed less long ago may change again under the same stamp, and clocks differ

Stamp = list[int]


class Index:
    """The index of one study, read once. What is read is an empty index where there is none, or it is damaged."""

    def __init__(self, root: pathlib.Path):
        self._path = root / FILE
        self._entries: dict[str, tuple[Stamp, list[Any]]] = {}
        self._is_new = False
        with contextlib.suppress(OSError, ValueError, TypeError, AttributeError, LookupError):
            content = json.loads(self._path.read_text(encoding="utf-8"))
            if content["schema"] == SCHEMA:
                self._entries = {name: (stamp, values) for name, (stamp, values) in content["cells"].items()}

    def get(self, name: str, stamp: Stamp) -> Optional[list[Any]]:
        """Returns what was kept of a cell whose record has this stamp; None where nothing was."""
        found = self._entries.get(name)
        return found[1] if found is not None and found[0] == stamp else None

    def put(self, name: str, stamp: Stamp, values: list[Any]) -> None:
        """Keeps what `status` shows of a cell, from a record that was read after the stamp was taken."""
        if time.time() - stamp[-1] / 1e9 > SETTLED_SECONDS:
            self._entries[name], self._is_new = (stamp, values), True

    def save(self) -> None:
        """Writes what is new. A directory that cannot be written is read anew each time."""
        if self._is_new:
            with contextlib.suppress(OSError, UserError):
                files.write_text(self._path, json.dumps({"schema": SCHEMA, "cells": self._entries}))


def stamp_of(path: pathlib.Path) -> Stamp:
    """Returns the stamp of a file; [] where there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return []
    return [found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]
