"""Bhagia et al. 2024, the OLMo ladder: C4 loss of a 13B model from four small sizes at four lengths each."""

import pathlib

import numpy as np

from experiments.replications import tables
from experiments.replications.published_numbers import Check, Replication, within
from lm.scaling import runs
from lm.scaling.fits import fit, solver
from lm.scaling.fits.objectives import HuberLog
from lm.scaling.fitted_law import points_of
from lm.scaling.laws.law import Chinchilla
from lm.scaling.results import Refusal
from lm.scaling.runs import Runs

NAME = "olmo"
SIZES = ("190M", "370M", "760M", "1B")
LENGTHS = ("1xC", "2xC", "5xC", "10xC")  # times 20 tokens per parameter
LAST = 5  # evaluations whose losses are averaged
OPTIMUM = {"log A": (2.5244, 0.001), "log B": (3.5109, 0.001), "E": (0.9344, 0.001), "alpha": (0.1036, 2e-4), "beta": (0.1620, 2e-4)}


def table(data: pathlib.Path) -> Runs:
    """Reads the ladder's 16 runs; N is without embeddings."""
    column = tables.read(data / "olmo_ladder" / "loss_curves.csv")
    names = [f"{size}-{length}" for size in SIZES for length in LENGTHS]
    rows = [np.flatnonzero(column["run"] == name) for name in names]
    rows = [index[np.argsort(column["step"][index])] for index in rows]
    frame = {
        "run": names,
        "N": [column["non_embedding_params"][index[-1]] for index in rows],
        "D": [column["tokens"][index[-1]] for index in rows],
        "loss": [column["c4_en_ce"][index[-LAST:]].mean() for index in rows],
    }
    return runs.from_frame(frame, runs.Columns(run="run"), source="olmo_ladder")


def run(data: pathlib.Path) -> Replication:
    points, law = table(data), Chinchilla()
    released = tables.read(data / "olmo_ladder" / "published_step1_c4_main.csv")
    predicted, error, actual = (float(released[name][0]) for name in ("Pred", "Fit Error", "Actual"))
    final = tables.read(data / "olmo_ladder" / "final_rows.csv")
    large = np.flatnonzero(final["size"] == "13B")[0]
    target = np.array([[final["non_embedding_params"][large], final["tokens"][large]]])
    made = fit.fit(law, points_of(points, law), HuberLog())
    checks: list[Check] = []
    if isinstance(made, Refusal):
        checks.append(within("13B: predicted C4 loss", made, predicted, 1e-6, predicted))
    else:
        values = law.natural(made.theta, made.points.centre)
        ours = solver.loss(law, values, target)[0]
        relative = np.abs(np.exp(made.log_loss(made.points.log_x)) / points.loss - 1)
        named = made.natural | {f"log {name}": np.log(made.natural[name]) for name in ("A", "B")}
        checks += [
            within("13B: predicted C4 loss", ours, predicted, 1e-6, predicted),
            within("13B: relative error, %", 100 * (ours / actual - 1), -3.83, 0.01, -3.83),
            within("mean relative error of the fit", relative.mean(), error, 1e-7, error),
            *(within(name, named[name], value, tolerance) for name, (value, tolerance) in OPTIMUM.items()),
        ]
    notes = (
        "losses are means of the last five evaluations; the 13B run has 200 times the compute of the ladder's largest run",
        "the objective has several local minima: 5 of the best 128 starts reach the least, which is the published one",
    )
    return Replication(NAME, checks=tuple(checks), notes=notes)
