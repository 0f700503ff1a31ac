"""The law's own error: what is inferred from residuals, that its parts add up, and that its intervals cover where the law drifts."""

import dataclasses
import math

import numpy as np
import pytest
from scipy import integrate

from lm.scaling.fits import fit, frontier, solver
from lm.scaling.fits.objectives import HuberLog, SquaredLog
from lm.scaling.fitted_law import points_of
from lm.scaling.intervals import drift
from lm.scaling.intervals.discrepancy import CLIP, LENGTH, MOST, Discrepancy, clipped, discrepancy
from lm.scaling.intervals.kernel import matern
from lm.scaling.laws.law import Chinchilla
from lm.scaling.results import Refusal
from tests.scaling import known

LAW = Chinchilla()


def fit_at_truth(table, log_loss, objective=SquaredLog()):
    """The law at the least squares of its linearisation, which is what the theory supposes."""
    points = dataclasses.replace(points_of(table, LAW), log_loss=log_loss)
    theta = LAW.coordinates(np.array(known.EPOCH), points.centre)
    for _ in range(20):
        made = fit.Fit(LAW, objective, points, theta, 0.0, 0.0, 1.0, 1, 1, theta[None], ())
        theta = theta + np.linalg.lstsq(solver.jacobian(LAW, theta, points.design(LAW)), made.residuals, rcond=None)[0]
    return dataclasses.replace(made, theta=theta)


@pytest.fixture(scope="module")
def table():
    return known.porian_design(known.Flat(), budgets=known.PORIAN_BUDGETS[:6]).exact()


@pytest.fixture(scope="module")
def noisy(table):
    return fit_at_truth(table, table.log_loss + 0.01 * np.random.default_rng(0).standard_normal(len(table)))


def with_one_ratio(made, ratio):
    """The same, but for one ratio tau^2 / sigma^2."""
    (found,) = [one for one in discrepancy_of_all(made).members if one.ratio == ratio]
    return dataclasses.replace(discrepancy_of_all(made), members=(found._replace(weight=1.0),))


def discrepancy_of_all(made):
    import lm.scaling.intervals.discrepancy as module

    kept, module._NEGLIGIBLE = module._NEGLIGIBLE, 0.0
    try:
        return discrepancy(made)
    finally:
        module._NEGLIGIBLE = kept


def test_without_an_own_error_the_forecast_is_that_of_least_squares(noisy):
    own = with_one_ratio(noisy, 0.0)
    ahead = np.log([[2e9, 4e10], [5e8, 1e10]])
    spread = own.predict(ahead)
    slopes, there = (solver.jacobian(LAW, noisy.theta, LAW.design(x, noisy.points.centre)) for x in (noisy.points.log_x, ahead))
    r = clipped(noisy.residuals)
    sigma = math.sqrt(r @ r / (len(r) - 5))
    inverse = np.linalg.inv(slopes.T @ slopes)
    np.testing.assert_allclose(spread.noise, sigma, rtol=1e-4)
    np.testing.assert_allclose(spread.parameters, sigma * np.sqrt(np.sum((there @ inverse) * there, axis=1)), rtol=1e-4)
    np.testing.assert_allclose(spread.discrepancy, 0.0, atol=1e-9)


@pytest.mark.parametrize("ratio", [1.0, 16.0])
def test_kriging_by_blocks_equals_the_joint_normal_distribution(noisy, ratio):
    """The same mean and variance from the covariance of rows and forecasts written out, the law's coefficients with a wide prior."""
    own = with_one_ratio(noisy, ratio)
    ahead = np.log([[2e9, 4e10], [5e6, 1e12]])
    x = np.concatenate([noisy.points.log_x, ahead])
    distance = np.linalg.norm(x[:, None] - x, axis=2)
    slopes = solver.jacobian(LAW, noisy.theta, LAW.design(x, noisy.points.centre))
    slopes = slopes / np.linalg.norm(slopes, axis=0)
    n = len(noisy.points.log_x)
    own_error = ratio * matern(distance / LENGTH)
    whole = own_error + 1e7 * slopes @ slopes.T
    rows = whole[:n, :n] + np.eye(n)
    gain = np.linalg.solve(rows, whole[:n, n:]).T
    variance = np.diag(whole[n:, n:] - gain @ whole[:n, n:])
    spread = own.predict(ahead)
    np.testing.assert_allclose(spread.shift, gain @ clipped(noisy.residuals), rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose((spread.total**2 - spread.noise**2) / own.sigma**2, variance, rtol=1e-3)


def test_the_three_parts_add_up_and_grow_with_the_distance(noisy):
    own = discrepancy(noisy)
    log_c = np.log(4e17 * np.array([1.0, 4.0, 30.0, 1000.0]))
    best = frontier.optimum(LAW.natural(noisy.theta, noisy.points.centre)[None], frontier.six_nd(1e6, 1e9), log_c)
    spread = own.predict(np.stack([best.log_n[0], best.log_d[0]], axis=1))
    np.testing.assert_allclose(spread.total**2, spread.noise**2 + spread.parameters**2 + spread.discrepancy**2, rtol=1e-12)
    assert np.all(np.diff(spread.total) > 0)
    assert np.all(spread.discrepancy >= 0)
    drawn = own.surfaces(np.stack([best.log_n[0], best.log_d[0]], axis=1), 20_000, 0)
    without_noise = np.sqrt((spread.total**2 - spread.noise**2) * own.degrees / (own.degrees - 2))
    np.testing.assert_allclose(drawn[1].std(axis=0), without_noise, rtol=0.05)
    np.testing.assert_allclose(drawn[0] - noisy.log_loss(np.stack([best.log_n[0], best.log_d[0]], axis=1)), spread.shift, atol=1e-9)


def test_a_law_that_is_true_keeps_its_noise_and_one_that_drifts_shows_its_error(table, noisy):
    bent = 0.05 * np.sin(1.5 * table.log_n) + noisy.points.log_loss
    assert discrepancy(noisy).sigma == pytest.approx(0.01, rel=0.35)
    assert discrepancy(fit_at_truth(table, bent)).tau > 3 * discrepancy(noisy).tau


def test_optima_follow_the_law_where_it_is_exact(table):
    made = fit_at_truth(table, table.log_loss)
    own, cost, log_c = discrepancy(made), frontier.six_nd(1e6, 1e9), np.log([1e17, 1e19])
    path = own.path(cost, log_c, 50)
    best = frontier.optimum(np.array([known.EPOCH]), cost, log_c)
    np.testing.assert_allclose(path.log_n, best.log_n[0], atol=5e-3)
    np.testing.assert_allclose(path.log_loss, best.log_loss[0], atol=1e-5)
    assert np.all(path.drawn_log_n.std(axis=0) < 1e-3)


def test_outliers_count_up_to_three_robust_deviations(table, noisy):
    r = noisy.residuals.copy()
    r[3] += 1.0
    most = CLIP * 1.4826 * np.median(np.abs(r - np.median(r)))
    assert np.abs(clipped(r)).max() == pytest.approx(most)
    np.testing.assert_array_equal(clipped(np.zeros(5)), np.zeros(5))


def test_too_few_rows_are_refused_and_many_are_thinned(table, noisy):
    few = dataclasses.replace(noisy, points=fit.Points(*(column[:7] for column in (table.log_x(("N", "D")), table.log_loss, np.ones(42)))))
    refused = discrepancy(few)
    assert isinstance(refused, Refusal)
    assert "8" in refused.reason
    many = np.tile(noisy.points.log_x, (9, 1)) + 1e-3 * np.random.default_rng(1).standard_normal((9 * len(table), 2))
    own = discrepancy(dataclasses.replace(noisy, points=fit.Points(many, noisy.log_loss(many), np.ones(len(many)))))
    assert isinstance(own, Discrepancy)
    assert len(own.log_x) == MOST


def test_weights_say_how_noise_differs(table):
    """Rows of three times the noise have a third, or a ninth, of the weight; sigma is the noise of the others."""
    random = np.random.default_rng(2)
    scale = np.where(np.arange(len(table)) % 2 == 0, 3.0, 1.0)
    base = fit_at_truth(table, table.log_loss)
    for objective in (HuberLog(), SquaredLog()):
        weights = scale**-objective.power
        points = dataclasses.replace(
            base.points, log_loss=table.log_loss + 0.01 * scale * random.standard_normal(len(table)), weights=weights
        )
        own = discrepancy(dataclasses.replace(base, points=points, objective=objective))
        assert sorted(own.scale.tolist()) == pytest.approx(sorted(scale.tolist()))
        assert own.sigma == pytest.approx(0.01, rel=0.3)


def test_the_drift_of_an_exponent_widens_with_the_distance_and_vanishes_on_a_dense_power_law():
    log_c = np.log(10.0) * np.arange(17, 22.0)
    mean, sd = drift.extrapolate(log_c, 0.5 * log_c - 1, np.full(5, 0.02), log_c[-1] + np.log([2.0, 8.0, 30.0]))
    np.testing.assert_allclose(mean, 0.5 * (log_c[-1] + np.log([2.0, 8.0, 30.0])) - 1, atol=0.01)
    assert np.all(np.diff(sd) > 0)
    inside = drift.extrapolate(log_c, 0.5 * log_c - 1, np.full(5, 0.02), log_c[2:3])[1]
    assert inside[0] < sd[0]


def test_an_exponent_that_may_drift_holds_the_scatter_of_the_optima():
    """80% intervals hold a true exponent where optima scatter by more than their own standard deviations say; those of the noise do not."""
    random, log_c, sd, reach = np.random.default_rng(0), np.log(2.2) * np.arange(6.0), np.full(6, 0.02), 1.2816
    held, alone = 0, reach * 0.02 / np.sqrt(np.sum((log_c - log_c.mean()) ** 2))
    for _ in range(60):
        value, spread = drift.exponent(log_c, 0.5 * log_c + 0.06 * random.standard_normal(6), sd)
        held += abs(value - 0.5) < reach * spread
    assert 0.65 <= held / 60 <= 0.95  # 80% within three standard errors
    assert spread * reach > alone


def test_an_exponent_that_may_drift_is_that_of_exact_optima_in_any_unit():
    log_c = np.log(10.0) * np.array([17.0, 17.4, 18.1, 19.0])
    value, spread = drift.exponent(log_c, 0.48 * log_c - 3, np.full(4, 0.02))
    assert value == pytest.approx(0.48, abs=1e-9)
    assert drift.exponent(log_c + 5, 0.48 * log_c - 9, np.full(4, 0.02)) == pytest.approx((value, spread), rel=1e-9)


def test_the_correlation_is_that_of_a_process_with_two_derivatives():
    """Matern's 5/2 by its spectral density 1 / (5 + w^2)^3."""
    d = np.array([0.0, 0.3, 1.0, 2.5])
    whole = integrate.quad(lambda w: (5 + w * w) ** -3, 0, np.inf)[0]
    spectral = [integrate.quad(lambda w, at=at: np.cos(w * at) * (5 + w * w) ** -3, 0, 200)[0] / whole for at in d]
    np.testing.assert_allclose(matern(d), spectral, atol=1e-8)


def test_rows_that_repeat_another_say_nothing_new(table, noisy):
    """Copies, exact or rounded, leave the law's own error and its forecasts as they were."""
    points, rounded = noisy.points, np.repeat([0, 1e-5], len(table))
    doubled = fit.Points(np.tile(points.log_x, (2, 1)), np.tile(points.log_loss, 2) + rounded, np.ones(2 * len(table)))
    twice = dataclasses.replace(noisy, points=doubled)
    at = points.log_x[:3] + 1.0
    one, two = (discrepancy(made).predict(at) for made in (noisy, twice))
    np.testing.assert_allclose(two.total, one.total, rtol=2e-3)
    np.testing.assert_allclose(two.shift, one.shift, atol=2e-5)
    assert two.degrees == one.degrees
