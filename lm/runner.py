"""From a configuration to a trained run: where data, model, training and evaluation meet. Used by lm.run and by lm.worker."""

import dataclasses
import functools
from pathlib import Path
from typing import Any, Optional

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from lm import config as config_lib
from lm import describe as description
from lm.data import pipeline
from lm.data.config import DataConfig
from lm.errors import UserError
from lm.evals.loss import LossEvaluator
from lm.model import architectures
from lm.model.attention import choose_backend
from lm.model.execution import Execution
from lm.model.flops import ledger
from lm.model.mask import Mask
from lm.sharding import make_mesh
from lm.train import loop, record
from lm.train.config import RunConfig
from lm.train.progress import Log
from lm.train.state import Program, compile_program, shape_of, total_steps


@dataclasses.dataclass(frozen=True, eq=False)
class Parts:
    """A configuration brought to life, with nothing allocated and nothing compiled: what `build` returns.

    `program()` compiles initialisation and step, `evaluator(data)` the held-out loss; runs of one shape (and data set) share them within a
    process. `attention` names the kernel that serves the training mask.
    """

    config: RunConfig
    model: architectures.Model
    mesh: Mesh
    attention: str

    def program(self) -> Program:
        return _program(shape_of(self.config), tuple(self.mesh.devices.flat))

    def evaluator(self, data: pipeline.Data) -> LossEvaluator:
        shape = dataclasses.replace(shape_of(self.config), evaluation=self.config.evaluation)
        return _evaluator(shape, data, tuple(self.mesh.devices.flat))


def build(config: RunConfig, devices: Optional[list] = None) -> Parts:
    """Model and mesh of a configuration on these devices (default: all). UserError if they do not fit each other."""
    if config.model.positions == "learned" and config.data.sequence_length > config.model.max_length:
        raise UserError(
            f"data.sequence_length={config.data.sequence_length} is beyond model.max_length={config.model.max_length}: raise the latter"
        )
    how = config.execution
    mesh = make_mesh(config.mesh, devices)
    model = architectures.build(config.model, Execution(remat=how.remat, unroll=how.unroll, attention=how.attention))
    model.shardings(mesh)  # refuses splits that do not divide
    return Parts(config, model, mesh, _attention(config, mesh))


def train_run(
    config: RunConfig, workdir: Path, *, profile: Optional[tuple[int, int]] = None, log: Optional[Log] = None, table: bool = False
) -> record.Record:
    """Trains a run in `workdir`, or continues it, and returns its record, which is also in run.json.

    A completed or diverged run is returned as it is. `log` None is silent; `table` prints the parameters before the first step.
    UserError for a work directory that holds another run or cannot be written, for data that does not fit the model, and for more steps
    than the data allows; see lm.train.loop.train for interruptions.
    """
    workdir, say = Path(workdir), log or _silent
    before = _check_workdir(config, workdir)
    parts = build(config)
    data = prepare_data(config.data, config.data_dir, say)
    data.require_vocabulary(config.model.vocab_size)
    stream = pipeline.TrainStream(data, config.data, config.batch_size, config.seed, jax.process_index(), jax.process_count())
    stream.require(total_steps(config))
    facts = facts_of(config, data)
    if before and before["id"] == facts.id and before["status"] in ("completed", "diverged"):
        say(f"{workdir} holds this run, {before['status']}: nothing to do")
        return before
    if table:
        say(description.describe(config, parts.model, parts.mesh, fused=parts.attention == "cudnn") + "\n")
    program, evaluate = parts.program(), parts.evaluator(data)
    return loop.train(
        config, workdir, stream, program, facts=facts, evaluate=evaluate, attention_backend=parts.attention, log=log, profile=profile
    )


def describe(config: RunConfig) -> str:
    """The text of `--dry_run`."""
    parts = build(config)
    return description.describe(config, parts.model, parts.mesh, fused=parts.attention == "cudnn")


def facts_of(config: RunConfig, data: pipeline.Data) -> record.Facts:
    """What the record says of a run beside what training measures."""
    counts, info = ledger(config.model, config.data.sequence_length), data.info
    splits = {f"{split}_{unit}": info[unit][split] for split in ("train", "validation") for unit in ("documents", "tokens", "bytes")}
    return record.Facts(
        id=config_lib.identity(config, fingerprint=data.fingerprint),
        data={"fingerprint": data.fingerprint, **splits, "tokenizer": info["tokenizer"], "rows_per_epoch": info["rows_per_epoch"]},
        parameters=dict(counts.params),
        flops_per_token=dict(counts.flops_per_token),
        bytes_per_token=data.bytes_per_token,
    )


def _silent(line: str) -> None:
    del line


@functools.lru_cache(maxsize=4)
def prepare_data(config: DataConfig, data_dir: str, log: Log) -> pipeline.Data:
    """The prepared data set; runs of one process that read the same one open it once."""
    return pipeline.prepare(config, data_dir, log)


@functools.lru_cache(maxsize=8)
def _program(shape: RunConfig, devices: tuple) -> Program:
    parts = build(shape, list(devices))
    return compile_program(shape, parts.model, parts.mesh)


@functools.lru_cache(maxsize=8)
def _evaluator(shape: RunConfig, data: pipeline.Data, devices: tuple) -> LossEvaluator:
    parts = build(shape, list(devices))
    return LossEvaluator(shape, parts.model, parts.mesh, data)


def _check_workdir(config: RunConfig, workdir: Path) -> Optional[record.Record]:
    """The record that is there already. Before anything costly: UserError if nothing can be written, or if it is another run's."""
    with record.writing(workdir):
        workdir.mkdir(parents=True, exist_ok=True)
        probe = workdir / ".writable"
        probe.touch()
        probe.unlink()
    before = record.read(workdir)
    if before is not None:
        now: dict[str, Any] = {"experiment": config_lib.experiment_part(config), "execution": config_lib.execution_part(config)}
        record.check_same(before, now | {"data": before["data"]}, workdir)
    return before


def _attention(config: RunConfig, mesh: Mesh) -> str:
    """The kernel that serves the training mask; UserError when the one asked for cannot."""
    positions = jax.ShapeDtypeStruct((1, config.data.sequence_length), jnp.int32)
    segments = positions if config.model.attention.documents == "isolated" else None
    # Shapes stand in for arrays: the choice reads nothing else.
    mask = Mask(positions, positions, segments, segments, window=config.model.attention.window)  # type: ignore[arg-type]
    return choose_backend(config.execution.attention, mask, jnp.dtype(config.compute_dtype), mesh.devices.flat[0].platform)
