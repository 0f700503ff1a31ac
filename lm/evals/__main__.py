"""`python -m lm.evals loss RUN [--step=N] [--data_dir=DIR] [--json]`: evaluates a checkpoint of a run."""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any, Optional

from lm import config as config_lib
from lm.data import info
from lm.errors import UserError, run_cli
from lm.evals.words import in_words
from lm.fields import count
from lm.mesh import MeshConfig
from lm.train import record
from lm.train.config import ExecutionConfig, RunConfig


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m lm.evals", description="Evaluates a checkpoint of a run.")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    loss = commands.add_parser(
        "loss",
        help="held-out likelihood",
        description="Prints nats per UTF-8 byte of whole held-out documents, or nats per target token where the objective makes pairs.",
    )
    loss.add_argument("run", type=Path, help="the run's work directory")
    loss.add_argument("--step", type=int, default=None, help="step of the checkpoint (default: the newest)")
    loss.add_argument("--data_dir", default=None, help="directory of the prepared data (default: that of the run's record)")
    loss.add_argument("--bytes", type=count, default=None, help="bytes of held-out text to evaluate on (default: as at the end of the run)")
    loss.add_argument("--json", action="store_true", help="print one JSON object")
    return top


def main(argv: Optional[list[str]] = None) -> int:
    args = parser().parse_args(argv)
    result = evaluate_loss(args.run, step=args.step, data_dir=args.data_dir, documents_bytes=args.bytes)
    if args.json:
        print(json.dumps(result, indent=1))
        return 0
    print(f"{args.run}, step {result['step']:,}: {in_words(result, digits=6)}")
    return 0


def evaluate_loss(
    workdir: Path, *, step: Optional[int] = None, data_dir: Optional[str] = None, documents_bytes: Optional[int] = None
) -> dict[str, Any]:
    """Repeats the final evaluation of a run on one of its checkpoints, with any number of devices.

    Args:
      workdir: the run's work directory.
      step: the step of the checkpoint (default: the newest).
      data_dir: the directory of the prepared data (default: that of the run's record).
      documents_bytes: bytes of held-out text (default: as at the end of the run).

    Raises:
      UserError: run, checkpoint and data do not fit together.
    """
    saved = record.read(workdir)
    if saved is None:
        raise UserError(f"{workdir} holds no run (no {record.FILE}): name a work directory that lm.run or a study wrote")
    config = config_lib.from_parts(RunConfig, saved["experiment"], saved["execution"])
    evaluation = dataclasses.replace(config.evaluation, documents_bytes=documents_bytes or config.evaluation.documents_bytes)
    config = dataclasses.replace(config, evaluation=evaluation, data_dir=data_dir or config.data_dir)
    config = dataclasses.replace(config, mesh=MeshConfig(), execution=ExecutionConfig())  # the options of the run's mesh are not this one's
    if info.info(config.data, config.data_dir) is None:
        raise UserError(f"{config.data_dir} lacks the data that the run was evaluated on: name the right directory with --data_dir")

    import jax

    from lm.data import pipeline
    from lm.evals.evaluator import make_evaluator
    from lm.train import checkpoint
    from lm.train.build import build

    parts = build(config)
    target = jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        parts.model.abstract(),
        parts.model.shardings(parts.mesh),
    )
    params, found = checkpoint.restore_params(workdir, target, step)
    data = pipeline.prepare(config.data, config.data_dir, lambda line: None)
    if data.fingerprint != saved["data"]["fingerprint"]:
        raise UserError(f"{config.data_dir} holds other text than the run's ({data.fingerprint}): name the right directory with --data_dir")
    result = make_evaluator(config, parts.model, parts.mesh, data)(params, "final")
    return {"run": saved["id"], "step": found, "data": data.fingerprint, "likelihood": config.likelihood, **result}


if __name__ == "__main__":
    run_cli(main)
