"""Tests show where curves through a profile are lowest, which minima are none, and the two regressions of the minima."""

import csv
import dataclasses
import os
import pathlib

import numpy as np
import pytest

from lm.scaling.approaches import curves, isoflop, profiles
from lm.scaling.approaches.profiles import Profile
from lm.scaling.results import Estimate, Refusal
from lm.scaling.runs import Columns, from_frame
from lm.scaling.settings import AnalysisSettings

DATA = pathlib.Path(os.environ.get("SCALING_DATA", pathlib.Path(__file__).parents[3] / "shared" / "scaling_data"))
PORIAN = DATA / "porian"
ABSENT = f"{PORIAN} is not there (SCALING_DATA names another folder); its source is github.com/formll/resolving-scaling-law-discrepancies"


def profile(log_n, loss):
    k = len(log_n)
    ids = tuple((str(i),) for i in range(k))
    return Profile(1e18, np.log(1e18), ((),) * k, ids, log_n, np.log(1e18 / 6) - log_n, np.log(loss), np.ones(k), np.eye(k))


U = np.linspace(-2.0, 2.0, 9)


@pytest.mark.parametrize(("kind", "slope3"), [("parabola", 0.0), ("cubic", 0.07), ("cubic", -0.07), ("cubic", 1e-13)])
def test_a_polynomial_gives_its_own_minimum(kind, slope3):
    """loss = 3 + (u - .4)^2 + slope3 (u - .4)^3 has its local minimum at .4 exactly."""
    made = curves.through(profile(U + 20, 3 + (U - 0.4) ** 2 + slope3 * (U - 0.4) ** 3), np.ones(9), kind)
    found = curves.lowest(made, made.coefficients[None])
    assert not found.lost[0]
    np.testing.assert_allclose([found.u[0], found.loss[0]], [0.4, 3], atol=1e-9)
    np.testing.assert_allclose(curves.values(made, U), made.fitted, rtol=1e-12)


def test_akima_runs_through_its_points_and_finds_the_minimum_between_them():
    loss = np.exp(1 + 0.1 * (U - 0.37) ** 2)
    made = curves.through(profile(U + 20, loss), np.ones(9), "akima")
    found = curves.lowest(made, made.coefficients[None])
    np.testing.assert_allclose(curves.values(made, U), loss, rtol=1e-12)
    assert abs(found.u[0] - 0.37) <= 0.5 / 25  # one place of its grid
    assert not found.lost[0]


@pytest.mark.parametrize("kind", curves.NAMES)
@pytest.mark.parametrize(("loss", "end"), [(4 + U, -2), (4 - U, 2)])
def test_a_minimum_at_the_edge_is_lost_and_stands_there(kind, loss, end):
    made = curves.through(profile(U + 20, loss), np.ones(9), kind)
    found = curves.lowest(made, made.coefficients[None])
    assert found.lost[0]
    assert found.u[0] == pytest.approx(end)


def test_akima_leaves_no_residuals_to_draw_an_interval_from():
    settings = AnalysisSettings(curve="akima", draws=50)
    made = isoflop.fit_budget(profile(U + 20, 3 + (U - 0.4) ** 2), np.ones(9), None, settings, 50).result
    assert isinstance(made.n_star, Estimate)
    assert made.n_star.low is None
    assert "residuals" in made.n_star.refused.reason


def test_the_weighted_regression_follows_the_budgets_that_are_sure():
    """Four budgets on N* ~ C^.5, and one far off it whose draws spread a hundred times as wide."""
    random = np.random.default_rng(0)
    budget, good = isoflop.fit_budget(profile(U, 1 + U**2), np.ones(9), None, AnalysisSettings(), 10).result, []
    for i, log_c in enumerate(np.log([1e18, 1e19, 1e20, 1e21, 1e22])):
        off, sd = (1.0, 1.0) if i == 4 else (0.0, 0.01)
        log_n = 0.5 * log_c + off + sd * random.standard_normal(400)
        draws = isoflop.Draws(log_n, log_c - log_n, np.ones(400), np.zeros(400, bool), np.zeros(400, bool))
        star = Estimate(float(np.exp(0.5 * log_c + off)), None, None, 0.8, "")
        good.append(isoflop.Minimum(dataclasses.replace(budget, n_star=star, flops=float(np.exp(log_c))), draws, None))
    plain, weighted = (isoflop.regress(good, "n_star", regression=kind)[1][1] for kind in ("plain", "weighted"))
    assert abs(plain - 0.5) > 0.05
    assert weighted == pytest.approx(0.5, abs=2e-3)


@pytest.mark.skipif(not PORIAN.exists(), reason=ABSENT)
def test_fifteen_published_exponents_by_akima():
    """Porian et al. 2024: their plain regression. Their noise bootstrap also drops budgets; .006 is what that moves an exponent by."""
    rows = list(csv.DictReader((PORIAN / "isoflop_points.csv").open()))
    published = {row["config"]: float(row["a_basic"]) for row in csv.DictReader((PORIAN / "published_fits.csv").open())}
    assert len(published) == 15
    for config, a in published.items():
        table = {name: [float(row[name]) for row in rows if row["config"] == config] for name in ("n", "tokens", "loss", "flops")}
        cells = from_frame(table, Columns("n", "tokens", "loss", budget="flops")).cells()
        settings = AnalysisSettings(curve="akima", draws=2)
        made, _ = isoflop.fit_isoflop(profiles.by_budget(cells), cells, Refusal("no_replicas", ""), settings)
        assert made.a.value == pytest.approx(a, abs=0.006), config
