"""A study and its cells as frozen, hashed values (imports no jax).

A `Study` is what `experiments/NAME/study.py` returns: a question, what all runs share, and the grid. `cells` unrolls it into
`Cell`s, one training run each. Nothing here touches the disk.
"""

import dataclasses
import hashlib
import json
from typing import Any, Literal, Optional, Protocol

from lm import config as config_lib
from lm.errors import UserError
from lm.model.config import ModelConfig
from lm.model.flops import ledger
from lm.scaling.settings import AnalysisSettings
from lm.train.config import RunConfig

Role = Literal["grid", "seed", "bracket"]


class ShapeRule(Protocol):
    def model(self, base: ModelConfig, dial: int, /) -> ModelConfig: ...


class RateRule(Protocol):
    def peak(self, params: float, tokens: float, batch: int, /) -> float: ...


class BatchRule(Protocol):
    def batch_size(self, tokens: float, sequence_length: int, /) -> int: ...


@dataclasses.dataclass(frozen=True)
class Budget:
    """One profile: C in FLOPs (matmul + causal attention, whole run) and the dial's values along it.

    `repeats` are the sizes run with the study's extra seeds; `brackets` those run at other learning rates. The cells of
    `stage` 1 start only when the forecast that they test has been written.
    """

    flops: float
    sizes: tuple[int, ...]
    repeats: tuple[int, ...] = ()
    brackets: tuple[int, ...] = ()
    stage: int = 0


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


@dataclasses.dataclass(frozen=True)
class Study:
    """A question about how loss falls, and the grid of runs that answers it.

    `base` is what all runs share; the rules fill in shape, batch, D and learning rate. `seeds` are those of the repeats beside
    `base.seed`; `bracket_factors` multiply the learning-rate rule's value. `analysis` says how the laws are
    fitted. `compare_with` names studies on the same data whose bits per byte are set beside this one's.
    """

    name: str
    question: str
    base: RunConfig
    shape: ShapeRule
    learning_rate: RateRule
    batch: BatchRule
    budgets: tuple[Budget, ...]
    seeds: tuple[int, ...] = (1, 2)
    bracket_factors: tuple[float, ...] = (0.5, 2.0)
    limits: Limits = Limits()
    speed: Speed = Speed()
    analysis: AnalysisSettings = AnalysisSettings()
    compare_with: tuple[str, ...] = ()

    def definition(self) -> dict[str, Any]:
        """Everything that decides which runs there are and how they are judged, as JSON values; `speed` and execution are left out."""
        fields = {f.name: _plain(getattr(self, f.name)) for f in dataclasses.fields(self) if f.name not in ("speed", "base")}
        return json.loads(json.dumps(fields | {"base": config_lib.experiment_part(self.base)}))


@dataclasses.dataclass(frozen=True)
class Cell:
    """One run of a study: why it is there, and its whole configuration. `warmup_steps` follows from it."""

    role: Role
    stage: int
    budget: float
    dial: int
    learning_rate_factor: float
    config: RunConfig

    def id(self, fingerprint: str) -> str:
        """12 hex characters: what the run is, and on which data; why it is run is no part of it."""
        return config_lib.identity(self.config, fingerprint=fingerprint)

    @property
    def tokens_per_step(self) -> int:
        return self.config.batch_size * self.config.data.sequence_length

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
        return hashlib.sha256(json.dumps(compiled, sort_keys=True).encode()).hexdigest()[:12]


def cells(study: Study) -> tuple[Cell, ...]:
    """Unrolls the grid: sizes, then repeats with other seeds, then brackets of the learning rate, budget by budget.

    D solves C(matmul + causal attention, whole run) = FLOPs per token x D, rounded down to whole steps. A budget without a
    whole step gives a cell of D = 0, which `plan` refuses.
    """
    unrolled: list[Cell] = []
    for budget in study.budgets:
        for name, chosen in (("repeats", budget.repeats), ("brackets", budget.brackets)):
            if strangers := sorted(set(chosen) - set(budget.sizes)):
                raise UserError(f"study {study.name}: {name} of budget {budget.flops:.2g} name sizes that it lacks: {strangers}")
        unrolled += [_cell(study, budget, dial, "grid") for dial in budget.sizes]
        unrolled += [_cell(study, budget, dial, "seed", seed=seed) for dial in budget.repeats for seed in study.seeds]
        unrolled += [_cell(study, budget, dial, "bracket", factor=f) for dial in budget.brackets for f in study.bracket_factors]
    return tuple(unrolled)


def _cell(study: Study, budget: Budget, dial: int, role: Role, *, seed: Optional[int] = None, factor: float = 1.0) -> Cell:
    length = study.base.data.sequence_length
    model = study.shape.model(study.base.model, dial)
    count = ledger(model, length)
    wanted = budget.flops / count.flops_per_token["matmul_causal"]
    batch = study.batch.batch_size(wanted, length)
    tokens = int(wanted // (batch * length)) * batch * length
    params = count.params["matmul"]
    rate = study.learning_rate.peak(params, max(tokens, 1), batch) * factor
    optim = dataclasses.replace(study.base.optim, learning_rate=float(f"{rate:.6g}"), warmup_tokens=params)
    seed = study.base.seed if seed is None else seed
    config = dataclasses.replace(study.base, model=model, optim=optim, train_tokens=tokens, batch_size=batch, seed=seed)
    return Cell(role, budget.stage, budget.flops, dial, factor, config)


def _plain(value: Any) -> Any:
    """A rule, budget or limit as JSON values; a rule carries its class's name."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"rule": type(value).__name__} | fields
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return value
