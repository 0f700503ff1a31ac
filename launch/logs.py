"""The logs of workers: which one trained a cell, and where its output is."""

import pathlib
import time
from typing import TextIO

from launch import backends, jobs
from lm.errors import UserError
from lm.study import leases, records

POLL_SECONDS = 0.5
# How lines of a log begin that are not the worker's, and what makes one of SLURM worth showing all the same.
NOISE = ("the job begins", "the worker ended with status", "this node cannot queue", "slurmstepd", "srun: ", "Terminated")
WORTH = ("oom", "out of memory", "time limit")
TAIL = 65_536  # bytes of a log's end in which its last line is looked for


def last_line(path: pathlib.Path) -> str:
    """Returns the last line that a worker wrote to its log, which is the error of one that ended with an error."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, file.seek(0, 2) - TAIL))
            lines = file.read().decode("utf-8", errors="replace").strip().splitlines()
    except OSError as error:
        return f"its log cannot be read: {error.strerror}"
    said = [line for line in lines if not line.startswith(NOISE) or any(words in line.lower() for words in WORTH)]
    return next(reversed([line for line in said or lines if line.strip()]), "no output")


def last_words(root: pathlib.Path) -> str:
    """Returns the newest job whose log is here, the log's last line, and where it is; "" where there is none."""
    for submission in reversed(jobs.read(root)):
        if submission.backend not in backends.BACKENDS:
            continue
        backend = backends.of(submission.backend, submission.options)
        for job in reversed(submission.ids):
            path = backend.log(root, job)
            if path is not None and path.exists():
                return f"job {job} of {backend.NAME}: {last_line(path)} ({path})"
    return ""


def of_cell(root: pathlib.Path, cell_id: str) -> pathlib.Path:
    """Returns the log of the worker that trains a cell or trained it last. Raises UserError where none is known."""
    folder = root / "cells" / cell_id
    for epoch in range(leases.newest(folder), 0, -1):
        log = leases.log_of(folder, epoch)
        if log is not None and log.exists():
            return log
    if (folder / records.FAILURES).exists():
        return folder / records.FAILURES
    words = last_words(root)
    raise UserError(f"no worker has taken cell {cell_id} yet, or its output went to a terminal" + f"; the last one, {words}" * bool(words))


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
