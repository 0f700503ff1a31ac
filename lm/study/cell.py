"""A cell is one training run of a study (imports no jax).

`get_study()` in `experiments/NAME/study.py` returns a study of one of two kinds: a `lm.study.study.Study`, the grid that scaling laws are
fitted to, or a `lm.study.comparison.Comparison`, a list of configurations. Both are `Plannable`: their method `cells` lists the runs.
Nothing here touches the disk.
"""

import dataclasses
import functools
import hashlib
import json
import math
from typing import Any, Protocol

from lm import config as config_lib
from lm.data.objectives.shape import row_shape
from lm.rows import RowShape
from lm.train.config import RunConfig


@dataclasses.dataclass(frozen=True)
class Limits:
    """Limits that a study's cells and data must keep; `plan` refuses a study that does not."""

    min_steps: int = 200  # optimizer steps that each run must have
    max_duplicates: float = 0.03  # largest share of long validation lines that occur verbatim in the training text
    min_completed: float = 0.9  # least share of the cells that must complete before anything is fitted


@dataclasses.dataclass(frozen=True)
class Speed:
    """Estimates a run's seconds on one core: FLOPs / flops_per_second + D x per_token + per_cell, and per_shape for each compiled shape.

    The defaults were measured on one core of a 2-core AMD EPYC (Zen 5) with models of width 16 to 96 on bytes. `per_token` stands for the
    work that does not grow with width: norms, rotary positions, softmax, the vocabulary.
    """

    flops_per_second: float = 1.1e11
    per_token: float = 4.5e-6
    per_cell: float = 1.5
    per_shape: float = 4.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
    """One run of a study, with its whole configuration. Each kind of study adds its own fields in a subclass.

    Cells of `stage` 1 start only when the forecast that they test has been written.
    """

    config: RunConfig
    stage: int = 0

    @property
    def place(self) -> dict[str, Any]:
        """The cell's place in its study as JSON values, with a "role": part of its entry in study.json."""
        raise NotImplementedError  # each kind of study has its own

    @property
    def columns(self) -> dict[str, str]:
        """The cell's place in its study as the first columns of the plan's table: name of the column -> text."""
        raise NotImplementedError  # likewise

    def id(self, fingerprint: str) -> str:
        """Returns the run's id: 12 hexadecimal digits that hash its configuration and the data's fingerprint, not its role in the study."""
        return config_lib.identity(self.config, fingerprint=fingerprint)

    @functools.cached_property
    def row(self) -> RowShape:
        """The shape of a row of training data: how many document tokens it consumes, and its places in the model."""
        return row_shape(self.config.data, self.config.model.architecture)

    @property
    def tokens_per_step(self) -> int:
        """Document tokens that one optimizer step consumes."""
        return self.config.batch_size * self.row.text

    @property
    def devices(self) -> int:
        """Number of devices that the run is planned for: those of its mesh, where an axis of size -1 counts 1."""
        return math.prod(max(size, 1) for size in dataclasses.asdict(self.config.mesh).values())

    @property
    def steps(self) -> int:
        """Optimizer steps of the run."""
        return self.config.train_tokens // self.tokens_per_step

    @functools.cached_property
    def shape_key(self) -> str:
        """Hash of everything that is compiled into the train step; runs with equal keys share one executable.

        Learning rate, weight decay, warm-up, horizon and seed are arguments of the step and are left out.
        """
        part = config_lib.experiment_part(self.config)
        optim = {k: v for k, v in part["optim"].items() if k not in ("learning_rate", "weight_decay", "warmup_fraction", "warmup_tokens")}
        compiled = {"model": part["model"], "optim": optim, "batch": self.config.batch_size, "z_loss": self.config.z_loss}
        compiled |= {"length": self.config.data.sequence_length, "dtype": self.config.compute_dtype}
        if self.row != RowShape(self.config.data.sequence_length):
            compiled["row"] = dataclasses.asdict(self.row)
        return hashlib.sha256(json.dumps(compiled, sort_keys=True).encode()).hexdigest()[:12]


class Plannable(Protocol):
    """A study of any kind, as planning, training and status see it."""

    @property
    def name(self) -> str: ...
    @property
    def question(self) -> str: ...
    @property
    def base(self) -> RunConfig:
        """A configuration whose data, but for the objective, are those of all cells."""
        ...

    @property
    def limits(self) -> Limits: ...
    @property
    def speed(self) -> Speed: ...

    def cells(self) -> tuple[Cell, ...]:
        """Lists the runs."""
        ...

    def definition(self) -> dict[str, Any]:
        """Returns everything that decides which runs there are and how they are judged, as JSON values."""
        ...


def plain(value: Any) -> Any:
    """Returns a rule, budget or limit as JSON values; a dataclass becomes an object with its class's name under "rule"."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"rule": type(value).__name__} | fields
    if isinstance(value, (tuple, list)):
        return [plain(item) for item in value]
    return value
