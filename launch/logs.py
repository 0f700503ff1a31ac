"""The logs of workers: which one trained a cell, and where its output is."""

import pathlib
import time
from typing import TextIO

from lm.errors import UserError
from lm.study import leases, records

POLL_SECONDS = 0.5


def of_cell(root: pathlib.Path, cell_id: str) -> pathlib.Path:
    """Returns the log of the worker that trains a cell or trained it last. Raises UserError where none is known."""
    folder = root / "cells" / cell_id
    for epoch in range(leases.newest(folder), 0, -1):
        log = leases.log_of(folder, epoch)
        if log is not None and log.exists():
            return log
    if (folder / records.FAILURES).exists():
        return folder / records.FAILURES
    raise UserError(f"no worker has taken cell {cell_id} yet, or its output went to a terminal")


def show(root: pathlib.Path, cell_id: str, out: TextIO, *, follow: bool) -> None:
    """Prints a cell's log, and with `follow` what is added to it while a worker holds the cell."""
    path, folder = of_cell(root, cell_id), root / "cells" / cell_id
    print(f"==> {path}", file=out, flush=True)
    with open(path, encoding="utf-8", errors="replace") as file:
        while True:
            out.write(file.read())
            out.flush()
            if not follow or leases.holder(folder) is None:
                return
            time.sleep(POLL_SECONDS)
