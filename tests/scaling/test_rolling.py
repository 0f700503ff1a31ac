"""Rolling origin: exact laws predict without error; the published errors of Epoch's table come out."""

import dataclasses
import pathlib

import numpy as np
import pytest

from experiments.replications import epoch
from lm.scaling import rolling
from lm.scaling.fits import solver
from lm.scaling.results import Refusal
from tests.scaling import known

EPOCH = pathlib.Path(__file__).parents[3] / "shared" / "scaling_data" / "epoch_chinchilla"
PUBLISHED = ((1e20, 136, 0.0089, 0.602), (1e21, 217, 0.0105, 0.548))  # cut, rows, mean absolute error of the rest, a


@pytest.mark.usefixtures("few_starts")
def test_an_exact_law_predicts_the_next_budget_and_wastes_nothing():
    design = known.own_design()
    runs_known = design.exact()
    found = rolling.rolling_origin(runs_known)
    assert (found[0].rows, isinstance(found[0].why, Refusal)) == (7, True)  # one budget holds no five parameters
    assert [(o.rows, o.next_rows, o.rest_rows) for o in found[1:]] == [(14, 7, 14), (21, 7, 7)]
    for origin in found[1:]:
        assert origin.next_absolute_error < 1e-6
        assert origin.regret < 1e-8
        assert origin.deadweight < 1e-5
        assert abs(origin.n_star / origin.n_star_all - 1) < 1e-3


@pytest.mark.usefixtures("few_starts")
def test_a_wrong_allocation_costs_loss_and_compute():
    """Rows up to a cut whose small sizes look 3% too good: the allocation errs, and regret and deadweight say by how much."""
    design = known.own_design()
    exact = design.exact()
    low = exact.c <= np.quantile(exact.c, 0.6)
    tilt = 0.03 * (np.log(exact.n) - np.log(exact.n).mean()) / np.ptp(np.log(exact.n))
    tilted = dataclasses.replace(exact, loss=np.where(low, exact.loss * np.exp(tilt), exact.loss))
    origin = rolling.rolling_origin(tilted)[1]
    assert origin.regret > 0
    assert 0 < origin.deadweight < 1


def test_one_budget_predicts_nothing():
    design = known.own_design()
    one = design.exact().take(design.runs.budget == design.runs.budget[0])
    refused = rolling.rolling_origin(one)
    assert isinstance(refused, Refusal)


@pytest.mark.skipif(not EPOCH.is_dir(), reason="no table of Epoch's 245 points beside the repository")
@pytest.mark.usefixtures("few_starts")
def test_epochs_rolling_origin(monkeypatch):
    """Losses extrapolate to about 1%, the exponent of N* does not: .602 falls to .548 as compute is added."""
    monkeypatch.setattr(solver, "PADDING", 256)  # 136, 217 and 240 rows are fitted by one program
    table = epoch.filtered(epoch.table(EPOCH.parent))
    found = rolling.rolling_origin(table, cuts=[cut for cut, *_ in PUBLISHED])
    for origin, (_, rows, error, a) in zip(found, PUBLISHED, strict=True):
        assert origin.rows == rows
        assert abs(origin.rest_absolute_error - error) < 0.0001
        assert abs(origin.values["beta"] / (origin.values["alpha"] + origin.values["beta"]) - a) < 0.002
        assert origin.deadweight >= 0
