"""Approach 3: recovery, refusals, profiles, and the path at C as counted."""

import dataclasses
import math

import numpy as np
import pytest

from lm.scaling.approaches import parametric
from lm.scaling.fits.frontier import cost_of, optimum
from lm.scaling.fits.objectives import HuberLog, SquaredLog
from lm.scaling.fitted_law import weights_of
from lm.scaling.intervals.noise import fit_noise
from lm.scaling.results import Estimate, Refusal
from lm.scaling.settings import AnalysisSettings
from tests import synthetic

pytestmark = pytest.mark.usefixtures("few_starts_in_module")
SETTINGS = AnalysisSettings(draws=199)
NAMES = ("A", "B", "E", "alpha", "beta")


def fitted(rows, settings=SETTINGS):
    return parametric.fit_parametric(synthetic.cells(rows), fit_noise(synthetic.table(rows), settings), settings)


def test_a_law_comes_back_from_its_study_without_noise():
    made = fitted(synthetic.study(replicas=False))
    np.testing.assert_allclose([made.values[name] for name in NAMES], synthetic.LAW, rtol=1e-6)
    assert math.isclose(made.a.value, 0.5, rel_tol=1e-6)
    assert not made.cautions


def test_a_law_comes_back_within_its_intervals():
    """One study, five intervals at 99%: all cover (the chance that one fails is below 5%)."""
    made = fitted(synthetic.study(sigma=0.008, seed=3), dataclasses.replace(SETTINGS, level=0.99))
    for name, truth in zip(NAMES, synthetic.LAW, strict=True):
        assert made.parameters[name].covers(truth), name
    assert made.a.covers(0.5)
    assert made.a.low < made.a_residual.high
    assert 0.5 < made.lack_of_fit < 2


def test_intervals_of_the_exponent_cover(nine_starts):
    """30 studies, nominal 80%: a standard error of 7.3%, so that .80 +- .22 passes at three of them."""
    covered = []
    for seed in range(30):
        rows = synthetic.study(sigma=0.01, seed=seed)
        got = parametric.fit_law(synthetic.cells(rows), fit_noise(synthetic.table(rows), SETTINGS), SETTINGS, 59, "main")
        covered.append(got.estimate(parametric.exponents).covers(0.5))
    assert abs(np.mean(covered) - 0.8) < 0.22


@pytest.mark.parametrize(("objective", "power"), [(HuberLog(), 1), (SquaredLog(), 2)])
def test_cells_weigh_by_their_noise(objective, power):
    """The product of a weight and its standard deviation, in the power of the objective, is one number for all cells."""
    table = synthetic.table(synthetic.study(sigma=0.01))
    noise, cells = fit_noise(table), table.cells()
    weights = weights_of(cells, noise, objective)
    sd = noise.sigma(np.log(cells.c)) / np.sqrt(cells.seeds)
    np.testing.assert_allclose(weights * sd**power, (weights * sd**power)[0])
    assert weights.mean() == pytest.approx(1)


@pytest.mark.parametrize("narrow", ["N", "D"])
def test_five_parameters_need_a_factor_eight_in_n_and_d(narrow):
    rows = synthetic.study()
    cells = synthetic.cells(rows)
    column = cells.log_n if narrow == "N" else cells.log_d
    kept = cells.take(np.abs(column - np.median(column)) < math.log(7.5) / 2)
    refused = parametric.fit_parametric(kept, Refusal("no_replicas", ""), SETTINGS)
    assert refused.kind == "unidentified"
    assert refused.reason.startswith(narrow)


def test_a_parameter_with_a_flat_profile_is_refused():
    """With 5% noise E cannot be told from 0 at this scale; a parameter that can keeps its interval."""
    made = fitted(synthetic.study(sigma=0.05, seed=1))
    flat = [curve for curve in made.profiles if curve.flat]
    assert flat
    for curve in flat:
        assert made.parameters[curve.name].kind == "unidentified"
        assert min(curve.rise[0], curve.rise[-1]) < curve.cutoff
    quiet = fitted(synthetic.study(sigma=0.002, seed=1))
    assert not any(curve.flat for curve in quiet.profiles)
    assert all(isinstance(answer, Estimate) for answer in quiet.parameters.values())


def test_loss_that_does_not_fall_with_size_has_no_exponent():
    rows = [dataclasses.replace(row, loss=0.8 + 88.0 / row.tokens**0.35) for row in synthetic.study(replicas=False)]
    made = fitted(rows)
    assert isinstance(made, Refusal) or isinstance(made.a, Refusal)


def test_the_optimum_at_6nd_is_the_closed_form():
    """N* = G (C/6)^a with a = beta / (alpha + beta), G = (alpha A / (beta B))^(1 / (alpha + beta)) (Hoffmann et al. 2022, eq. 4)."""
    law = (406.4, 410.7, 1.69, 0.34, 0.28)
    cells = synthetic.cells(synthetic.study(), "total", "6nd")
    log_c = np.log([1e11, 1e12, 1e13])
    best = optimum(np.array([law]), cost_of(cells), log_c)
    g = (0.34 * 406.4 / (0.28 * 410.7)) ** (1 / 0.62)
    inside = best.log_n[0] < cells.log_n.max() + 3
    np.testing.assert_allclose(np.exp(best.log_n[0])[inside], (g * (np.exp(log_c) / 6) ** (0.28 / 0.62))[inside], rtol=1e-9)
    np.testing.assert_allclose(np.exp(best.log_n + best.log_d) * 6, np.exp(log_c)[None], rtol=1e-9)
