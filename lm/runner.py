"""Trains a configuration: data, model, training and evaluation meet here. Used by lm.run and by lm.study.worker.

The gradient is inside the program that `train_run` compiles (lm.train.program, whose step is lm.train.step). lm.train.loop calls that
program.
"""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Optional

from lm import config as config_lib
from lm import distributed
from lm.data import pipeline, round_trip
from lm.data.config import DataConfig
from lm.data.stream import TrainStream
from lm.describe import describe
from lm.errors import UserError
from lm.evals.evaluator import make_evaluator
from lm.init_from import find, require_tokenizer, unopened
from lm.model.flops import ledger
from lm.train import loop, made_by, record
from lm.train.build import BuiltRun, build, pipeline_of, prove_kernels
from lm.train.checks import check_config, check_workdir
from lm.train.config import FallBack, RunConfig
from lm.train.derived import row_of, shape_of, total_steps
from lm.train.feed import local_rows
from lm.train.program import compile_program
from lm.train.progress import Log
from lm.train.room import require_room

# Within a process runs of one shape share the compiled program, those on one data set its evaluator, and the data set is opened once.
shared_program = functools.lru_cache(maxsize=8)(compile_program)
shared_evaluator = functools.lru_cache(maxsize=8)(make_evaluator)


def train_run(
    config: RunConfig,
    workdir: Path,
    *,
    init_from: Optional[str] = None,
    profile: Optional[tuple[int, int]] = None,
    log: Optional[Log] = None,
    table: bool = False,
    fall_back: Optional[FallBack] = None,
    planned: Optional[str] = None,
    retry: bool = False,
) -> record.Record:
    """Trains a run in `workdir`, or continues it.

    Args:
      config: the run's configuration.
      workdir: the directory of its record, metrics and checkpoints. A completed or diverged run there is returned as it is.
      init_from: the work directory of the run whose weights it begins with (default: random or imported ones).
      profile: the steps [a, b) of which a profiler trace is written.
      log: the function that prints a line (default: silent).
      table: whether to print the parameters before the first step.
      planned: the id that the run has to have, which differs where the data are others (default: any).
      fall_back: what to do where the newest checkpoint is not sound (lm.train.checkpoint.restore); None refuses.
      retry: whether to train a diverged run on from its newest checkpoint.

    Returns:
      The run's record, which is also in run.json.

    Raises:
      UserError: a work directory that holds another run or cannot be written, data that do not fit the model, or more steps than the
        data allow. lm.train.loop.train says what interruptions raise.
    """
    workdir, say = Path(workdir), log or _silent
    check_config(config)
    before = check_workdir(config, workdir)
    found = distributed.first(lambda: find(init_from, config, workdir))
    source = record.Source(found) if found else None
    parts = _built(config)
    distributed.first(lambda: prepare_data(config.data, config.data_dir, say) and None)  # the others open what the first has made
    data = prepare_data(config.data, config.data_dir, say)
    rows, model = local_rows(parts.mesh, config.batch_size), (config.model.architecture, config.model.vocab_size)
    stream = TrainStream(data, config.data, config.batch_size, config.seed, rows, *model)
    stream.require(total_steps(config))
    require_tokenizer(source, data.tokenizer)
    if unsaid := unopened(config, record.origin(before) if before else source.recorded if source else {}):
        say(unsaid)
    first_weights = record.first_weights(before, source)
    facts = facts_of(config, data, first_weights)
    if planned not in (None, facts.id):
        raise UserError(
            f"the data have changed since the study was planned: cell {planned} would become run {facts.id}; restore the data, or plan the"
            " study in another directory with --dir"
        )
    if before and before["id"] == facts.id and before["status"] in ("completed", "diverged"):
        if before["status"] == "completed" or not retry:
            say(f"{workdir} holds this run, {before['status']}: nothing to do{again(before)}")
            return before
        record.write(workdir, record.reopened(before))
    if table:
        say(describe(parts, source, first_weights) + "\n")
    if before and before["status"] != "imported" and config.likelihood == "text":
        round_trip.require(data.info, f"{made_by.maker(before)} began {workdir}: go on with it, or for another run {round_trip.LOSSLESS}")
    # The evaluator comes first: it refuses tokens that lose text.
    evaluate = shared_evaluator(shape_of(config, evaluation=config.evaluation), parts.model, parts.mesh, data)
    program = shared_program(shape_of(config), parts.model, parts.mesh)
    return loop.train(
        config, workdir, stream, program, facts=facts, source=source, evaluate=evaluate, attention_backend=parts.attention, log=log,
        profile=profile, fall_back=fall_back,
    )  # fmt: skip


def _built(config: RunConfig) -> BuiltRun:
    """Builds a run that has room on this machine's devices and whose kernels compute rightly there."""
    parts = build(config)
    require_room(parts)
    prove_kernels(parts)
    return parts


def again(before: record.Record) -> str:
    """Returns what a user is told of a run that has ended: nothing more of one that completed."""
    return "; --retry trains it on from its newest checkpoint" if before["status"] == "diverged" else ""


def train_cell(config: RunConfig, workdir: Path) -> record.Record:
    """Trains a cell of a study in cells/ID/epoch-N. Beside damaged checkpoints it goes on from an older one, or from its start."""
    return train_run(config, workdir, fall_back="nothing", planned=Path(workdir).parent.name)


def facts_of(config: RunConfig, data: pipeline.Data, first_weights: Mapping[str, str]) -> record.Facts:
    """Returns the facts of a run's record that are known before it trains: its id, its data, and its counts of parameters and FLOPs."""
    counts, info, schedule = ledger(config.model, row_of(config)), data.info, pipeline_of(config.execution, config.mesh.stage)
    splits = {f"{split}_{unit}": info[unit][split] for split in ("train", "validation") for unit in ("documents", "tokens", "bytes")}
    return record.Facts(
        id=config_lib.identity(config, fingerprint=data.fingerprint, **first_weights),
        data=made_by.data_now(data.fingerprint, info) | splits,
        parameters=dict(counts.params),
        flops_per_token=dict(counts.flops_per_token),
        bytes_per_token=data.bytes_per_token,
        pipeline_bubble=None if schedule is None else schedule.bubble,
    )


def _silent(line: str) -> None:
    del line


@functools.lru_cache(maxsize=4)
def prepare_data(config: DataConfig, data_dir: str, log: Log) -> pipeline.Data:
    """Prepares the data set, or opens it where it is prepared already."""
    return pipeline.prepare(config, data_dir, log)
