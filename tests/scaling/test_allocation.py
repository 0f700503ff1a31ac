"""Approach 2 beyond its budgets: N*, D* and loss by the lines through the minima."""

import contextlib
import io

import numpy as np
import pytest

from lm.scaling import __main__ as command
from lm.scaling import allocation, results
from lm.scaling.fits import solver
from lm.scaling.fits.frontier import optimum, six_nd
from lm.scaling.laws.law import Chinchilla
from lm.scaling.results import Refusal
from tests.scaling.test_table_analysis import write

LAW = np.array([406.4, 410.7, 1.69, 0.34, 0.34])  # equal exponents: profiles are symmetric, so that parabolas find N* itself
BUDGETS = np.array([1e17, 1e18, 1e19, 1e20, 1e21])


def fitted(path, *options):
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        status = command.main(["fit", str(path), "--budget=C", "--approach", "2", "--draws=50", "--json", *options])
    return status, results.from_json(out.getvalue())


@pytest.fixture(scope="module")
def csv(tmp_path_factory):
    return make(tmp_path_factory.mktemp("isoflop") / "runs.csv", BUDGETS)


def make(path, budgets, sigma=1e-4):
    """Nine sizes of each budget around N* of the law."""
    star = np.exp(optimum(LAW[None], six_nd(1e6, 1e12), np.log(budgets)).log_n[0])
    n = (star[:, None] * np.geomspace(1 / 3, 3, 9)).ravel()
    c = np.repeat(budgets, 9)
    noise = np.exp(sigma * np.random.default_rng(0).standard_normal(len(n)))
    loss = solver.loss(Chinchilla(), LAW, np.stack([n, c / 6 / n], axis=1)) * noise
    return write(path, {"N": n, "D": c / 6 / n, "C": c, "loss": loss})


def test_the_minima_carried_on_meet_the_law_that_made_them(csv):
    """With alpha = beta, L* = E + 2 A' / C^(alpha / 2): of the form that the lowest losses are fitted with."""
    status, made = fitted(csv, "--target", "1e19", "1e23")
    assert status == 0
    best = optimum(LAW[None], six_nd(1e6, 1e12), np.log([1e19, 1e23]))
    for i, at in enumerate(made.isoflop_targets):
        assert at.n.value == pytest.approx(np.exp(best.log_n[0, i]), rel=0.05)
        assert at.d.value == pytest.approx(np.exp(best.log_d[0, i]), rel=0.05)
        assert at.ratio.value == pytest.approx(at.d.value / at.n.value)
        assert at.loss.value == pytest.approx(np.exp(best.log_loss[0, i]), rel=5e-3)
        assert at.n.low < at.n.value < at.n.high
        assert at.loss.low < at.loss.value < at.loss.high
        own = at.with_error
        assert own.n.value == pytest.approx(at.n.value, rel=0.05)
        assert own.d.value / own.n.value == pytest.approx(own.ratio.value, rel=0.02)
        assert own.loss is None
    assert made.isoflop.a_with_error.value == pytest.approx(made.isoflop.a.value, abs=0.01)
    assert made.isoflop.b_with_error.covers(0.5)
    within, beyond = made.isoflop_targets
    assert beyond.with_error.n.high / beyond.with_error.n.low > within.with_error.n.high / within.with_error.n.low
    assert within.caution is None
    assert beyond.caution.kind == "extreme_extrapolation"
    assert beyond.n.high / beyond.n.low > within.n.high / within.n.low


def test_lowest_losses_find_a_known_law_and_never_a_negative_one():
    log_c = np.log(BUDGETS)
    known = np.array([[1.7, 60.0, 0.12], [0.0, 40.0, 0.06], [2.5, 0.0, 0.1]])
    e, a, gamma = (column[:, None] for column in known.T)
    at = np.log([1e19, 1e25])
    got = allocation.lowest_losses(log_c, e + a * np.exp(-gamma * log_c), at)
    np.testing.assert_allclose(got, e + a * np.exp(-gamma * at), rtol=1e-4)
    rising = allocation.lowest_losses(log_c, 2 + 0.01 * (log_c - log_c[0])[None], at)
    assert rising[0, 0] == pytest.approx(rising[0, 1])


def test_two_budgets_carry_no_line(tmp_path):
    _, made = fitted(make(tmp_path / "two.csv", BUDGETS[:2]), "--target", "1e23")
    (at,) = made.isoflop_targets
    assert all(isinstance(part, Refusal) for part in (at.n, at.d, at.loss, at.ratio, at.with_error.n, made.isoflop.a_with_error))


def test_sizes_that_all_but_coincide_are_no_points_of_a_curve_through_every_point(tmp_path):
    path = make(tmp_path / "near.csv", BUDGETS)
    lines = path.read_text(encoding="utf-8").splitlines()
    n, d, c, loss = map(float, lines[5].split(","))
    lines.append(f"{n * 1.0001!r},{d / 1.0001!r},{c!r},{loss * 1.01!r}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    _, made = fitted(path, "--curve=akima")
    first, *rest = made.isoflop.budgets
    assert isinstance(first.n_star, Refusal)
    assert not any(isinstance(budget.n_star, Refusal) for budget in rest)
