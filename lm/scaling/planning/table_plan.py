"""Answers the questions of `python -m lm.scaling plan` from one table: the law is fitted once and asked each of them."""

import dataclasses
from collections.abc import Mapping
from typing import Optional, Union

from lm.errors import UserError
from lm.scaling import diagnostics
from lm.scaling.approaches import parametric
from lm.scaling.fits import frontier
from lm.scaling.fitted_law import FittedLaw, fit_runs
from lm.scaling.planning.cells import NextCells, next_cells
from lm.scaling.planning.optimum import IsoLoss, Serving, best, cheapest, iso_loss, pinned, pinned_law, splits
from lm.scaling.prediction import caution_of, outside
from lm.scaling.results import Caution, Refusal, result
from lm.scaling.runs import Runs
from lm.scaling.table_analysis import Allocation, TableSettings


@dataclasses.dataclass(frozen=True)
class Questions:
    """The questions: compute to allocate, losses to reach while serving `inference_tokens`, losses of curves, FLOPs for further runs.

    `fixed` are values of inputs beside N and D, at which all of them are asked.
    """

    targets: tuple[float, ...] = ()
    reach: tuple[float, ...] = ()
    inference_tokens: float = 0.0
    iso_loss: tuple[float, ...] = ()
    extra_flops: Optional[float] = None
    fixed: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def check(self) -> None:
        """Raises a UserError where nothing is asked, or a number means nothing."""
        if not (self.targets or self.reach or self.iso_loss):
            raise UserError("nothing to plan: give --target=FLOPS, --reach=LOSS or --iso-loss=LOSS")
        if self.extra_flops is not None and not self.targets:
            raise UserError("--extra narrows N* at a compute: name it with --target=FLOPS")
        numbers = (*self.targets, *self.reach, *self.iso_loss, *(() if self.extra_flops is None else (self.extra_flops,)))
        if not all(0 < value < float("inf") for value in numbers):
            raise UserError("FLOPs and losses must be positive numbers, such as --target=1e21 --reach=2.5")
        if not 0 <= self.inference_tokens < float("inf"):
            raise UserError(f"--inference-tokens={self.inference_tokens:g}: give a number of tokens, such as 1e12, or 0")


@result
class TablePlan:
    """The answers, in the order of the questions; None where the question was not asked."""

    source: str
    count: int
    law: str
    equation: str
    values: dict[str, float]
    resampling: str
    allocations: tuple[Allocation, ...]
    servings: tuple[Union[Serving, Refusal], ...]
    curves: tuple[IsoLoss, ...]
    next_cells: Union[NextCells, Refusal, None]
    cautions: tuple[Caution, ...]


def plan_table(runs: Runs, settings: TableSettings, questions: Questions) -> Union[TablePlan, Refusal]:
    """Fits the law of the settings to the table and answers; a Refusal where the rows do not support the law."""
    questions.check()
    splits(pinned_law(settings.law, questions.fixed))
    found = _fitted(runs, settings)
    if isinstance(found, Refusal):
        return found
    every = {name: (float(column.min()), float(column.max())) for name, column in runs.inputs.items()}
    made = dataclasses.replace(pinned(found[0], questions.fixed), sampled=every)
    cautions = found[1] + _fixed_outside(questions.fixed, every)
    cost = frontier.cost_of(runs)
    sampled = (float(runs.c.min()), float(runs.c.max()))
    extra = questions.extra_flops
    return TablePlan(
        source=runs.source, count=len(runs), law=type(settings.law).__name__,
        equation=getattr(made.law, "equation", "") or type(made.law).__name__,
        values=made.fit.natural, resampling=made.method,
        allocations=tuple(best(made, cost, flops, sampled) for flops in questions.targets),
        servings=tuple(cheapest(made, cost, loss, questions.inference_tokens) for loss in questions.reach),
        curves=tuple(iso_loss(made, cost, loss) for loss in questions.iso_loss),
        next_cells=None if extra is None else next_cells(made, runs, cost, questions.targets[-1], extra), cautions=cautions,
    )  # fmt: skip


def _fitted(runs: Runs, settings: TableSettings) -> Union[tuple[FittedLaw, tuple[Caution, ...]], Refusal]:
    s, found = settings, diagnostics.before(runs, settings.law)
    if refused := _first_refusal(found):
        return refused
    made = fit_runs(runs, s.law, s.objective, s.resampling, s.draws, s.level, s.seed)
    if isinstance(made, Refusal):
        return made
    cells = runs.cells()
    a = parametric.path_exponents(made, cells)[0] if frontier.allocates(s.law) else None
    later = (*diagnostics.after(made, cells), *diagnostics.answers(made, cells, made.parameters(), a, {}))
    return _first_refusal(later) or (made, tuple(one for one in (*found, *later) if isinstance(one, Caution)))


def _first_refusal(found: tuple[diagnostics.Found, ...]) -> Optional[Refusal]:
    return next((one for one in found if isinstance(one, Refusal)), None)


def _fixed_outside(fixed: Mapping[str, float], sampled: Mapping[str, tuple[float, float]]) -> tuple[Caution, ...]:
    """Warns of fixed inputs that were not sampled."""
    beyond = outside(fixed, sampled)
    return (caution,) if (caution := caution_of(beyond)) else ()
