"""Noise, profiles and approach 2."""

import dataclasses
import math

import numpy as np
import pytest

from lm.scaling import runs
from lm.scaling.approaches import isoflop, profiles
from lm.scaling.fits.frontier import cost_of, optimum
from lm.scaling.intervals.noise import NoiseModel, fit_noise
from lm.scaling.results import Estimate, Refusal
from lm.scaling.settings import AnalysisSettings
from tests import synthetic

SETTINGS = AnalysisSettings(draws=300)


def fitted(rows, settings=SETTINGS, noise=None):
    noise = fit_noise(synthetic.table(rows), settings) if noise is None else noise
    cells = synthetic.cells(rows)
    return isoflop.fit_isoflop(profiles.by_budget(cells), cells, noise, settings)[0]


def truth(rows, law=synthetic.LAW):
    """N*, D* per budget and their exponents under the law, with C as counted."""
    cells = synthetic.cells(rows)
    log_c = np.array([cells.log_c[cells.budget == b].mean() for b in sorted(set(cells.budget.tolist()))])
    best = optimum(np.array([law]), cost_of(cells), log_c)
    return np.exp(best.log_n[0]), np.polyfit(log_c, best.log_n[0], 1)[0], np.polyfit(log_c, best.log_d[0], 1)[0]


def test_noise_is_found_where_it_was_put():
    sigmas = []
    for seed in range(40):
        noise = fit_noise(synthetic.table(synthetic.study(sigma=0.015, seed=seed)), SETTINGS)
        assert noise.dof == 20
        sigmas.append(noise.at(2e11).value)
    assert abs(np.mean(sigmas) / 0.015 - 1) < 3 * 0.2 / math.sqrt(40)  # relative sd of a sample sd at 14-20 degrees of freedom: under .2


def test_noise_intervals_widen_where_no_cell_was_repeated():
    covered, widths = [], []
    for seed in range(60):
        noise = fit_noise(synthetic.table(synthetic.study(sigma=0.015, seed=100 + seed)), SETTINGS)
        known, far = noise.at(2e11), noise.at(3.2e12)
        covered.append(known.covers(0.015))
        widths.append((math.log(known.high / known.low), math.log(far.high / far.low)))
    assert 0.6 < np.mean(covered) < 0.95  # 80% within three standard errors
    assert np.all(np.diff(widths) > 0)


def test_without_replicas_noise_is_refused_and_intervals_come_from_residuals():
    rows = synthetic.study(sigma=0.005, replicas=False)
    assert fit_noise(synthetic.table(rows), SETTINGS).kind == "no_replicas"
    assert fitted(rows).a.method == isoflop.RESIDUAL


def test_exponents_of_a_noise_free_study_are_those_of_its_law():
    rows = synthetic.study()
    n_star, a, b = truth(rows)
    made = fitted(rows)
    assert abs(made.a.value - a) < 0.003
    assert abs(made.b.value - b) < 0.004  # no parabola is the law: along log D it is .0031 off
    np.testing.assert_allclose([budget.n_star.value for budget in made.budgets], n_star, rtol=0.01)


def _drawn(u, loss):
    empty = ((),) * len(u)
    return profiles.Profile(1e12, math.log(1e12), empty, empty, 10 + u, 20 - u, np.log(loss), np.ones(len(u)), np.eye(len(u)))


def test_a_parabola_is_found_exactly():
    u = np.linspace(-1, 1, 6)
    made = isoflop.fit_budget(_drawn(u, 2 + (u - 0.3) ** 2), np.ones(6), None, SETTINGS, 50).result
    assert math.isclose(made.n_star.value, math.exp(10.3), rel_tol=1e-9)
    assert math.isclose(made.d_star.value, math.exp(19.7), rel_tol=1e-9)
    assert math.isclose(made.loss_star.value, 2.0, rel_tol=1e-9)


@pytest.mark.parametrize(("shape", "kind"), [(lambda u: 2 - 0.2 * u**2, "concave"), (lambda u: 2 + 0.1 * (u - 4) ** 2, "edge")])
def test_a_profile_without_interior_minimum_is_refused(shape, kind):
    u = np.linspace(-1, 1, 7)
    profile = _drawn(u, shape(u))
    made = isoflop.fit_budget(profile, np.ones(7), None, SETTINGS, 50).result
    assert made.n_star.kind == made.d_star.kind == made.loss_star.kind == kind
    few = dataclasses.replace(profile, log_n=profile.log_n[:4])
    assert isoflop.fit_budget(few, np.ones(7), None, SETTINGS, 50).result.n_star.kind == "too_few_points"


@pytest.mark.parametrize("noise", [0.0, 1e-15])
def test_equal_losses_have_no_optimum(noise):
    """A parabola through rounding noise may open upwards, and its minimum would be of the noise."""
    u = np.linspace(-1, 1, 7)
    loss = 2.5 * (1 + noise * np.random.default_rng(3).standard_normal(7))
    made = isoflop.fit_budget(_drawn(u, loss), np.ones(7), None, SETTINGS, 50).result
    assert made.n_star.kind == made.d_star.kind == made.loss_star.kind == "unidentified"
    assert "2.5" in made.n_star.reason


def test_an_exponent_needs_three_minima():
    sizes = ((16, 20, 24, 32, 40),) * 2 + ((64, 80, 96, 112, 128),) * 2
    made = fitted(synthetic.study(widths=sizes))
    assert made.a.kind == "too_few_points"
    assert any(isinstance(budget.n_star, Refusal) and budget.n_star.kind == "edge" for budget in made.budgets)


def test_a_flat_profile_keeps_its_value_and_loses_its_interval():
    loud = NoiseModel(math.log(0.3), 0.0, math.log(5e11), ((0.01, 0.0), (0.0, 0.001)), 20, (), 0.8)
    made = fitted(synthetic.study(), noise=loud)
    assert made.budgets[0].lost > 0.1
    assert isinstance(made.a, Estimate)
    assert made.a.low is None
    assert made.a.refused.kind == "interval"


def test_intervals_cover_the_truth_as_often_as_they_say():
    """60 studies with 1.2% noise: nominal 80%, a standard error of 5.2% on the coverage, so .80 +- .16 passes at three of them."""
    _, a, _ = truth(synthetic.study())
    few = dataclasses.replace(SETTINGS, draws=59)
    covered = [fitted(synthetic.study(sigma=0.012, seed=seed), few).a.covers(a) for seed in range(60)]
    assert abs(np.mean(covered) - 0.8) < 0.16


def test_draws_and_intervals_repeat_to_the_last_digit():
    rows = synthetic.study(sigma=0.01)
    assert fitted(rows) == fitted(rows)
    assert fitted(rows).a != fitted(rows, dataclasses.replace(SETTINGS, seed=1)).a


def _cells(count):
    """Returns as many cells, of one seed each."""
    ones = np.ones(count)
    return runs.Runs({"N": ones, "D": ones, "C": ones}, ones, tuple(map(str, range(count))))


def _profile(law, flops, log_d):
    """15 sizes at C = 6 N D, noise-free."""
    log_n = np.log(flops / 6) - log_d
    loss = synthetic.true_loss(law, np.exp(log_n), np.exp(log_d))
    order = np.argsort(log_n)
    empty = ((),) * len(order)
    return profiles.Profile(flops, math.log(flops), empty, empty, log_n[order], log_d[order], np.log(loss[order]), np.ones(15), np.eye(15))


@pytest.mark.parametrize(
    ("alpha", "beta", "width", "shift", "published"),
    [
        (0.31, 0.31, 8, 1, 0.0),
        (0.465, 0.155, 2, 1, -1.67),
        (0.465, 0.155, 8, 1, -13.91),
        (0.465, 0.155, 8, 3, 6.96),
        (0.31, 0.31, 8, 3, 2.65),
    ],
)
def test_the_bias_of_approach_2_is_the_published_one(alpha, beta, width, shift, published):
    """Error of D* at 1e24 FLOPs, in percent, from five noise-free budgets 1e17..1e21 on grids D* / width .. D* width, off-centre by
    `shift` (Czech et al. 2026, arXiv 2603.22339)."""
    law = (400.0, 400.0, 1.69, alpha, beta)
    g = (alpha / beta) ** (1 / (alpha + beta))

    def best_d(c):
        return (c / 6) ** (alpha / (alpha + beta)) / g

    grid = np.linspace(-math.log(width), math.log(width), 15)
    made = [_profile(law, c, np.log(best_d(c) * shift) + grid) for c in (1e17, 1e18, 1e19, 1e20, 1e21)]
    fits, minima = isoflop.fit_isoflop(made, _cells(15), Refusal("no_replicas", ""), dataclasses.replace(SETTINGS, draws=20))
    good = [m for m in minima if isinstance(m.result.n_star, Estimate)]
    log_d = math.log(1e24 / 6) - isoflop.extrapolate(good, "n_star", np.array([math.log(1e24)]))[0][0]
    assert abs(100 * (math.exp(log_d) / best_d(1e24) - 1) - published) < 0.01
    assert abs(1 - fits.a.value - alpha / (alpha + beta)) < 1e-6
