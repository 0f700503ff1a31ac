"""Answers `python -m lm.scaling predict`: forecasts from a saved fit, at given inputs and at the optimum of a budget."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Optional, Union

import numpy as np

from lm.errors import UserError
from lm.scaling import prediction, saved
from lm.scaling.fits.frontier import Cost
from lm.scaling.fitted_law import FittedLaw
from lm.scaling.intervals.discrepancy import Discrepancy, discrepancy
from lm.scaling.planning import optimum
from lm.scaling.prediction import Predicted, RunForecast
from lm.scaling.results import Caution, Refusal, result
from lm.scaling.runs import Runs
from lm.scaling.saved import SavedFit
from lm.scaling.table_analysis import Allocation

_SAME = 0.01  # share by which a given C may differ from the one that N and D give: people round


@result
class Target:
    """The compute-optimal run of a budget: N*, D* with the intervals of the parameters, and the forecast of a run there."""

    allocation: Allocation
    run: RunForecast


@result
class Prediction:
    """Forecasts from a saved fit, in the order of the questions. `noise` says where the parts of an interval come from."""

    fit: str
    source: str
    rows: int
    law: str
    equation: str
    values: dict[str, float]
    level: float
    method: str
    noise: str
    runs: tuple[RunForecast, ...]
    targets: tuple[Target, ...]
    rows_of: str  # the table whose rows were asked for, and their names
    row_names: tuple[str, ...]
    table: tuple[RunForecast, ...]
    cautions: tuple[Caution, ...]


@dataclasses.dataclass(frozen=True)
class Forecaster:
    """A saved fit that is asked for forecasts, at fixed values of some inputs.

    `fitted` is the law as it was fitted, `pinned` the law at the `fixed` inputs, `own` the law's own error.
    """

    saved: SavedFit
    fitted: FittedLaw
    pinned: FittedLaw
    fixed: Mapping[str, float]
    own: Union[Discrepancy, Refusal]
    cost: Cost
    seed: int = 0

    def predict(self, inputs: Mapping[str, Sequence[float]]) -> Predicted:
        """Returns forecasts with their draws, of runs with inputs by name [n]."""
        count = max(len(column) for column in inputs.values())
        columns = {name: np.full(count, value) for name, value in self.fixed.items()}
        columns |= {name: np.asarray(column, float) for name, column in inputs.items()}
        if isinstance(self.own, Discrepancy):
            return prediction.predict_with_error(
                self.fitted, self.cost, columns, self.own, self.saved.noise, self.saved.noise_unit, self.seed
            )
        return prediction.predict(self.fitted, self.cost, columns, self.saved.noise, seed=self.seed)

    def forecasts(self, inputs: Mapping[str, Sequence[float]], level: float) -> tuple[RunForecast, ...]:
        return prediction.forecasts(self.judged, self.predict(inputs), level)

    @property
    def judged(self) -> FittedLaw:
        """The law whose refusal of intervals counts: with its own error inferred, intervals do not hang on the bootstrap."""
        return dataclasses.replace(self.fitted, refused=None) if isinstance(self.own, Discrepancy) else self.fitted

    def target(self, flops: float, level: float) -> Target:
        """Returns the optimum of a budget and the forecast of a run there."""
        optimum.splits(self.pinned.law)
        leveled = dataclasses.replace(self.pinned, level=level)
        at = optimum.best(leveled, self.cost, flops, self.saved.sampled["C"], self.seed)
        values = [answer.value for answer in (at.n, at.d) if not isinstance(answer, Refusal)]
        (run,) = self.forecasts({"N": values[:1], "D": values[1:], "C": [flops]}, level)
        return Target(at, run)

    def inputs_of(self, runs: Runs) -> dict[str, list[float]]:
        """Returns the inputs of a table by name; UserError where the law reads one that it lacks."""
        if missing := [name for name in self.fitted.law.inputs if name not in runs.inputs]:
            name = missing[0]
            raise UserError(f"the law reads {', '.join(self.fitted.law.inputs)}: name the column of {name} with --input={name}=COLUMN")
        return {name: column.tolist() for name, column in runs.inputs.items()}

    @property
    def noise(self) -> str:
        """The words for where the parts of an interval come from."""
        if isinstance(self.own, Discrepancy):
            return "noise, parameters and the law's own error by its residuals"
        measured = prediction.Noise(self.saved.noise).measured
        return f"noise by {'the seeds of the table' if measured else 'the residuals'}, parameters by {self.saved.method}"


def forecaster(made: SavedFit, fixed: Mapping[str, float], seed: int = 0) -> Forecaster:
    """Returns the forecaster of a saved fit; its law is read at the fixed inputs."""
    fitted = saved.restored(made)
    return Forecaster(made, fitted, optimum.pinned(fitted, fixed), fixed, discrepancy(fitted.fit), saved.cost_of(made), seed)


def predicted(
    path: str, made: SavedFit, at: Sequence[Mapping[str, float]], targets: Sequence[float], fixed: Mapping[str, float],
    level: float, seed: int, planned: Optional[Runs] = None,
) -> Prediction:  # fmt: skip
    """Answers the questions of `predict`: runs with given inputs, budgets, and the rows of a table, whose losses are not read."""
    asked = forecaster(made, fixed, seed)
    names = asked.fitted.law.inputs
    for inputs in at:
        if extra := [name for name in inputs if name not in (*names, "N", "D", "C", "M")]:
            raise UserError(f"--at {extra[0]}={inputs[extra[0]]:g}: the law reads {', '.join(names)}")
        _check_agreement(inputs, asked.cost)
    return Prediction(
        fit=path, source=made.source, rows=made.rows, law=made.law, equation=getattr(asked.pinned.law, "equation", made.equation),
        values=dict(zip(made.names, made.values, strict=True)), level=level, method=made.method, noise=asked.noise,
        runs=tuple(asked.forecasts({name: [value] for name, value in inputs.items()}, level)[0] for inputs in at),
        targets=tuple(asked.target(flops, level) for flops in targets),
        rows_of="" if planned is None else planned.source, row_names=() if planned is None else planned.run,
        table=() if planned is None else asked.forecasts(asked.inputs_of(planned), level),
        cautions=made.cautions,
    )  # fmt: skip


def _check_agreement(inputs: Mapping[str, float], cost: Cost) -> None:
    """Raises a UserError where a C or M that is given beside N and D contradicts them."""
    if not {"N", "D"} <= set(inputs):
        return
    known = prediction.completed({"N": np.array([inputs["N"]]), "D": np.array([inputs["D"]])}, cost)
    for name in ("C", "M"):
        follows = float(known[name][0])
        if name in inputs and abs(inputs[name] / follows - 1) > _SAME:
            raise UserError(f"--at {name}={inputs[name]:g}: from N and D follows {name} = {follows:.4g}; leave one of the three out")
