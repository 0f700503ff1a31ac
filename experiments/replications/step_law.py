"""Li et al. 2025, Step Law: the best learning rate and batch size in N and D, from 1,911 runs in 17 sweeps of both.

The published law is a regression over all rows within .25% of the lowest loss of their sweep; the second one here is over the vertices of
quadratics.
"""

import pathlib

import numpy as np

from experiments.replications import tables
from experiments.replications.published_numbers import Check, Replication, within
from lm.scaling import runs, sweeps
from lm.scaling.results import Estimate, Refusal
from lm.scaling.runs import Columns, Runs

NAME = "step_law"
LENGTH = 2048  # tokens of a sequence; batches are counted in sequences
NEAR = 0.0025
PUBLISHED = {"rate: exponent of N": -0.713, "rate: exponent of D": 0.307, "batch: exponent of D": 0.571}
RELEASED = {
    "rate: exponent of N": -0.766,
    "rate: exponent of D": 0.197,
    "batch: exponent of D": 0.613,
}  # the same regression, released runs
QUADRATIC = {"rate: exponent of N": -0.695, "rate: exponent of D": 0.208, "batch: exponent of D": 0.569}  # vertices of quadratics


def table(data: pathlib.Path) -> Runs:
    """Reads the dense runs; the loss is the smoothed training loss at the end."""
    column = tables.read(data / "step_law" / "dense_lr_bs_loss.csv")
    frame = {"N": column["N"], "D": column["D"], "loss": column["smooth loss"], "rate": column["lr"], "batch": column["bs"] * LENGTH}
    return runs.from_frame(frame, Columns(inputs={"rate": "rate", "batch": "batch"}), source="step_law")


def near_lowest(points: Runs) -> dict[str, float]:
    """Returns the exponents by the published regression."""
    rows = np.concatenate([rows[points.loss[rows] < (1 + NEAR) * points.loss[rows].min()] for rows in sweeps.cells_of(points)])
    one, n, d = np.ones(len(rows)), points.log_n[rows], points.log_d[rows]
    rate = np.linalg.lstsq(np.stack([one, n, d], axis=1), np.log(points.inputs["rate"][rows]))[0]
    batch = np.linalg.lstsq(np.stack([one, d], axis=1), np.log(points.inputs["batch"][rows]))[0]
    return dict(zip(PUBLISHED, (rate[1], rate[2], batch[1]), strict=True))


def quadratics(points: Runs) -> dict[str, float]:
    """Returns the exponents by the vertices of quadratics."""
    made = sweeps.analyse(points, ["rate", "batch"], sweeps.SweepSettings(terms={"batch": ("D",)}, draws=10))
    found: dict[str, float] = {}
    for name, law in made.laws.items():
        answers = {} if isinstance(law, Refusal) else law.exponents
        found |= {f"{name}: exponent of {term}": answer.value for term, answer in answers.items() if isinstance(answer, Estimate)}
    return found


def run(data: pathlib.Path) -> Replication:
    points = table(data)
    theirs, ours = near_lowest(points), quadratics(points)
    checks: list[Check] = [within(what, theirs[what], value, 0.001, PUBLISHED[what]) for what, value in RELEASED.items()]
    checks += [within(f"quadratics, {what}", ours.get(what, np.nan), value, 0.001, PUBLISHED[what]) for what, value in QUADRATIC.items()]
    notes = (
        "the released runs give the published exponents by the published regression at none of eight shares from 0 to 1%",
        "quadratics within 1 to 4% of the lowest loss: exponents of the rate -.84 to -.62 and .20 to .23, of the batch .57 to .59",
    )
    return Replication(NAME, checks=tuple(checks), notes=notes)
