"""From a configuration to a trained run: where data, model, training and evaluation meet. Used by lm.run and by lm.study.worker."""

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any, Literal, Optional, Union

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from lm import config as config_lib
from lm import describe as description
from lm import distributed
from lm.data import pipeline
from lm.data.config import DataConfig
from lm.errors import UserError
from lm.evals.loss import LossEvaluator
from lm.evals.pairs import PairEvaluator
from lm.model import architectures
from lm.model.execution import Execution, Pipeline
from lm.model.flops import ledger
from lm.model.kernels.choose import choose, platform_of
from lm.model.mask import Mask
from lm.rows import RowShape
from lm.sharding import RULES, SEQUENCE_RULES, make_mesh
from lm.train import loop, record
from lm.train.config import ExecutionConfig, RunConfig
from lm.train.feed import local_rows
from lm.train.mesh_fit import check_mesh_fit
from lm.train.progress import Log
from lm.train.state import Program, compile_program, row_of, shape_of, total_steps

Evaluator = Union[LossEvaluator, PairEvaluator]


@dataclasses.dataclass(frozen=True, eq=False)
class Parts:
    """A configuration brought to life, with nothing allocated and nothing compiled: what `build` returns.

    `program()` compiles initialisation and step, `evaluator(data)` the held-out loss; runs of one shape (and data set) share them within a
    process. `attention` names the kernel that serves the training mask, or those of an encoder-decoder's three masks.
    """

    config: RunConfig
    model: architectures.Model
    mesh: Mesh
    attention: str

    def program(self) -> Program:
        return _program(shape_of(self.config), tuple(self.mesh.devices.flat))

    @property
    def fused(self) -> bool:
        """Whether attention never holds its [T, S] weights."""
        return "xla" not in self.attention

    def evaluator(self, data: pipeline.Data) -> Evaluator:
        shape = dataclasses.replace(shape_of(self.config), evaluation=self.config.evaluation)
        return _evaluator(shape, data, tuple(self.mesh.devices.flat))


def build(config: RunConfig, devices: Optional[list] = None) -> Parts:
    """Model and mesh of a configuration on these devices (default: all). UserError if they do not fit each other."""
    row = row_of(config)
    _check_rows(config, row)
    how = config.execution
    mesh = make_mesh(config.mesh, devices)
    check_mesh_fit(config, mesh)
    model = architectures.build(config.model, execution_of(how, mesh))
    return Parts(config, model, mesh, _attention(config, row, mesh))


def execution_of(how: ExecutionConfig, mesh: Mesh) -> Execution:
    """How a run's model is carried out on its mesh."""
    return Execution(
        remat=how.remat,
        unroll=how.unroll,
        attention=how.attention,
        context=how.context_attention,
        platform=platform_of(mesh.devices.flat[0]),
        rules=SEQUENCE_RULES if how.sequence_parallel else RULES,
        pipeline=pipeline_of(how, mesh.shape["stage"]),
    )


def pipeline_of(how: ExecutionConfig, stages: int) -> Optional[Pipeline]:
    """The schedule of a run's pipeline, if it has stages."""
    return Pipeline(stages, how.pipeline_repeats, how.pipeline_micro_batches or stages) if stages > 1 else None


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
    distributed.first(lambda: prepare_data(config.data, config.data_dir, say) and None)  # the others open what the first has made
    data = prepare_data(config.data, config.data_dir, say)
    rows, model = local_rows(parts.mesh, config.batch_size), (config.model.architecture, config.model.vocab_size)
    stream = pipeline.TrainStream(data, config.data, config.batch_size, config.seed, rows, *model)
    stream.require(total_steps(config))
    facts = facts_of(config, data)
    if before and before["id"] == facts.id and before["status"] in ("completed", "diverged"):
        say(f"{workdir} holds this run, {before['status']}: nothing to do")
        return before
    if table:
        say(description.describe(config, parts.model, parts.mesh, fused=parts.fused) + "\n")
    program, evaluate = parts.program(), parts.evaluator(data)
    return loop.train(
        config, workdir, stream, program, facts=facts, evaluate=evaluate, attention_backend=parts.attention, log=log, profile=profile
    )


def describe(config: RunConfig) -> str:
    """The text of `--dry_run`."""
    parts = build(config)
    return description.describe(config, parts.model, parts.mesh, fused=parts.fused)


def facts_of(config: RunConfig, data: pipeline.Data) -> record.Facts:
    """What the record says of a run beside what training measures."""
    counts, info, schedule = ledger(config.model, row_of(config)), data.info, pipeline_of(config.execution, config.mesh.stage)
    splits = {f"{split}_{unit}": info[unit][split] for split in ("train", "validation") for unit in ("documents", "tokens", "bytes")}
    return record.Facts(
        id=config_lib.identity(config, fingerprint=data.fingerprint),
        data={"fingerprint": data.fingerprint, **splits, "tokenizer": info["tokenizer"], "rows_per_epoch": info["rows_per_epoch"]},
        parameters=dict(counts.params),
        flops_per_token=dict(counts.flops_per_token),
        bytes_per_token=data.bytes_per_token,
        pipeline_bubble=None if schedule is None else schedule.bubble,
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
def _evaluator(shape: RunConfig, data: pipeline.Data, devices: tuple) -> Evaluator:
    parts = build(shape, list(devices))
    return make_evaluator(parts, data)


def make_evaluator(parts: Parts, data: pipeline.Data) -> Evaluator:
    """Held-out likelihood of a run, of the class that its record names."""
    kind: Any = {"text": LossEvaluator, "pairs": PairEvaluator}[parts.config.likelihood]
    return kind(parts.config, parts.model, parts.mesh, data)


def _check_workdir(config: RunConfig, workdir: Path) -> Optional[record.Record]:
    """The record that is there already. Before anything costly: UserError if nothing can be written, or if it is another run's."""
    probe = workdir / ".writable"

    def write() -> None:
        with record.writing(workdir):
            workdir.mkdir(parents=True, exist_ok=True)
            probe.touch()

    def look() -> None:
        if not probe.exists():
            raise UserError(f"process {distributed.index()} does not see {workdir}: choose a directory that all hosts share")
        if mine != firsts:
            changes = "; ".join(config_lib.differences(firsts, mine)[:4])
            raise UserError(f"process {distributed.index()} has another configuration than process 0 ({changes}): give all the same")

    distributed.first(write)
    mine = {**config_lib.experiment_part(config), "execution": config_lib.execution_part(config)}
    mine = json.loads(json.dumps(mine))
    firsts = distributed.first(lambda: mine)
    distributed.each(look)
    return distributed.first(lambda: _own_record(config, workdir, probe))


def _own_record(config: RunConfig, workdir: Path, probe: Path) -> Optional[record.Record]:
    probe.unlink()
    before = record.read(workdir)
    if before is not None:
        now: dict[str, Any] = {"experiment": config_lib.experiment_part(config), "execution": config_lib.execution_part(config)}
        record.check_same(before, now | {"data": before["data"]}, workdir)
    return before


def _check_rows(config: RunConfig, row: RowShape) -> None:
    """UserError for rows that the model cannot read, or of which it cannot predict what the objective asks for."""
    model, longest = config.model, max(row.length, row.encoder_length)
    name, length = config.data.objective.name, f"data.sequence_length={config.data.sequence_length}"
    if model.positions == "learned" and longest > model.max_length:
        of = "" if longest == config.data.sequence_length else f", whose rows under objective {name} have {longest} places,"
        raise UserError(f"{length}{of} is beyond model.max_length={model.max_length}: raise the latter")
    if not model.vocabulary_head:
        raise UserError(f"objective {name} predicts tokens and the model has no head for them: set model.vocabulary_head=true")
    heads = [output for output in model.outputs if output.per == "sequence"]
    if row.sequences and (len(heads) != 1 or heads[0].labels < 2):
        raise UserError(
            f"objective {name} with next_sentence needs one output per sequence, of 2 labels, and model.outputs has {len(heads)}:"
            " set model.outputs.0.name=next_sentence, or data.objective.next_sentence=false"
        )
    if "token_types" in row.fields and model.token_types == 1:
        raise UserError(f"objective {name} has 2 types of token and model.token_types=1: set it to 2, or to 0 to tell none apart")


def _attention(config: RunConfig, row: RowShape, mesh: Mesh) -> str:
    """The kernels that serve the masks of training, by stack where these are several; UserError when the one asked for cannot."""
    model, platform = config.model, platform_of(mesh.devices.flat[0])
    own: Literal["full", "causal"] = "full" if model.architecture == "encoder" else "causal"

    def of_length(length: int) -> Any:  # shapes stand in for arrays: the choice reads nothing else
        return jax.ShapeDtypeStruct((1, length), jnp.int32)

    how, ways = config.execution, mesh.shape["context"]
    options: dict[str, Any] = {"head_dim": model.attention.head_dim, "ways": ways, "ring": how.context_attention == "ring"}

    def chosen(mask: Mask, relative: bool) -> str:
        kernel = choose(how.attention, mask, jnp.dtype(config.compute_dtype), platform, relative=relative, **options)
        return f"{kernel} ring" if ways > 1 and options["ring"] else kernel

    def within(length: int, kind: Literal["full", "causal"], segmented: bool, prefix: Any = None) -> Mask:
        x = of_length(length)
        segments = x if segmented else None
        return Mask(x, x, segments, segments, prefix, x, x, kind=kind, window=model.attention.window, permuted=ways > 1)

    places, relative = of_length(row.length), model.positions == "relative"
    prefix = places if model.architecture == "prefix_lm" else None
    decoder = chosen(within(row.length, own, model.attention.documents == "isolated", prefix), relative)
    if model.architecture != "encoder_decoder":
        return decoder
    memory = of_length(row.encoder_length)
    encoder = chosen(within(row.encoder_length, "full", True), relative)
    cross = chosen(Mask(places, memory, places, memory, kind="full"), False)
    return f"decoder {decoder}, encoder {encoder}, cross {cross}"
