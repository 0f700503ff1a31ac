"""A plan lists every run of a study with its counts, expected time and memory, and the reasons not to run it (imports no jax)."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any, Optional

from lm.data import own_ids, round_trip
from lm.errors import UserError, counted
from lm.model.flops import ledger
from lm.optim.schedules import warmup_steps
from lm.study import naming
from lm.study.cell import Cell, Plannable
from lm.study.study import GridCell
from lm.train import checks
from lm.train.memory import device_bytes

PROCESS_BYTES = 450e6  # memory of a worker before it holds a model: interpreter, jax, the compiler


@dataclasses.dataclass(frozen=True)
class Planned:
    """One cell with its counts and estimates.

    `params` and `flops` (of the whole run) are by convention; `seconds` on one core and `memory` in bytes, of one device of the run's mesh
    and its process, are estimates.
    `marks` name where the shape jumps against the next smaller size; `refusals` are the reasons not to run the cell.
    """

    cell: Cell
    id: str
    params: dict[str, int]
    flops: dict[str, float]
    warmup_steps: int
    seconds: float
    memory: float
    marks: tuple[str, ...] = ()
    refusals: tuple[str, ...] = ()

    @property
    def shape(self) -> dict[str, int]:
        model = self.cell.config.model
        attention = {"num_heads": model.attention.num_heads, "head_dim": model.attention.head_dim}
        return {"d_model": model.d_model, "num_layers": model.num_layers, **attention, "d_ff": model.mlp.d_ff}

    def to_json(self) -> dict[str, Any]:
        """Returns the cell's entry in study.json, from which `lm.study.rows` reads its Row until the run begins."""
        cell, config = self.cell, self.cell.config
        return {
            "id": self.id,
            **cell.place,
            "stage": cell.stage,
            "seed": config.seed,
            "learning_rate": config.optim.learning_rate,
            "shape_key": cell.shape_key,
            "shape": self.shape,
            "params": self.params,
            "flops": self.flops,
            "tokens": config.train_tokens,
            "steps": cell.steps,
            "batch_size": config.batch_size,
            "sequence_length": config.data.sequence_length,
            "devices": cell.devices,
            "warmup_steps": self.warmup_steps,
            "seconds": round(self.seconds, 2),
        }


@dataclasses.dataclass(frozen=True)
class Plan:
    """All cells of a study on one data set. `problems` are reasons not to run the study as a whole."""

    study: Plannable
    fingerprint: str
    data: dict[str, Any]
    planned: tuple[Planned, ...]
    problems: tuple[str, ...] = ()

    @property
    def refusals(self) -> list[str]:
        """Every reason not to run this plan, a line each."""
        return [*self.problems, *(f"{label(p)}: {reason}" for p in self.planned for reason in p.refusals)]

    def seconds(self, workers: int) -> float:
        """Estimates the wall time of the whole plan, with each shape compiled once."""
        shapes = len({p.cell.shape_key for p in self.planned})
        return (sum(p.seconds for p in self.planned) + shapes * self.study.speed.per_shape) / workers


def label(planned: Planned) -> str:
    """Returns a cell's id and place for a message."""
    return f"cell {planned.id} ({naming.words(planned.to_json())})"


def make(study: Plannable, data: dict[str, Any]) -> Plan:
    """Plans a study on prepared data.

    Args:
        study: a grid or a comparison
        data: the record of the prepared data, from `lm.data.info.info`

    Raises: UserError when two cells are the same run.
    """
    fingerprint = data["fingerprint"]
    planned = []
    previous: Optional[GridCell] = None
    for cell in study.cells():
        grid = cell if isinstance(cell, GridCell) and cell.role == "grid" else None
        planned.append(_planned(study, cell, fingerprint, data, _marks(previous, grid)))
        previous = grid or previous
    seen: dict[str, Planned] = {}
    for p in planned:
        if p.id in seen:
            raise UserError(f"study {study.name}: {label(p)} is the same run as {label(seen[p.id])}; drop one of the two")
        seen[p.id] = p
    return Plan(study, fingerprint, data, tuple(planned), tuple(_problems(study, data)))


def assumed_data() -> dict[str, Any]:
    """Returns what stands for the record of data that are not prepared: of unknown size, and with whatever tokenizer the models fit."""
    return {"fingerprint": "", "tokens_per_epoch": math.inf, "components": [], "tokenizer": {"vocab_size": 0}, "lost_bytes": None}


def _planned(study: Plannable, cell: Cell, fingerprint: str, data: dict[str, Any], marks: tuple[str, ...]) -> Planned:
    config = cell.config
    count = ledger(config.model, cell.row)
    flops = {name: per_token * config.train_tokens for name, per_token in count.flops_per_token.items()}
    seconds = flops["matmul_causal"] / study.speed.flops_per_second + config.train_tokens * study.speed.per_token + study.speed.per_cell
    optim = config.optim
    warmup = warmup_steps(optim.warmup_fraction, optim.warmup_tokens, cell.steps, cell.tokens_per_step)
    memory = PROCESS_BYTES + device_bytes(config)
    refusals = tuple(_refusals(study, cell, warmup, data))
    return Planned(cell, cell.id(fingerprint), dict(count.params), flops, warmup, seconds, memory, marks, refusals)


def _marks(previous: Optional[GridCell], cell: Optional[GridCell]) -> tuple[str, ...]:
    """Names the ratios of the shape that jump from one size of a budget to the next: such jumps make kinks in a profile.

    A depth that stays, or that is proportional to the width, is no jump.
    """
    if previous is None or cell is None or previous.budget != cell.budget:
        return ()
    old, new = previous.config.model, cell.config.model
    marks = []
    if old.attention.head_dim != new.attention.head_dim:
        marks.append(f"head size {old.attention.head_dim}->{new.attention.head_dim}")
    if old.num_layers != new.num_layers and old.d_model * new.num_layers != new.d_model * old.num_layers:
        marks.append(f"depth {old.num_layers}->{new.num_layers}")
    heads = (old.attention.num_heads, new.attention.num_heads)
    if heads[0] != heads[1] and old.d_model * heads[1] != new.d_model * heads[0]:
        marks.append(f"heads {heads[0]}->{heads[1]}")
    if old.mlp.d_ff * new.d_model != new.mlp.d_ff * old.d_model:
        marks.append("feed-forward ratio")
    return tuple(marks)


def _refusals(study: Plannable, cell: Cell, warmup: int, data: dict[str, Any]) -> Iterator[str]:
    """Yields the reasons not to run a cell."""
    config = cell.config
    if cell.steps < 1:
        yield f"the budget does not pay for one step of {cell.tokens_per_step} tokens; raise the budget, or lower the batch or the size"
        return
    try:
        checks.check_config(config)
    except UserError as error:  # which would end the study when a worker came to the cell
        yield str(error)
    if warmup >= cell.steps:
        yield (
            f"the learning-rate warm-up of {counted(warmup, 'step')} is as long as the run of "
            f"{cell.steps}; lower base.optim.warmup_fraction"
        )
    if cell.steps < study.limits.min_steps:
        factor = study.limits.min_steps / cell.steps
        yield (
            f"{counted(cell.steps, 'step')}, and limits.min_steps is {study.limits.min_steps}; "
            f"raise the budget about {factor:.2g} times, or lower"
            " the batch or the size"
        )
    available = data["tokens_per_epoch"]
    if config.train_tokens > available and not config.data.allow_epochs:
        yield (
            f"{counted(config.train_tokens, 'token')}, and the corpus has {available:,}; lower "
            "the budget, or set base.data.allow_epochs=True"
        )


def _problems(study: Plannable, data: dict[str, Any]) -> Iterator[str]:
    """Yields the reasons not to run the study as a whole."""
    for component in data["components"]:
        share = component["info"].get("verbatim_share", 0.0)
        if share > study.limits.max_duplicates:
            yield (
                f"{component['corpus']}: {share:.1%} of the long validation lines occur verbatim in the training text, more than "
                f"{study.limits.max_duplicates:.0%}, so the held-out loss would reward memorising; drop repeated lines, or raise "
                "limits.max_duplicates"
            )
    if any(cell.config.likelihood == "text" for cell in study.cells()) and round_trip.problem(data):
        yield round_trip.problem(data)
    ids = data["tokenizer"]["vocab_size"]
    for objective, vocab_size in dict.fromkeys((cell.config.data.objective, cell.config.model.vocab_size) for cell in study.cells()):
        special = objective.special_ids(own_ids.from_record(data["tokenizer"]))
        if ids + special > vocab_size:
            more = f", objective {objective.name} needs {special} more," if special else ""
            yield f"the tokenizer has {ids} ids{more} and base.model.vocab_size is {vocab_size}; raise the latter"
