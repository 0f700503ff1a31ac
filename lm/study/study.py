"""A study is a grid of runs that scaling laws are fitted to: a frozen, hashed value (imports no jax). Nothing here touches the disk."""

import dataclasses
import json
from typing import Any, Literal, Optional, Protocol

from lm import config as config_lib
from lm.data.objectives.shape import row_shape
from lm.errors import UserError
from lm.model.config import ModelConfig
from lm.model.flops import ledger
from lm.scaling.settings import AnalysisSettings
from lm.study.cell import Cell, Limits, Speed, plain
from lm.study.execution import ExecutionRule, carried_out
from lm.train.config import RunConfig

Role = Literal["grid", "seed", "bracket"]


class ShapeRule(Protocol):
    """A rule that gives a model its shape. The dial is the one number, such as the width, that grows from size to size."""

    def model(self, base: ModelConfig, dial: int, /) -> ModelConfig: ...


class RateRule(Protocol):
    """A rule that gives the peak learning rate of N matmul parameters, D tokens and a batch."""

    def peak(self, params: float, tokens: float, batch: int, /) -> float: ...


class BatchRule(Protocol):
    """A rule that gives the number of sequences of a batch for D tokens and N matmul parameters."""

    def batch_size(self, tokens: float, sequence_length: int, params: float, /) -> int: ...


@dataclasses.dataclass(frozen=True)
class Budget:
    """One IsoFLOP profile: C in FLOPs (matmul + causal attention, whole run) and the sizes along it, as values of the dial.

    `repeats` are the sizes that are run again with the study's extra seeds, `brackets` those that are run again at other learning rates.
    Cells of `stage` 1 start only when the forecast that they test has been written.
    """

    flops: float
    sizes: tuple[int, ...]
    repeats: tuple[int, ...] = ()
    brackets: tuple[int, ...] = ()
    stage: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class GridCell(Cell):
    """One run of a grid, with its budget, its size on the dial, and its role.

    The role is "grid" (a size of a budget), "seed" (a repeat with another seed) or "bracket" (another learning rate).
    """

    role: Role
    budget: float
    dial: int
    learning_rate_factor: float

    @property
    def place(self) -> dict[str, Any]:
        return {"role": self.role, "budget": self.budget, "dial": self.dial, "learning_rate_factor": self.learning_rate_factor}

    @property
    def columns(self) -> dict[str, str]:
        role = {"grid": "grid", "seed": f"seed {self.config.seed}", "bracket": f"lr x{self.learning_rate_factor:g}"}[self.role]
        return {"role": role, "budget": f"{self.budget:.3g}"}


@dataclasses.dataclass(frozen=True)
class Study:
    """A question about how loss falls, and the grid of runs that answers it.

    `base` is the configuration that all runs share; the rules (lm.study.rules) fill in shape, batch, D and learning rate, and `execution`
    the mesh and how each run is carried out (default: as in `base`), which changes no run's id. `seeds` are those of the repeats, beside
    `base.seed`; `bracket_factors` multiply the learning rate of the rule. `analysis` says how the laws are fitted. `compare_with` names
    studies on the same text whose bits per byte the report sets beside this one's.
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
    execution: Optional[ExecutionRule] = None

    def definition(self) -> dict[str, Any]:
        """Returns everything that decides which runs there are and how they are judged, as JSON values."""
        fields = {f.name: plain(getattr(self, f.name)) for f in dataclasses.fields(self) if f.name not in ("speed", "base", "execution")}
        return json.loads(json.dumps(fields | {"base": config_lib.experiment_part(self.base)}))

    def cells(self) -> tuple[GridCell, ...]:
        """Lists the runs, budget by budget: the sizes, then repeats with other seeds, then brackets of the learning rate.

        D is the budget over the FLOPs per token (matmul + causal attention), rounded down to whole steps. A budget that does not pay for
        one step gives a cell of D = 0, which `plan` refuses.
        """
        unrolled: list[GridCell] = []
        for budget in self.budgets:
            for name, chosen in (("repeats", budget.repeats), ("brackets", budget.brackets)):
                if strangers := sorted(set(chosen) - set(budget.sizes)):
                    raise UserError(f"study {self.name}: {name} of budget {budget.flops:.2g} hold {strangers}, which its sizes lack")
            unrolled += [_cell(self, budget, dial, "grid") for dial in budget.sizes]
            unrolled += [_cell(self, budget, dial, "seed", seed=seed) for dial in budget.repeats for seed in self.seeds]
            unrolled += [_cell(self, budget, dial, "bracket", factor=f) for dial in budget.brackets for f in self.bracket_factors]
        return tuple(unrolled)


def _cell(study: Study, budget: Budget, dial: int, role: Role, *, seed: Optional[int] = None, factor: float = 1.0) -> GridCell:
    model = study.shape.model(study.base.model, dial)
    row = row_shape(study.base.data, model.architecture)
    count = ledger(model, row)
    wanted = budget.flops / count.flops_per_token["matmul_causal"]
    params = count.params["matmul"]
    batch = study.batch.batch_size(wanted, row.text, params)
    tokens = int(wanted // (batch * row.text)) * batch * row.text
    rate = study.learning_rate.peak(params, max(tokens, 1), batch) * factor
    optim = dataclasses.replace(study.base.optim, learning_rate=float(f"{rate:.6g}"), warmup_tokens=params)
    seed = study.base.seed if seed is None else seed
    config = dataclasses.replace(study.base, model=model, optim=optim, train_tokens=tokens, batch_size=batch, seed=seed)
    config = carried_out(config, study.execution)
    return GridCell(config=config, stage=budget.stage, role=role, budget=budget.flops, dial=dial, learning_rate_factor=factor)
