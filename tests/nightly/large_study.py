"""Trains the smallest cell of experiments/chinchilla_c4 for 20 steps here, on Python sources: `python -m tests.nightly.large_study`.

Model, optimizer and rates are the study's. Text, tokenizer, batch, length, precision and mesh are of this machine, which has no C4 and no
accelerator. The loss has to fall from ln(vocabulary) to that of the frequencies of bytes at most.
"""

import argparse
import dataclasses
import math
import pathlib
import sys
import tempfile

from experiments.chinchilla_c4.study import get_study
from lm.data.config import ByteTokenizer, Component
from lm.mesh import MeshConfig
from lm.runner import train_run
from lm.train.config import EvalConfig

STEPS, ROWS, LENGTH = 20, 2, 256
BYTES = 3.6  # nats of a byte of Python sources by frequency alone, about


def main() -> int:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    cell = min(get_study().cells(), key=lambda cell: cell.config.model.d_model)
    config = cell.config
    data = dataclasses.replace(config.data, components=(Component("python_sources"),), tokenizer=ByteTokenizer(), sequence_length=LENGTH)
    config = dataclasses.replace(
        config,
        data=data,
        mesh=MeshConfig(),
        execution=dataclasses.replace(config.execution, micro_batches=1),
        compute_dtype="float32",
        evaluation=EvalConfig(documents_bytes=10_000, curve_bytes=2_000),
        optim=dataclasses.replace(config.optim, warmup_tokens=10 * ROWS * LENGTH),
        batch_size=ROWS,
        train_tokens=STEPS * ROWS * LENGTH,
    )
    with tempfile.TemporaryDirectory() as folder:
        record = train_run(dataclasses.replace(config, data_dir="runs/data"), pathlib.Path(folder) / "run", log=print)
    assert record["status"] == "completed", record["reason"]
    loss = record["final"]["nats_per_byte"]
    print(
        f"{record['parameters']['total']:,} parameters, {STEPS} steps: {loss:.3f} nats/byte, from {math.log(config.model.vocab_size):.3f}"
    )
    return int(not loss < BYTES)


if __name__ == "__main__":
    sys.exit(main())
