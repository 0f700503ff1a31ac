"""What a study is, whatever it is for (imports no jax).

What `experiments/NAME/study.py` returns is a lm.study.study.Study, the grid that scaling laws are fitted to, or a
lm.study.comparison.Comparison, a list of configurations. Both are a `Plannable`: `cells` unrolls it into `Cell`s, one training run each.
Nothing here touches the disk.
"""

import dataclasses
import functools
import hashlib
import json
from typing import Any, Protocol

from lm import config as config_lib
from lm.data.objectives.shape import row_shape
from lm.rows import RowShape
from lm.train.config import RunConfig


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a cell must satisfy to mean anything; `plan` refuses what does not."""

    min_steps: int = 200
    max_duplicates: float = 0.03  # share of long validation lines that stand verbatim in train
    min_completed: float = 0.9  # share of the cells that must end well for the fits to be made


@dataclasses.dataclass(frozen=True)
class Speed:
    """The model of a run's time in seconds on one core: FLOPs / rate + D x per_token + per_cell; and per_shape once a shape.

    The defaults were measured on one core of a 2-core AMD EPYC (Zen 5) with models of width 16 to 96 on bytes; the part
    per token is what does not grow with width: norms, rotations, softmax, the vocabulary.
    """

    flops_per_second: float = 1.1e11
    per_token: float = 4.5e-6
    per_cell: float = 1.5
    per_shape: float = 4.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
    """One run of a study with its whole configuration; what kinds of study say of it beside that is in their own classes.

    The cells of `stage` 1 start only when the forecast that they test has been written.
    """

    config: RunConfig
    stage: int = 0

    @property
    def place(self) -> dict[str, Any]:
        """JSON values that say which run of the study this is: part of its entry in study.json, with a "role"."""
        raise NotImplementedError  # each kind of study has its own

    @property
    def columns(self) -> dict[str, str]:
        """The same for the first columns of the plan's table."""
        raise NotImplementedError  # likewise

    def id(self, fingerprint: str) -> str:
        """12 hex characters: what the run is, and on which data; why it is run is no part of it."""
        return config_lib.identity(self.config, fingerprint=fingerprint)

    @functools.cached_property
    def row(self) -> RowShape:
        return row_shape(self.config.data, self.config.model.architecture)

    @property
    def tokens_per_step(self) -> int:
        """Of text."""
        return self.config.batch_size * self.row.text

    @property
    def steps(self) -> int:
        return self.config.train_tokens // self.tokens_per_step

    @property
    def shape_key(self) -> str:
        """Runs with equal keys share one executable: all that is compiled in, without what is an argument of the step."""
        part = config_lib.experiment_part(self.config)
        optim = {k: v for k, v in part["optim"].items() if k not in ("learning_rate", "weight_decay", "warmup_fraction", "warmup_tokens")}
        compiled = {"model": part["model"], "optim": optim, "batch": self.config.batch_size, "z_loss": self.config.z_loss}
        compiled |= {"length": self.config.data.sequence_length, "dtype": self.config.compute_dtype}
        if self.row != RowShape(self.config.data.sequence_length):
            compiled["row"] = dataclasses.asdict(self.row)
        return hashlib.sha256(json.dumps(compiled, sort_keys=True).encode()).hexdigest()[:12]


class Plannable(Protocol):
    """What planning, training and showing a study need of it, whatever it is for."""

    @property
    def name(self) -> str: ...
    @property
    def question(self) -> str: ...
    @property
    def base(self) -> RunConfig:
        """Its data are those of all cells, but for the objective."""
        ...

    @property
    def limits(self) -> Limits: ...
    @property
    def speed(self) -> Speed: ...

    def cells(self) -> tuple[Cell, ...]: ...

    def definition(self) -> dict[str, Any]:
        """Everything that decides which runs there are and how they are judged, as JSON values."""
        ...


def plain(value: Any) -> Any:
    """A rule, budget or limit as JSON values; a rule carries its class's name."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"rule": type(value).__name__} | fields
    if isinstance(value, (tuple, list)):
        return [plain(item) for item in value]
    return value
