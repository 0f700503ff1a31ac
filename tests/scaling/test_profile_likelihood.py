"""Profiles of parameters and derived quantities: held fits are constrained optima, cut-offs are calibrated, flat ends refused."""

import dataclasses
import math

import numpy as np
import pytest
from scipy.optimize import minimize

from lm.scaling.fits import constrained, fit, frontier
from lm.scaling.intervals import profile_likelihood, resampling
from lm.scaling.results import Estimate
from tests.scaling import known

DESIGN = known.own_design()
FLOPS = (float(DESIGN.runs.c.min()), float(DESIGN.runs.c.max()))
COST = frontier.six_nd(DESIGN.runs.n.min(), DESIGN.runs.n.max())
KINDS = ("a", "n", "d", "ratio", "loss")


@pytest.fixture(scope="module")
def made():
    """The fit of one noisy study, begun at the truth."""
    start = known.fit_of(DESIGN, DESIGN.simulate(1, 3)[0])
    ends = fit.refit(start, start.points.log_loss, extra=0)
    return dataclasses.replace(start, theta=ends.theta[0], value=float(ends.value[0]))


def target(kind):
    return constrained.Derived(kind, FLOPS, COST)


def natural(made, theta):
    return made.law.natural(theta, made.points.centre)


def test_a_held_exponent_is_the_optimum_under_its_closed_form(made):
    """Under C = 6 N D a = beta / (alpha + beta): putting beta in terms of alpha and a leaves four free coordinates."""
    of = target("a")
    value = float(of.of(made.law, natural(made, made.theta[None]))[0])
    theta = natural(made, made.theta[None])[0]
    assert value == pytest.approx(theta[4] / (theta[3] + theta[4]), abs=1e-6)
    asked = value + 0.02
    ends = constrained.minimise(made, of, np.array([asked]), made.points.log_loss, made.points.weights, made.theta[None])
    assert float(of.of(made.law, natural(made, ends.theta))[0]) == pytest.approx(asked, abs=1e-4)

    def objective(z):
        full = np.array([*z[:4], asked * z[3] / (1 - asked)])
        r = made.log_loss(made.points.log_x, full[None])[0] - made.points.log_loss
        clipped = np.clip(r, -1e-3, 1e-3)
        return 1e6 * float(np.sum(clipped * (r - 0.5 * clipped)))

    best = minimize(objective, ends.theta[0, :4], method="Nelder-Mead", options={"maxfev": 2000, "fatol": 1e-8, "adaptive": True})
    assert 1e6 * ends.value[0] == pytest.approx(best.fun, rel=1e-4)


def test_every_derived_quantity_is_held_where_it_is_asked_to_be(made):
    for kind in KINDS:
        of = target(kind)
        value = float(of.of(made.law, natural(made, made.theta[None]))[0])
        step = 0.005 if kind == "loss" else 0.03
        asked = value + step * np.array([-1.0, 0.0, 1.0])
        ends = constrained.minimise(made, of, asked, made.points.log_loss, made.points.weights, np.tile(made.theta, (3, 1)))
        np.testing.assert_allclose(of.of(made.law, natural(made, ends.theta)), asked, atol=2e-3 * step)
        assert ends.value[1] == pytest.approx(made.value, rel=1e-6)
        assert min(ends.value[0], ends.value[2]) > made.value * (1 + 1e-3)


def test_n_d_and_their_ratio_share_one_profile(made):
    """At one C all three say where the optimum lies, so that equal moves of it cost the same."""
    rises = []
    for kind, move in (("n", 0.05), ("d", -0.05), ("ratio", -0.1)):
        of = target(kind)
        value = float(of.of(made.law, natural(made, made.theta[None]))[0])
        rises.append(profile_likelihood.constrained_rise(made, of, value + move, made.points.log_loss[None], np.array([made.value]))[0])
    np.testing.assert_allclose(rises, rises[0], rtol=1e-3)


def test_calibrated_intervals_hold_their_optimum_and_their_ends_rise_to_the_cutoff(made):
    losses = profile_likelihood.simulated(made, DESIGN.runs, resampling.Noise(known.Flat()), 60, 0)
    targets = {
        "alpha": constrained.parameter(made.law, "alpha"),
        "A": constrained.parameter(made.law, "A"),
        "N*": target("n"),
        "loss": target("loss"),
    }
    found = profile_likelihood.intervals(made, targets, losses)
    for name, interval in found.items():
        answer = interval.answer
        assert isinstance(answer, Estimate), name
        assert answer.low < answer.value < answer.high
        assert answer.method == profile_likelihood.PROFILE
        value = np.log(answer.high) if targets[name].logarithm else answer.high
        rise = profile_likelihood.constrained_rise(made, targets[name], float(value), made.points.log_loss[None], np.array([made.value]))[0]
        assert rise == pytest.approx(interval.cutoff, rel=0.25), name
    by_draws = np.exp(target("n").of(made.law, natural(made, fit.refit(made, losses, extra=0).theta)))
    low, high = np.quantile(by_draws, [0.1, 0.9])
    widths = math.log(found["N*"].answer.high / found["N*"].answer.low), math.log(high / low)
    assert 0.5 < widths[0] / widths[1] < 2.0  # another interval of the same thing


def test_a_flat_profile_is_refused():
    """A rise that stops below the cut-off on one side bounds nothing there."""
    values = np.linspace(-1, 1, 19)
    rise = np.where(values > 0, 0.5 * np.minimum(values, 0.5), values**2)
    one = profile_likelihood.read("E", constrained.Parameter("E", False), 0.0, values, rise, 0.5, 0.8, "m")
    assert one.answer.kind == "unidentified"
    assert "the profile of E is flat: 1 fits nearly as well" in one.answer.reason
    both = profile_likelihood.read("E", constrained.Parameter("E", False), 0.0, values, values**2, 0.25, 0.8, "m")
    assert (both.answer.low, both.answer.high) == pytest.approx((-0.5, 0.5), abs=1e-9)


def test_simulated_losses_follow_the_strategy_or_the_residuals(made):
    fitted = made.log_loss(made.points.log_x)
    wild = profile_likelihood.simulated(made, DESIGN.runs, resampling.Rows(), 400, 0) - fitted
    inflated = np.abs(made.residuals) / math.sqrt(1 - 5 / len(fitted))
    np.testing.assert_allclose(np.abs(wild), np.tile(inflated, (400, 1)), rtol=1e-9)
    noisy = profile_likelihood.simulated(made, DESIGN.runs, resampling.Noise(known.Flat(0.01)), 2000, 0) - fitted
    np.testing.assert_allclose(noisy.std(), 0.01, rtol=0.05)
