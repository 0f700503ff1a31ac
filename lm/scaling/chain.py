"""A metric of downstream tasks by way of a loss: one law from N and D to the loss, a second from the loss to the metric.

Both laws are fitted to the same runs, and one bootstrap draws both: a resample picks the same runs for the two fits, so that an error of
the first and its echo in the second stay together (Gadre et al. 2024; Bhagia et al. 2024).
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Union

import numpy as np

from lm.errors import UserError
from lm.scaling.fits import frontier, solver
from lm.scaling.fits.objectives import HuberLog, Objective
from lm.scaling.fitted_law import FittedLaw, fit_runs
from lm.scaling.intervals import resampling
from lm.scaling.laws.law import Law
from lm.scaling.prediction import completed
from lm.scaling.results import Answer, Refusal, result
from lm.scaling.runs import Runs

METRIC = "metric"  # the input of the table that holds the metric


@result
class ChainedAt:
    """A run of these inputs: its loss by the first law, and its metric by the second from that loss."""

    inputs: dict[str, float]
    loss: Answer
    metric: Answer


@result
class Chain:
    """Two laws fitted to the same runs, and what they predict. `errors` are the mean absolute relative errors of each on its rows."""

    equations: tuple[str, str]
    values: tuple[dict[str, Answer], dict[str, Answer]]
    errors: tuple[float, float]
    rows: int
    method: str
    level: float
    at: tuple[ChainedAt, ...]


def second_stage(runs: Runs) -> Runs:
    """Returns the table of the second law: the metric as what is fitted, the loss as the input L."""
    inputs = {name: column for name, column in runs.inputs.items() if name != METRIC} | {"L": runs.loss}
    return dataclasses.replace(runs, inputs=inputs, loss=runs.inputs[METRIC])


def chain(
    runs: Runs,
    laws: tuple[Law, Law],
    at: Sequence[Mapping[str, float]],
    objective: Objective = HuberLog(),
    draws: int = 1000,
    level: float = 0.8,
    seed: int = 0,
) -> Union[Chain, Refusal]:
    """Fits both laws and predicts runs.

    Args:
      runs: their loss is what lies between; `inputs["metric"]` is the metric.
      laws: from the inputs of a run to the loss, and from L to the metric.
      at: inputs of the runs to predict.
    """
    runs = dataclasses.replace(runs, seed=None)  # merged seeds would have one loss and one metric by other means
    how = resampling.ByRun() if len(set(runs.run)) < len(runs) else resampling.Rows()
    tables = (runs, second_stage(runs))
    fitted = [fit_runs(table, law, objective, how, draws, level, seed) for table, law in zip(tables, laws, strict=True)]
    for made in fitted:
        if isinstance(made, Refusal):
            return made
    first, second = (made for made in fitted if isinstance(made, FittedLaw))
    cost = frontier.cost_of(runs)
    rows = tuple(_at(first, second, completed({name: np.array([value]) for name, value in inputs.items()}, cost)) for inputs in at)
    return Chain(
        (_equation(laws[0]), _equation(laws[1])), (first.parameters(), second.parameters()), (_error(first), _error(second)), len(runs),
        first.method, level, rows,
    )  # fmt: skip


def _equation(law: Law) -> str:
    return str(getattr(law, "equation", "") or type(law).__name__)


def _error(made: FittedLaw) -> float:
    return float(np.mean(np.abs(np.expm1(-made.fit.residuals))))


def _at(first: FittedLaw, second: FittedLaw, inputs: Mapping[str, np.ndarray]) -> ChainedAt:
    """Predicts one run: draw i of the metric is the second law of draw i at the loss of draw i."""
    if missing := [name for name in first.law.inputs if name not in inputs]:
        raise UserError(f"--at lacks {' and '.join(missing)}: name every input of the law, such as {missing[0]}=1e9")
    x = np.stack([inputs[name] for name in first.law.inputs], axis=1)
    loss = solver.loss(first.law, first.stacked, x)[:, 0]
    metric = np.array([solver.loss(second.law, values, np.array([[one]]))[0] for values, one in zip(second.stacked, loss, strict=True)])
    known = {name: float(column[0]) for name, column in inputs.items()}
    second = dataclasses.replace(second, refused=second.refused or first.refused)  # the metric's interval hangs on that of the loss
    if not np.isfinite(metric[0]):
        low, high = second.sampled["L"]
        beyond = f"at a loss of {loss[0]:.3g} the second law has no metric; the runs have losses of {low:.3g} to {high:.3g}"
        return ChainedAt(known, first.answer_of(loss), Refusal("extrapolation", f"{beyond}: ask for a run nearer to them"))
    return ChainedAt(known, first.answer_of(loss), second.answer_of(metric))
