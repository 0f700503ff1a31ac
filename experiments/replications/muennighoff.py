"""Muennighoff et al. 2023: loss when tokens repeat. The published decay of repeated tokens is a local minimum of a flat objective.

The first stage's parameters are held as published; the two decays R_D and R_N are fitted to 182 runs (Huber on log loss, delta 1e-3).
"""

import pathlib
from typing import Union

import numpy as np

from experiments.replications import tables
from experiments.replications.published_numbers import Check, Replication, at_most, within
from lm.scaling.fits import fit, solver
from lm.scaling.fits.objectives import HuberLog
from lm.scaling.fitted_law import points_of
from lm.scaling.laws.loss_laws import DataConstrained
from lm.scaling.results import Refusal
from lm.scaling.runs import Columns, Runs, from_frame

NAME = "muennighoff"
_EXPONENT = 0.3526596
LAW = DataConstrained(
    fixed=(("E", float(np.exp(0.6254804))), ("A", float(np.exp(6.255414))), ("B", float(np.exp(7.3049974))), ("alpha", _EXPONENT),
          ("beta", _EXPONENT)),
)  # fmt: skip
PUBLISHED = np.array([15.387756, 5.309743])  # R_D, R_N
VALUES = {(6.34e9, 242e9, 25e9): 2.2256440890, (8.67e9, 178e9, 25e9): 2.2269634075}  # N, D, U: loss
FLAT = (12.0, 300.0)  # R_D between which the profile rises by less than FLAT_RISE
FLAT_RISE = 0.0035  # .3% as printed


def value_checks() -> list[Check]:
    """Checks the law at the paper's two allocations for 100 times the compute of 25B unique tokens."""
    loss = solver.loss(LAW, PUBLISHED, np.array(list(VALUES)))
    return [
        within(f"L({n / 1e9:g}B parameters, {d / 1e9:g}B tokens of {u / 1e9:g}B)", one, target, 1e-9, target)
        for ((n, d, u), target), one in zip(VALUES.items(), loss, strict=True)
    ]


def table(data: pathlib.Path) -> Runs:
    """Reads the 182 runs that the authors fit."""
    column = tables.read(data / "datablations" / "c4_runs_fit182.csv")
    frame = {"N": column["params"], "D": column["tokens"], "U": column["unique_tokens"], "loss": column["val_loss"]}
    return from_frame(frame | {"run": column["run"]}, Columns(run="run", seed="run", inputs={"U": "U"}), source="datablations")


def profile(points: fit.Points, made: fit.Fit, decays: np.ndarray) -> np.ndarray:
    """Returns the least objective with R_D constrained to each value; R_N starts from four places."""
    starts = np.array([[r_d, r_n] for r_d in decays for r_n in (made.natural["R_N"], 1.0, 5.0, 20.0)])
    lanes = LAW.coordinates(starts, points.centre)
    free = np.array([name != "R_D" for name in LAW.names])
    ends = solver.minimise(LAW, HuberLog(), points.design(LAW), points.log_loss, points.weights, lanes, free=free)
    return ends.value.reshape(len(decays), -1).min(axis=1)


def fit_checks(runs: Runs) -> list[Check]:
    """Checks the published point, the global minimum, and how flat the objective is between them."""
    points = points_of(runs, LAW)
    x = np.exp(points.log_x)
    made: Union[fit.Fit, Refusal] = fit.fit(LAW, points, HuberLog())
    predicted = solver.loss(LAW, PUBLISHED, x)
    found = [
        within("sum of Huber costs at the published decays", tables.huber_sum(predicted, runs.loss), 0.0158259, 1e-7, 0.0158259),
        within("R2 there", determined(predicted, runs.loss), 0.7722, 1e-4, 0.7722),
    ]
    if isinstance(made, Refusal):
        return [*found, within("the global minimum", made, 0.01580466, 1e-8, 0.0158259)]
    rise = profile(points, made, np.geomspace(*FLAT, 13)) / made.value - 1
    return [
        *found,
        within("least sum of Huber costs", made.value, 0.01580466, 1e-8, 0.0158259),
        within("R_D at the least", made.natural["R_D"], 95.4, 0.5, PUBLISHED[0]),
        within("R_N at the least", made.natural["R_N"], 1.706, 0.005, PUBLISHED[1]),
        within("R2 at the least", determined(np.exp(made.log_loss(points.log_x)), runs.loss), 0.791, 0.001, 0.7722),
        at_most(f"largest rise of the profile over R_D from {FLAT[0]:g} to {FLAT[1]:g}", rise.max(), FLAT_RISE),
    ]


def determined(predicted: np.ndarray, loss: np.ndarray) -> float:
    """Returns the share of the variance of the loss that the law explains."""
    return 1 - float(np.sum((loss - predicted) ** 2) / np.sum((loss - loss.mean()) ** 2))


def run(data: pathlib.Path) -> Replication:
    notes = (
        "the published decays are a local minimum; the target is the global one",
        f"the profile over R_D is flat within .3% from {FLAT[0]:g} to {FLAT[1]:g}: these runs do not determine R_D",
        "the first stage's 54 digitised points are not public as a table; its parameters are held as published",
    )
    return Replication(NAME, checks=(*value_checks(), *fit_checks(table(data))), notes=notes)
