"""Several runs one after the other, as one of the processes that train them together: `several_runs.py RUNS.json --coordinator=...`.

RUNS.json lists runs: `config`, `workdir`, `full_disk` (process 0's disk is full after so many checkpoints) and `copy` (where the work
directory is copied in the end). Each run says in one line of JSON how it ended; its log, where there is one, begins with something else.
"""

import collections
import contextlib
import functools
import json
import shutil
import sys
from pathlib import Path
from unittest import mock

from lm import config, distributed, runner
from lm.errors import run_cli
from lm.run import parse
from lm.train import checkpoint
from lm.train.config import RunConfig

Usage = collections.namedtuple("Usage", "total used free")


def full_disk(workdir, after):
    """A disk with no room left after so many checkpoints."""
    disk_usage = shutil.disk_usage
    return mock.patch.object(
        shutil, "disk_usage", lambda path: Usage(1, 1, 0) if len(checkpoint.steps(workdir)) >= after else disk_usage(path)
    )


def main():
    runs = json.loads(Path(sys.argv[1]).read_text())
    with distributed.joined(distributed.settings(parse(sys.argv[2:]).values)):
        log = functools.partial(print, "log:", flush=True) if distributed.is_first() else None  # one: a data set is opened once for each
        for run in runs:
            workdir = Path(run["workdir"])
            is_full = "full_disk" in run and distributed.is_first()
            with full_disk(workdir, run["full_disk"]) if is_full else contextlib.nullcontext():
                try:
                    record = runner.train_run(config.from_dict(RunConfig, run["config"]), workdir, log=log)
                    print(json.dumps(record["status"]), flush=True)
                except distributed.AgreedError as error:
                    print(json.dumps(str(error)), flush=True)
            if "copy" in run and distributed.is_first():
                shutil.copytree(workdir, run["copy"])


if __name__ == "__main__":
    run_cli(main)
