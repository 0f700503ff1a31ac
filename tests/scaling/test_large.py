"""Large tables: the same optimum and the same resamples as where every start and every resample sees Hessians of all rows.

A table is large here from 129 rows on, so that 420 rows are four chunks; `make nightly` takes 100,800 rows and the sizes of the code.
"""

import dataclasses
import os
from types import SimpleNamespace

import numpy as np
import pytest

from lm.errors import UserError
from lm.scaling import runs
from lm.scaling.fits import fit, large, solver
from lm.scaling.fits.objectives import AbsoluteLog, HuberLog
from lm.scaling.fits.picks import Picks
from lm.scaling.fitted_law import fit_runs, points_of
from lm.scaling.intervals import profile_likelihood, resampling
from lm.scaling.laws.loss_laws import ComputePower

ALL = os.environ.get("TABLES") == "all"
RUNS, POINTS = 21, 4800 if ALL else 20


@pytest.fixture(scope="module", autouse=True)
def small_chunks():
    """Programs of four chunks of 128 points, compiled in little time and for this file alone."""
    programs = (solver._compiled, large._gradient, large._second)
    with pytest.MonkeyPatch.context() as patch:
        if not ALL:
            patch.setattr(solver, "LARGE", 128)
            patch.setattr(large, "SCREEN", 63)
            patch.setattr(solver, "_OPTIONS", {"xla_backend_optimization_level": 0})
        for program in programs:
            program.cache_clear()
        yield
    for program in programs:
        program.cache_clear()


def curves():
    """Loss curves whose runs, and points, are off the law."""
    random = np.random.default_rng(0)
    n = np.repeat(np.geomspace(1e7, 1e9, RUNS), POINTS)
    d = np.tile(np.geomspace(1e8, 1e10, POINTS), RUNS)
    off = np.repeat(0.01 * random.standard_normal(RUNS), POINTS) + 0.003 * random.standard_normal(RUNS * POINTS)
    loss = (1.7 + 300 * (6 * n * d) ** -0.12) * np.exp(off)
    names = np.repeat([f"run {i}" for i in range(RUNS)], POINTS)
    return runs.from_frame({"N": n, "D": d, "loss": loss, "run": names}, runs.Columns(run="run"))


def test_a_large_table_gives_the_fit_and_the_draws_of_the_full_work(monkeypatch):
    """Against Newton steps that see all rows at once: the table itself, and each of its resamples."""
    table, law = curves(), ComputePower()
    assert len(table) > solver.LARGE
    made = fit_runs(table, law, HuberLog(), resampling.ByRun(), draws=12)
    points, theta = made.fit.points, made.fit.theta
    picks = resampling.ByRun().draw(made.fit, table, 12, 0)[1]
    weights = np.concatenate([points.weights[None], np.asarray(picks)])
    monkeypatch.setattr(solver, "LARGE", 10**6)
    starts = np.tile(theta + 0.01, (len(weights), 1))
    whole = solver.minimise(law, HuberLog(), points.design(law), points.log_loss, weights, starts, rough=False)
    assert np.all(whole.converged)
    np.testing.assert_allclose(theta, whole.theta[0], rtol=1e-6)
    np.testing.assert_allclose(made.fit.value, whole.value[0], rtol=1e-10)
    assert made.fit.gradient <= solver.SMALL
    assert made.fit.starts == 1 + len(law.starts(points.centre))
    assert made.fit.agreeing > 10
    np.testing.assert_allclose(made.projected.value, made.fit.value, rtol=1e-6)
    drawn = law.natural(whole.theta[1:], points.centre)
    assert np.sqrt(np.mean(((made.draws - drawn) / drawn.std(axis=0)) ** 2)) < 3 * large.CLOSE


def test_gradients_alone_reach_the_minimum_of_a_cost_with_a_kink():
    """Resamples under absolute errors, from the optimum under Huber's cost: lanes with Hessians of all rows end lower by 1e-4 at most."""
    law, points = ComputePower(), points_of(curves(), ComputePower())
    start = law.coordinates(np.array([[1.7, 300, 0.12]]), points.centre)
    _, picks = resampling.ByRun().draw(SimpleNamespace(points=points), curves(), 8, 0)
    ends = large.refit(law, points, AbsoluteLog(), start[0], points.log_loss, picks)
    near = solver.minimise(law, AbsoluteLog(), points.design(law), points.log_loss, np.asarray(picks), ends.theta, rough=False)
    assert np.all(ends.value <= near.value * (1 + 1e-4))
    assert np.all(ends.converged)


def test_resampled_losses_are_fitted_as_resampled_rows_are():
    """Losses drawn by the wild bootstrap, against Newton steps."""
    points, law = points_of(curves(), ComputePower()), ComputePower()
    made = fit.fit(law, points, HuberLog())
    losses = profile_likelihood.wild(made, 12, 0)
    ends = fit.refit(made, losses)
    starts = np.tile(made.theta, (12, 1))
    whole = solver.minimise(law, HuberLog(), points.design(law), losses, points.weights, starts, rough=False)
    assert np.all(ends.converged)
    assert np.sqrt(np.mean(((ends.theta - whole.theta) / whole.theta.std(axis=0)) ** 2)) < 3 * large.CLOSE


def test_the_part_that_starts_see_spans_every_run():
    points = points_of(curves(), ComputePower())
    seen = large.sample(dataclasses.replace(points, log_x=np.log(np.stack([curves().n, curves().d], axis=1))))
    assert len(seen) == large.SCREEN
    per_run = np.bincount(seen // POINTS, minlength=RUNS)
    assert per_run.min() >= large.SCREEN // RUNS - 1
    assert per_run.max() <= large.SCREEN // RUNS + 2


def test_picks_are_the_weights_that_they_stand_for():
    counts, units, weights = np.array([[2, 0, 1], [0, 3, 0]]), np.array([0, 0, 1, 2]), np.array([1.0, 2.0, 3.0, 4.0])
    expected = [[2, 4, 0, 4], [0, 0, 9, 0]]
    np.testing.assert_array_equal(np.asarray(Picks(counts, units, weights)), expected)
    np.testing.assert_array_equal(Picks(counts, units, weights).rows(slice(1, 2)), expected[1:])


def test_a_fit_for_each_row_left_out_is_refused():
    with pytest.raises(UserError, match="interval=rows"):
        fit_runs(curves(), ComputePower(), HuberLog(), resampling.RowsBCa(), draws=10)
