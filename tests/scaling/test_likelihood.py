"""Likelihoods: the Gaussian is least squares, the Student shrugs at an outlier, their intervals cover what normal theory says."""

import dataclasses
import math

import numpy as np
import pytest
from scipy import stats

from lm.scaling import runs
from lm.scaling.coverage import Design
from lm.scaling.fits import constrained, solver
from lm.scaling.intervals import likelihood
from lm.scaling.laws.loss_laws import ComputePower
from lm.scaling.results import Estimate
from tests.scaling import known

LAW = ComputePower()
TRUTH = np.array([1.7, 30.0, 0.1])  # E, A, gamma
C = np.geomspace(1e15, 1e22, 32)  # as many rows as one padded table holds


def made(noise):
    """A fit that sits on the truth, of losses with this noise."""
    table = runs.from_frame({"N": np.sqrt(C / 120), "D": np.sqrt(C / 120) * 20, "loss": np.ones(len(C))})
    design = Design(table, LAW, TRUTH, known.Flat())
    exact = known.fit_of(design)
    return dataclasses.replace(exact, points=dataclasses.replace(exact.points, log_loss=exact.points.log_loss + noise))


NOISE = 0.005 * np.random.default_rng(1).standard_normal(len(C))


def test_the_gaussian_maximum_is_least_squares_with_its_density():
    best = likelihood.gaussian(made(NOISE))
    r = best.fit.residuals
    assert best.scale == pytest.approx(math.sqrt(np.mean(r**2)))
    assert best.log_likelihood == pytest.approx(stats.norm(scale=best.scale).logpdf(r).sum())
    assert np.sum(r**2) < np.sum(NOISE**2)  # lower than at the truth
    assert best.summary().aicc > 2 * 4 - 2 * best.log_likelihood


def test_the_student_maximum_is_its_densitys():
    best = likelihood.student(made(NOISE), 4.0)
    assert isinstance(best, likelihood.Likelihood)
    density = stats.t(4.0, scale=best.scale).logpdf(best.fit.residuals).sum()
    assert best.log_likelihood == pytest.approx(density)
    for factor in (0.99, 1.01):  # the scale is at its maximum
        assert stats.t(4.0, scale=best.scale * factor).logpdf(best.fit.residuals).sum() < best.log_likelihood


def test_an_outlier_moves_the_gaussian_and_not_the_student():
    spoiled = NOISE.copy()
    spoiled[5] += 0.2
    fits = [find(made(noise)) for find in (likelihood.gaussian, likelihood.student) for noise in (NOISE, spoiled)]
    moves = [abs(b.fit.natural["gamma"] - a.fit.natural["gamma"]) for a, b in (fits[:2], fits[2:])]
    assert moves[1] < 0.2 * moves[0]
    assert fits[3].log_likelihood > fits[1].log_likelihood + 10
    assert fits[3].degrees <= 3


def test_intervals_are_those_of_normal_theory():
    """An exponent whose law is nearly linear at this noise has a parabola for a profile: Wald's interval with n - k degrees of freedom.

    The coordinate of gamma is its logarithm, so that its sd is gamma times that of the coordinate.
    """
    best = likelihood.gaussian(made(NOISE))
    found = likelihood.interval(best, "gamma", constrained.parameter(LAW, "gamma"), 0.8).answer
    assert isinstance(found, Estimate)
    slope = solver.jacobian(LAW, best.fit.theta, best.fit.points.design(LAW))
    sd = found.value * math.sqrt(np.linalg.inv(slope.T @ slope)[2, 2]) * best.scale * math.sqrt(32 / 29)
    assert (found.high - found.low) / 2 == pytest.approx(1.2816 * sd, rel=0.05)
    assert found.method == likelihood.GAUSSIAN
    robust = likelihood.interval(likelihood.student(made(NOISE), 10.0), "gamma", constrained.parameter(LAW, "gamma"), 0.8).answer
    assert robust.low < found.value < robust.high
    assert robust.method == likelihood.STUDENT
