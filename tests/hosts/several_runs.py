"""Several runs one after the other, as one of the processes that train them together: `several_runs.py RUNS.json --coordinator=...`.

RUNS.json lists runs: `config`, `workdir`, and what is to break, if anything: `full_disk`, for process 0 after so many checkpoints; or
`evaluation`, the number of the process on which it raises an error. One line for each run tells how it ended; the last one's error is that
of the command.
"""

import collections
import json
import shutil
import sys
from pathlib import Path

from lm import config, distributed, runner
from lm.errors import UserError, run_cli
from lm.evals.loss import LossEvaluator
from lm.run import parse
from lm.train import checkpoint
from lm.train.config import RunConfig

Usage = collections.namedtuple("Usage", "total used free")


def broken(run):
    """Puts in what breaks the run; returns how to mend it."""
    disk_usage, evaluate, workdir = shutil.disk_usage, LossEvaluator.__call__, Path(run["workdir"])

    def full(path):
        return Usage(1, 1, 0) if len(checkpoint.steps(workdir)) >= run["full_disk"] else disk_usage(path)

    def fails(self, params, which):
        if distributed.index() == run["evaluation"]:
            raise UserError("no evaluation here")
        return evaluate(self, params, which)

    if "full_disk" in run and distributed.is_first():
        shutil.disk_usage = full
    if "evaluation" in run:
        LossEvaluator.__call__ = fails

    def mend():
        shutil.disk_usage, LossEvaluator.__call__ = disk_usage, evaluate

    return mend


def main():
    arguments = parse(sys.argv[2:])
    runs = json.loads(Path(sys.argv[1]).read_text())
    with distributed.joined(distributed.settings(arguments.values)):
        for run in runs:
            mend = broken(run)
            try:
                record = runner.train_run(config.from_dict(RunConfig, run["config"]), Path(run["workdir"]))
                print(json.dumps(record["status"]), flush=True)
            except distributed.AgreedError as error:
                print(json.dumps(str(error)), flush=True)
                if run is runs[-1]:
                    raise
            finally:
                mend()


if __name__ == "__main__":
    run_cli(main)
