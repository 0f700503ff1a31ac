"""Luo et al. 2025, the multi-power law: loss curves under schedules that were not fitted, by the published parameters.

Three curves per size fit the law (cosine, constant, two-stage to 9e-5), six test it. The schedule of every step is remade from its name:
2,160 steps of linear warm-up to 3e-4, then constant, cosine to 3e-5, two stages from step 8,000, or a decay from step 20,000.
"""

import pathlib

import numpy as np

from experiments.replications import tables
from experiments.replications.published_numbers import Check, Replication, within
from lm.scaling.laws.schedule_laws import MultiPower, TrainingCurve, curve_loss

NAME = "multi_power"
WARMUP, PEAK, END = 2160, 3e-4, 3e-5
TESTED = ("constant_72000", "cosine_72000", "wsd_20000_24000", "wsdld_20000_24000", "wsdcon_3", "wsdcon_18")
PUBLISHED = {  # size: (L0, A, alpha, B, C, beta, gamma), R2 as published
    "25M": ((3.04045406, 0.52468604, 0.50786857, 363.78751622, 2.06560812, 0.58279013, 0.64142257), 0.9988),
    "100M": ((2.6514477, 0.60115152, 0.45295811, 437.9464276, 2.13245612, 0.59785199, 0.65523644), 0.9983),
    "400M": ((2.37474466, 0.65421216, 0.42878731, 523.42464371, 2.02462735, 0.59350493, 0.63472457), 0.9978),
}


def schedule(name: str) -> np.ndarray:
    """Returns the learning rate of every step."""
    kind, *numbers = name.split("_")
    if kind == "wsdcon":
        after = np.full(16_000 - WARMUP, PEAK)
        after[8000 - WARMUP :] = 1e-5 * int(numbers[0])
    else:
        total = int(numbers[-1])
        steps = np.arange(WARMUP, total)
        decayed = np.clip((steps - 20_000) / (total - 20_000), 0, 1)
        after = {
            "constant": lambda: np.full(len(steps), PEAK),
            "cosine": lambda: END + 0.5 * (PEAK - END) * (1 + np.cos(np.pi * (steps - WARMUP) / (total - WARMUP))),
            "wsd": lambda: PEAK ** (1 - decayed) * END**decayed,
            "wsdld": lambda: PEAK * (1 - decayed) + END * decayed,
        }[kind]()
    return np.concatenate([np.linspace(0, PEAK, WARMUP), after])


def curve(data: pathlib.Path, size: str, name: str) -> TrainingCurve:
    """Returns a measured curve under its schedule; steps beyond the last of the schedule are left out."""
    column, rates = tables.read(data / "multi_power_law" / f"{size}_{name}.csv"), schedule(name)
    inside = column["step"] < len(rates)
    return TrainingCurve(rates, column["step"][inside].astype(int), column["loss"][inside])


def determined(data: pathlib.Path, size: str) -> float:
    """Returns the mean of R2 over the tested schedules."""
    found = []
    for name in TESTED:
        measured = curve(data, size, name)
        error = measured.loss - curve_loss(PUBLISHED[size][0], measured)
        found.append(1 - np.sum(error**2) / np.sum((measured.loss - measured.loss.mean()) ** 2))
    return float(np.mean(found))


def run(data: pathlib.Path) -> Replication:
    checks: list[Check] = [
        within(f"{size}: mean R2 over {len(TESTED)} unseen schedules", determined(data, size), published, 1e-4, published)
        for size, (_, published) in PUBLISHED.items()
    ]
    notes = (f"{MultiPower().equation}; warm-up counts as a rise of the rate",)
    return Replication(NAME, checks=tuple(checks), notes=notes)
