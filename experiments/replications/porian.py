"""Porian et al. 2024: from Kaplan's exponent to Chinchilla's in four corrections, on two data sets.

Approach 2 with Akima's interpolation of log loss in log N and ordinary least squares of the interior minima. The paper's headline numbers
regress the medians of 1,000 noisy copies, weighted by the inverse variance of log N*; they are printed beside.
"""

import pathlib
from typing import Union

import numpy as np

from experiments.replications import tables
from experiments.replications.published_numbers import Check, Replication, within
from lm.scaling import runs, table_analysis
from lm.scaling.approaches.isoflop import Isoflop
from lm.scaling.results import Refusal, value_of
from lm.scaling.runs import Columns
from lm.scaling.table_analysis import TableSettings

NAME = "porian"
DATA = {"rw": "RefinedWeb", "owt2": "OpenWebText2"}
STEPS = {  # configuration without its data set, in the order of the paper
    "base/long/kaplan/kaplan/train": "Kaplan's setting",
    "base/long/kaplan/standard/val": "+ head counted, validation loss",
    "base/short/kaplan/standard/val": "+ short warm-up",
    "base/short/chinchilla/standard/val": "+ cosine as long as the run",
    "tuned/short/const/standard/val": "tuned, constant rate",
    "tuned/long/const/kaplan/train": "tuned, Kaplan's counting and warm-up",
    "base/long/kaplan/attention/train": "attention counted, long warm-up",
    "base/short/kaplan/attention/train": "attention counted, short warm-up",
    "base/short/chinchilla/attention/train": "attention counted, cosine as long as the run",
    "tuned/short/const/attention/train": "attention counted, tuned, constant rate",
}
TOLERANCE = 0.006


def minima(points: dict[str, np.ndarray], config: str) -> Union[Isoflop, Refusal]:
    """Runs approach 2 on one configuration."""
    rows = points["config"] == config
    frame = {"N": points["n"][rows], "D": points["tokens"][rows], "C": points["flops"][rows], "loss": points["loss"][rows]}
    table = runs.from_frame(frame, Columns(flops="C", budget="C"), source=config)
    return table_analysis.fit_profiles(table, TableSettings(curve="akima", regression="plain", draws=10))


def exponent(made: Union[Isoflop, Refusal]) -> Union[float, Refusal]:
    """Returns a of N* ~ C^a."""
    if isinstance(made, Refusal):
        return made
    return made.a if isinstance(made.a, Refusal) else made.a.value


def tokens_per_parameter(made: Union[Isoflop, Refusal]) -> np.ndarray:
    """Returns D* / N* = C / 6 N*^2 at each budget, N* on the regression line."""
    if isinstance(made, Refusal):
        return np.array([np.nan])
    pairs = [(budget.flops, value_of(budget.n_star)) for budget in made.budgets]
    log_c, log_n = np.log(np.array([(flops, n) for flops, n in pairs if n is not None])).T
    line = np.polynomial.polynomial.polyval(log_c, np.polynomial.polynomial.polyfit(log_c, log_n, 1))
    return np.exp(log_c - 2 * line) / 6


def run(data: pathlib.Path) -> Replication:
    points, fits = (tables.read(data / "porian" / f"{name}.csv") for name in ("isoflop_points", "published_fits"))
    checks: list[Check] = []
    for short, long in DATA.items():
        for step, what in STEPS.items():
            config = f"{short}/{step}"
            rows = np.flatnonzero(fits["config"] == config)
            if len(rows):
                target, weighted = (float(fits[column][rows[0]]) for column in ("a_basic", "a"))
                checks.append(within(f"{long}, {what}: a", exponent(minima(points, config)), target, TOLERANCE, weighted))
    ratio = tokens_per_parameter(minima(points, "rw/tuned/short/const/standard/val"))
    checks.append(within("RefinedWeb, tuned: least D* / N*", ratio.min(), 14, 1, 14))
    checks.append(within("RefinedWeb, tuned: largest D* / N*", ratio.max(), 16, 1, 16))
    notes = (
        "published: regression of noisy medians weighted by the inverse variance; target: the repository's plain regression of the minima",
        "the interpolator is a choice of the analyst: a local parabola in the place of Akima's curve moves a by up to .03",
    )
    return Replication(NAME, checks=tuple(checks), notes=notes)
