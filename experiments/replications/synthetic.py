"""Approach 2 on laws that are known: the bias of the parabola on noise-free surfaces (Czech et al. 2026), and recovery by approach 3.

Five budgets from 1e17 to 1e21, 15 sizes each, evenly spaced in log D from D / width to D * width about a centre; a parabola in log D per
budget, a power law through the minima, D* read at 1e24. The centre is the true optimum, or a constant factor 3 above it in D, or drifts to
a factor 3 along the budgets. The parabola is symmetric and the profile is not, unless alpha = beta: the error stays when noise does not.
"""

import pathlib
from typing import Optional

import numpy as np

from experiments.replications.published_numbers import Check, Replication, within
from lm.scaling.approaches import curves, isoflop, profiles
from lm.scaling.fits import fit, solver
from lm.scaling.fits.objectives import HuberLog
from lm.scaling.laws.law import Chinchilla
from lm.scaling.results import Refusal
from lm.scaling.runs import Runs
from lm.scaling.settings import AnalysisSettings

NAME = "synthetic"
SURFACES = {  # A, B, E, alpha, beta
    "symmetric": (400.0, 400.0, 1.69, 0.31, 0.31),
    "chinchilla": (406.4, 410.7, 1.69, 0.34, 0.28),
    "asymmetric": (400.0, 400.0, 1.69, 0.465, 0.155),
}
WIDTHS = (2.0, 4.0, 8.0, 16.0)
BUDGETS = np.geomspace(1e17, 1e21, 5)
TARGET = 1e24
CENTRES = {"centred": np.ones(5), "off by 3": np.full(5, 3.0), "drifting to 3": np.geomspace(1.0, 3.0, 5)}
BIAS = {  # percent of D* at TARGET, per width
    ("symmetric", "centred"): (0.0, 0.0, 0.0, 0.0),
    ("chinchilla", "centred"): (-0.33, -1.30, -2.90, -5.10),
    ("asymmetric", "centred"): (-1.67, -6.50, -13.91, -23.12),
    ("symmetric", "off by 3"): (3.97, 3.47, 2.65, 1.51),
    ("chinchilla", "off by 3"): (7.11, 5.69, 3.38, 0.24),
    ("asymmetric", "off by 3"): (19.22, 14.41, 6.96, -2.42),
    ("symmetric", "drifting to 3"): (6.07, 5.17, 3.70, 1.69),
    ("chinchilla", "drifting to 3"): (11.61, 9.83, 6.94, 3.05),
    ("asymmetric", "drifting to 3"): (34.57, 30.04, 22.97, 14.00),
}


def true_tokens(surface: tuple[float, ...], flops: np.ndarray) -> np.ndarray:
    """Returns D* of C = 6 N D (Hoffmann et al. 2022, eq. 4)."""
    a, b, _, alpha, beta = surface
    g = (alpha * a / (beta * b)) ** (1 / (alpha + beta))
    return (flops / 6) ** (alpha / (alpha + beta)) / g


def cells(surface: tuple[float, ...], width: float, centre: np.ndarray) -> Runs:
    """Returns the noise-free runs of a grid."""
    steps = np.linspace(-1, 1, 15)
    log_d = np.log(true_tokens(surface, BUDGETS) * centre)[:, None] + np.log(width) * steps
    log_c = np.broadcast_to(np.log(BUDGETS)[:, None], log_d.shape)
    log_n, log_d, log_c = (v.ravel() for v in (log_c - np.log(6) - log_d, log_d, log_c))
    loss = solver.loss(Chinchilla(), np.array(surface), np.exp(np.stack([log_n, log_d], axis=1)))
    n, d, c = np.exp(log_n), np.exp(log_d), np.exp(log_c)
    return Runs({"N": n, "D": d, "C": c, "M": d / n}, loss, tuple(map(str, range(len(loss)))), budget=c)


def approach_2(surface: tuple[float, ...], width: float, centre: np.ndarray) -> tuple[float, float]:
    """Returns the percentage by which D* at TARGET is off, and the exponent b of D* ~ C^b, from the vertices wherever they lie."""
    made = cells(surface, width, centre)
    curve = [curves.through(profile, made.noise_weight) for profile in profiles.by_budget(made)]
    log_n = np.array([c.centre - c.coefficients[1] / (2 * c.coefficients[2]) for c in curve])
    intercept, b = np.polynomial.polynomial.polyfit(np.log(BUDGETS), np.log(BUDGETS / 6) - log_n, 1)
    off = np.exp(intercept + b * np.log(TARGET)) / true_tokens(surface, np.array(TARGET)) - 1
    return 100 * float(off), float(b)


def refused(surface: tuple[float, ...], width: float, centre: np.ndarray) -> int:
    """Counts the budgets whose minimum the analysis of a study refuses, because it lies outside the sampled sizes."""
    made = cells(surface, width, centre)
    noise = Refusal("no_replicas", "no noise")
    found, _ = isoflop.fit_isoflop(profiles.by_budget(made), made, noise, AnalysisSettings(draws=10))
    return sum(isinstance(budget.n_star, Refusal) for budget in found.budgets)


def bias_checks() -> list[Check]:
    """Checks every surface, centre and width, and the exponent, which a constant offset leaves exact."""
    found, worst = [], 0.0
    for (name, centre), published in BIAS.items():
        for width, target in zip(WIDTHS, published, strict=True):
            off, b = approach_2(SURFACES[name], width, CENTRES[centre])
            found.append(within(f"{name}, {centre}, x{width:g}: D* at 1e24 off by, %", off, target, 0.01, published=target))
            if not centre.startswith("drifting"):
                alpha, beta = SURFACES[name][3:]
                worst = max(worst, abs(b - alpha / (alpha + beta)))
    outside = refused(SURFACES["chinchilla"], 2.0, CENTRES["off by 3"])
    return [
        *found,
        within("largest error of the exponent b, centred or off by 3", worst, 0.0, 1e-9),
        within("chinchilla, off by 3, x2: minima outside the sizes, refused by default", outside, 5, 0),
    ]


def recovery_checks() -> list[Check]:
    """Checks all five parameters fitted to noise-free losses: 5 sizes at each of 5 budgets, N from a tenth to ten times the optimum."""
    surface = SURFACES["chinchilla"]
    made = cells(surface, 10.0, np.ones(5))
    kept = made.take(np.arange(len(made)) % 15 % 3 == 1)
    fitted = fit.fit(Chinchilla(), fit.Points(kept.log_x(("N", "D")), kept.log_loss, np.ones(len(kept))), HuberLog())
    names = Chinchilla().names
    if isinstance(fitted, Refusal):
        return [within(f"noise-free fit, relative error of {name}", fitted, 0.0, 1e-6) for name in names]
    errors = [fitted.natural[name] / true - 1 for name, true in zip(names, surface, strict=True)]
    return [within(f"noise-free fit, relative error of {name}", error, 0.0, 1e-6) for name, error in zip(names, errors, strict=True)]


def run(data: Optional[pathlib.Path]) -> Replication:
    """Checks everything; needs no data."""
    notes = ("the noise-free grid: 25 cells, 5 sizes at 1e17..1e21, N from 8 times below to 8 times above the optimum",)
    return Replication(NAME, checks=(*bias_checks(), *recovery_checks()), notes=notes)
