"""Laws of N, D and further inputs at fixed values of these, and laws of other coordinates of N and D: how they split compute."""

import math

import numpy as np
import pytest

from lm.errors import UserError
from lm.scaling import coverage
from lm.scaling.fits import frontier, solver
from lm.scaling.fitted_law import FittedLaw
from lm.scaling.laws import catalogue
from lm.scaling.laws.pinned import Pinned
from lm.scaling.planning import cells, optimum
from lm.scaling.runs import Columns, from_frame
from tests.scaling import known

CONSTRAINED = np.array([1.8, 480.0, 2100.0, 0.35, 0.37, 15.0, 5.0])  # E, A, B, alpha, beta, R_D, R_N
FLOPS = 1e21


def fitted(name, values, **columns):
    """A fitted law that sits on the truth, of 36 rows around the compute-optimal sizes of three budgets."""
    c = np.repeat([1e19, 1e20, 1e21], 12)
    n = np.tile(np.geomspace(0.1, 10, 12), 3) * np.sqrt(c / 120)
    frame = {"N": n, "D": c / 6 / n, "loss": np.ones(36)} | {key: np.full(36, value) for key, value in columns.items()}
    runs = from_frame(frame, Columns(inputs={key: key for key in columns}))
    design = coverage.Design(runs, catalogue.law(name), np.array(values), cells.Constant(1e-3))
    sampled = {key: (float(column.min()), float(column.max())) for key, column in runs.inputs.items()}
    one = FittedLaw(known.fit_of(design), design.values, np.tile(design.values, (20, 1)), "none", 0.8, sampled)
    return one, frontier.cost_of(runs), runs


def lowest(of):
    """The size of least loss at FLOPS, on a grid of sizes 1e-4 apart in log N."""
    log_n = np.arange(math.log(1e7), math.log(1e12), 1e-4)
    return float(np.exp(log_n[np.argmin(of(np.exp(log_n), FLOPS / 6 / np.exp(log_n)))]))


def test_a_law_of_unique_tokens_splits_compute_once_they_are_fixed():
    unique = 1e9
    one, cost, _ = fitted("data_constrained", CONSTRAINED, U=unique)
    at = optimum.pinned(one, {"U": unique})
    assert at.law.inputs == ("N", "D")
    assert "U = 1e+09" in at.law.equation

    def loss(n, d):
        return solver.loss(one.law, CONSTRAINED, np.stack([n, d, np.full_like(n, unique)], axis=1))

    got = optimum.best(at, cost, FLOPS)
    assert got.n.value == pytest.approx(lowest(loss), rel=3e-3)  # a flat minimum: losses equal to 1e-10
    assert got.loss.value == pytest.approx(float(loss(np.array([got.n.value]), np.array([got.d.value]))[0]), rel=1e-9)
    curve = optimum.iso_loss(at, cost, got.loss.value * 1.05)
    np.testing.assert_allclose(loss(np.array(curve.n), np.array(curve.d)), got.loss.value * 1.05, rtol=1e-9)


def test_with_more_unique_tokens_than_are_read_it_is_hoffmanns_law():
    """The fixed input keeps the values that were measured at a fit's points."""
    one, cost, runs = fitted("data_constrained", CONSTRAINED, U=1e9)
    got = optimum.best(optimum.pinned(one, {"U": 1e16}), cost, FLOPS)
    _, a, b, alpha, beta = CONSTRAINED[:5]
    assert got.n.value == pytest.approx((alpha * a / (beta * b)) ** (1 / (alpha + beta)) * (FLOPS / 6) ** (beta / (alpha + beta)), rel=1e-3)
    pinned = optimum.pinned(one, {"U": 1e16})
    np.testing.assert_allclose(pinned.fit.log_loss(runs.log_x(("N", "D", "U"))), one.fit.log_loss(runs.log_x(("N", "D", "U"))), rtol=1e-12)


def test_coordinates_of_a_pinned_law_are_those_of_the_law():
    law = catalogue.law("data_constrained")
    pinned = Pinned(law, (("U", 1e10),))
    centre = np.log([1e9, 2e10])
    theta = pinned.coordinates(CONSTRAINED, centre)
    np.testing.assert_allclose(pinned.natural(theta, centre), CONSTRAINED, rtol=1e-12)
    places = np.log([[1e9, 5e10], [3e9, 1e11]])
    direct = solver.loss(law, CONSTRAINED, np.exp(np.insert(places, 2, math.log(1e10), axis=1)))
    np.testing.assert_allclose(np.exp(solver.predict(pinned, theta[None], pinned.design(places, centre))[0]), direct, rtol=1e-9)


def test_a_law_of_compute_and_tokens_per_parameter_splits_at_one_ratio():
    """The minimum of a M^eta + b M^-eta over M: (b / a)^(1 / (2 eta)), whatever C."""
    a, b, eta = 50.0, 900.0, 0.15
    one, cost, _ = fitted("over_training", [1.8, a, b, eta])
    for flops in (1e19, 1e23):
        got = optimum.best(one, cost, flops)
        assert got.ratio.value == pytest.approx((b / a) ** (1 / (2 * eta)), rel=1e-4)
        assert 6 * got.n.value * got.d.value == pytest.approx(flops, rel=1e-9)


def test_kaplans_law_splits_where_its_two_slopes_meet():
    values = [6.4e13, 1.8e13, 0.076, 0.103]
    one, cost, _ = fitted("kaplan", values)
    got = optimum.best(one, cost, FLOPS)
    nc, dc, alpha_n, alpha_d = values
    ratio = (nc / got.n.value) ** (alpha_n / alpha_d) * alpha_n / alpha_d / (dc / got.d.value)
    assert ratio == pytest.approx(1, rel=1e-4)


def test_only_further_inputs_of_the_law_can_be_fixed():
    one, _, _ = fitted("data_constrained", CONSTRAINED, U=1e9)
    for name in ("N", "V"):
        with pytest.raises(UserError, match=f"--fix {name}.*only U"):
            optimum.pinned(one, {name: 1e9})
    assert optimum.pinned(one, {}).law == one.law
