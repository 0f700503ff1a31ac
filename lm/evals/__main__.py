"""`python -m lm.evals loss RUN [--text=FILE,...] [--step=N] [--data_dir=DIR] [--json]`: evaluates a checkpoint of a run."""

import dataclasses
import functools
import glob
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

from lm import config as config_lib
from lm.data import info, round_trip
from lm.data.config import Component
from lm.errors import AGAIN, Parser, UserError, run_cli
from lm.evals.words import in_words
from lm.fields import count
from lm.mesh import MeshConfig
from lm.train import made_by, record, sealed
from lm.train.config import ExecutionConfig, RunConfig

FREE = (
    "data.objective",
    "data.packing",
    "data.sequence_length",
    "data.components.0.",
    "evaluation.",
    "compute_dtype",
)  # what --config may set


def parser() -> Parser:
    top = Parser(prog="python -m lm.evals", description="Evaluates a checkpoint of a run.")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    loss = commands.add_parser(
        "loss",
        help="likelihood of held-out or of named text",
        description="Prints nats per UTF-8 byte of whole documents, or nats per target token where the objective makes pairs."
        " --config.KEY=VALUE changes how it is measured: evaluation.*, data.objective, data.sequence_length, compute_dtype.",
    )
    loss.add_argument("run", type=Path, help="the run's work directory; that of an imported model too")
    what = "files, folders or patterns to evaluate on, all of their text (default: the held-out text)"
    loss.add_argument("--text", action="append", default=[], metavar="FILE,...", help=what)
    loss.add_argument("--step", type=int, default=None, help="step of the checkpoint (default: the newest)")
    loss.add_argument("--data_dir", default=None, help="directory of the prepared data (default: that of the run's record)")
    loss.add_argument(
        "--bytes", type=count, default=None, help="bytes of text to evaluate on (default: all of --text, else as at the end of the run)"
    )
    loss.add_argument("--json", action="store_true", help="print one JSON object")
    return top


def main(argv: Optional[list[str]] = None) -> int:
    args, overrides = parser().parse_overrides(argv, "--config.")
    text = [path for paths in args.text for path in paths.split(",") if path]
    absent = next((path for path in text if not glob.has_magic(path) and not Path(path).exists()), None)
    if absent is not None:
        raise UserError(f"--text={absent}: no such file or folder")
    result = evaluate_loss(args.run, step=args.step, data_dir=args.data_dir, documents_bytes=args.bytes, text=text, overrides=overrides)
    if args.json:
        print(json.dumps(result, indent=1))
        return 0
    print(f"{args.run}, step {result['step']:,}: {in_words(result, digits=6)}")
    return 0


def evaluate_loss(
    workdir: Path,
    *,
    step: Optional[int] = None,
    data_dir: Optional[str] = None,
    documents_bytes: Optional[int] = None,
    text: Sequence[str] = (),
    overrides: Sequence[str] = (),
) -> dict[str, Any]:
    """Evaluates one of a run's checkpoints, with any number of devices: on its held-out text, as at its end, or on named text.

    Args:
      workdir: the run's work directory.
      step: the step of the checkpoint (default: the newest).
      data_dir: the directory of the prepared data (default: that of the run's record).
      documents_bytes: bytes of text (default: as at the end of the run, or all of the named text).
      text: files, folders or patterns, all of whose text is evaluated.
      overrides: settings "path=value" of how the loss is measured (FREE).

    Raises:
      UserError: run, checkpoint and data do not fit together, or the files hold no text.
    """
    saved = record.read(workdir)
    if saved is None:
        raise UserError(f"{workdir} holds no run (no {record.FILE}): name a work directory that lm.run, a study or lm.hf import wrote")
    original = config_lib.from_parts(RunConfig, saved["experiment"], saved["execution"])
    config = _configured(original, text, overrides, documents_bytes, data_dir)
    sealed.require(workdir, step)
    if not text:
        _require_data(workdir, config, saved)
    named = bool(text) or config.data.components != original.data.components
    return {"run": saved["id"], **_measured(workdir, config, original, saved, step, documents_bytes, named)}


def _configured(
    original: RunConfig, text: Sequence[str], overrides: Sequence[str], documents_bytes: Optional[int], data_dir: Optional[str]
) -> RunConfig:
    """Returns the configuration of the evaluation. The options of the run's mesh are not those of this one."""
    wrong = next((override for override in overrides if not override.startswith(FREE)), None)
    if wrong is not None:
        raise UserError(f"--config.{wrong} would change the run: an evaluation takes {', '.join(name.rstrip('.') for name in FREE)}")
    config = dataclasses.replace(original, mesh=MeshConfig(), execution=ExecutionConfig(), data_dir=data_dir or original.data_dir)
    if text:
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, components=(Component("text_files", tuple(text)),)))
        config = dataclasses.replace(config, evaluation=dataclasses.replace(config.evaluation, longest_document=None))
    config = config_lib.apply_overrides(config, list(overrides))
    evaluation = dataclasses.replace(config.evaluation, documents_bytes=documents_bytes or config.evaluation.documents_bytes)
    return dataclasses.replace(config, evaluation=evaluation)


def _require_data(workdir: Path, config: RunConfig, saved: record.Record) -> None:
    """Raises UserError unless the run's held-out text is there."""
    if saved["data"]["fingerprint"] is None:
        raise UserError(f"{workdir} is an imported model, which has no held-out text: name a text with --text=FILE")
    if not info.is_known(config.data, config.data_dir):
        raise UserError(
            f"{config.data_dir} lacks the data that the run was evaluated on, which {made_by.maker(saved)} prepared: name the right"
            " directory with --data_dir, or a text with --text=FILE"
        )


def _measured(
    workdir: Path, config: RunConfig, original: RunConfig, saved: record.Record, step: Optional[int], documents_bytes: Optional[int],
    named: bool,
) -> dict[str, Any]:  # fmt: skip
    import jax

    from lm.data import pipeline
    from lm.evals.evaluator import make_evaluator
    from lm.train import checkpoint
    from lm.train.build import build
    from lm.train.run_tokenizer import run_tokenizer

    parts = build(config)
    target = jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        parts.model.abstract(),
        parts.model.shardings(parts.mesh),
    )
    with tempfile.TemporaryDirectory() as folder:  # of the tokens of named text
        if named:
            data = _named(config, original, saved, folder)
            whole = dataclasses.replace(config.evaluation, documents_bytes=documents_bytes or int(data.validation.byte_counts.sum()))
            config = dataclasses.replace(config, evaluation=whole)
        else:
            data = pipeline.prepare(config.data, config.data_dir, lambda line: None)
            if data.fingerprint != saved["data"]["fingerprint"]:
                run_tokenizer(original, config.data_dir, saved)  # raises where no text can be measured
                now = made_by.data_now(data.fingerprint, data.info)
                raise UserError(f"{workdir}, on its own held-out text: {made_by.other_data(saved, now)}; --text=FILE names other text")
        _require_kept(workdir, config, saved, data)
        params, found = checkpoint.restore_params(workdir, target, step)
        result = make_evaluator(config, parts.model, parts.mesh, data)(params, "final")
    text = {"text": list(config.data.components[0].paths)} if named else {}
    lost = {"lost_bytes": max(data.info["lost_bytes"].values())}
    return {"step": found, "data": data.fingerprint, **text, "likelihood": config.likelihood, **result, **lost}


def _require_kept(workdir: Path, config: RunConfig, saved: record.Record, data: Any) -> None:
    """Raises UserError where the run's tokens lose so much of the text that its likelihood per byte would mislead."""
    if config.likelihood != "text":
        return
    unmeasured = "lost_bytes" not in saved["data"] and (saved.get("final") or {}).get("nats_per_byte") is not None
    theirs = f"so are the {saved['final']['nats_per_byte']:.4f} in {workdir / record.FILE}; " if unmeasured else ""
    found = round_trip.problem(data.info, f"{theirs}name text that it keeps with --text=FILE, or for another run {round_trip.LOSSLESS}")
    if found:
        raise UserError(f"{workdir}: {found}")


def _named(config: RunConfig, original: RunConfig, saved: record.Record, folder: str) -> Any:
    """Returns the data set of a named text, in the tokens of the run."""
    from lm.data import pipeline
    from lm.evals import named_text
    from lm.train.run_tokenizer import run_tokenizer

    text = named_text.read(config.data.components[0])
    tokenizer = run_tokenizer(original, config.data_dir, saved)
    tokenizer = config.data.objective.tokenizer(getattr(tokenizer, "base", tokenizer))
    return pipeline.of_split(config.data, text, "named", tokenizer, folder, functools.partial(print, file=sys.stderr))


if __name__ == "__main__":
    run_cli(main, AGAIN)
