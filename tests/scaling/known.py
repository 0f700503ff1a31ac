"""Tables and fits whose truth is known, made without a solver."""

import math

import numpy as np

from lm.scaling import coverage, runs
from lm.scaling.fits import fit
from lm.scaling.fits.objectives import HuberLog
from lm.scaling.fitted_law import points_of
from lm.scaling.laws.law import Chinchilla
from tests import synthetic

EPOCH = (477.83, 2143.42, 1.8172, 0.3473, 0.3672)  # A, B, E, alpha, beta: Besiroglu et al. 2024, at the optimum
PORIAN_BUDGETS = 1.25e16 * 2.0 ** np.arange(12)
_SIZES = np.geomspace(5e6, 9e8, 16)


class Flat:
    """One relative sd for every loss: .72%, as the default study's seeds show at both budgets where they were run."""

    def __init__(self, sd=0.0072):
        self.sd = sd

    def sigma(self, log_c, log_loss):
        return np.full(np.shape(log_loss), self.sd)


def own_design(noise=Flat()):
    """The default study's shape: four budgets of seven sizes."""
    rows = synthetic.study(replicas=False)
    frame = {
        "N": [r.params["matmul"] for r in rows],
        "D": [r.tokens for r in rows],
        "loss": [1.0] * len(rows),
        "budget": [r.budget for r in rows],
    }
    table = runs.from_frame(frame, runs.Columns(budget="budget"))
    return coverage.Design(table, Chinchilla(), np.array(synthetic.LAW), noise)


def porian_design(noise, budgets=PORIAN_BUDGETS, sizes=7):
    """The shape of Porian et al. 2024: doubling budgets, at each the sizes of 5M to 900M nearest to 20 tokens per parameter."""
    cells = []
    for budget in budgets:
        near = np.argsort(np.abs(np.log(_SIZES / math.sqrt(budget / 120))), kind="stable")[:sizes]
        cells += [(n, budget / 6 / n, budget) for n in sorted(_SIZES[near])]
    n, d, c = np.array(cells).T
    table = runs.from_frame({"N": n, "D": d, "loss": np.ones(len(n)), "budget": c}, runs.Columns(budget="budget"))
    return coverage.Design(table, Chinchilla(), np.array(EPOCH), noise)


def fit_of(design, log_loss=None):
    """A fit that sits on the truth, of losses [n] (default: exact)."""
    points = points_of(design.exact(), design.law)
    theta = design.law.coordinates(design.values, points.centre)
    loss = points.log_loss if log_loss is None else log_loss
    return fit.Fit(design.law, HuberLog(), fit.Points(points.log_x, loss, points.weights), theta, 0.0, 0.0, 1.0, 1, 1, theta[None], ())
