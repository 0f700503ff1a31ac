"""Tao et al. 2024, scaling laws with vocabulary: a law of parameters outside and inside the vocabulary, and of data (approach 3)."""

import pathlib
from typing import Union

import numpy as np

from experiments.replications import tables
from experiments.replications.published_numbers import Check, Replication, at_most, within
from lm.scaling.fits import fit, solver
from lm.scaling.fits.objectives import HuberLog
from lm.scaling.laws.further_laws import Vocabulary
from lm.scaling.laws.points import Points
from lm.scaling.results import Refusal

NAME = "tao"
LEAST_FLOPS = 2.18e17  # rows below are left out, as published
UNITS = {"A1": (1e6, "alpha"), "A2": (1e6, "alpha2"), "B": (1e9, "alpha")}  # the published coefficients count in millions and billions
PUBLISHED = {"E": 5.533, "A1": 1.831, "A2": 0.196, "B": 2.124, "alpha": 0.447, "alpha2": 0.671}
TOLERANCE = {"E": 0.005, "A1": 0.005, "A2": 0.006, "B": 0.005, "alpha": 0.002, "alpha2": 0.01}
TRUE_UNITS = 1.059  # alpha2 at the optimum where characters are turned into tokens by the vocabulary's own size


def tokens_per_character(vocabulary: np.ndarray) -> np.ndarray:
    """Returns the tokens of a character under a vocabulary of this size, as published."""
    log_v = np.log(np.minimum(vocabulary, 200_000))
    return 0.00639222 * log_v**2 - 0.15811069 * log_v + 1.20470122


def points(data: pathlib.Path, thousands: bool = True) -> Points:
    """Reads the rows. `thousands` gives the vocabulary in thousands to `tokens_per_character`, as the published code does."""
    column = tables.read(data / "scaling_with_vocab" / "exp_data.csv")
    kept = column["FLOPs"] >= LEAST_FLOPS
    size, width, characters, n, loss = (
        column[name][kept] for name in ("vocab_size", "embed_dim", "num_characters", "Non_vocab_parameters", "Lossu")
    )
    d = characters * tokens_per_character(size / 1e3 if thousands else size)
    return Points(np.log(np.stack([n, size * width, d], axis=1)), loss, np.ones(len(loss)))


def own_units(values: dict[str, float]) -> np.ndarray:
    """Returns published parameters as those of plain counts, in the law's order."""
    law = Vocabulary()
    plain = values | {name: values[name] * unit ** values[exponent] for name, (unit, exponent) in UNITS.items()}
    return np.array([plain[name] for name in law.names])


def published_units(values: dict[str, float]) -> dict[str, float]:
    """Inverts `own_units`."""
    return values | {name: values[name] / unit ** values[exponent] for name, (unit, exponent) in UNITS.items()}


def mean_cost(values: np.ndarray, at: Points) -> float:
    """Returns the mean Huber cost of a residual of L_u at parameters of the law."""
    predicted = solver.loss(Vocabulary(), values, np.exp(at.log_x))
    return tables.huber_sum(predicted, np.exp(at.log_loss)) / len(at.log_loss)


def fitted(at: Points) -> Union[fit.Fit, Refusal]:
    return fit.fit(Vocabulary(), at, HuberLog())


def run(data: pathlib.Path) -> Replication:
    as_published, by_tokens = points(data), points(data, thousands=False)
    made, other = fitted(as_published), fitted(by_tokens)
    theirs = mean_cost(own_units(PUBLISHED), as_published)
    ours: dict[str, float] = {} if isinstance(made, Refusal) else published_units(made.natural)
    checks: list[Check] = [
        within(name, made if isinstance(made, Refusal) else ours[name], value, TOLERANCE[name], value) for name, value in PUBLISHED.items()
    ]
    least = made if isinstance(made, Refusal) else made.value / len(as_published.log_loss)
    checks.append(at_most("mean Huber cost", least, theirs, theirs))
    exponent = other if isinstance(other, Refusal) else other.natural["alpha2"]
    checks.append(within("alpha2, vocabulary not in thousands", exponent, TRUE_UNITS, 0.005, PUBLISHED["alpha2"]))
    notes = (
        f"{len(as_published.log_loss)} rows of {LEAST_FLOPS:g} FLOPs or more; residuals are differences of L_u",
        "the published code turns characters into tokens by a function of the vocabulary's size, and gives it the size in thousands",
    )
    return Replication(NAME, checks=tuple(checks), notes=notes)
