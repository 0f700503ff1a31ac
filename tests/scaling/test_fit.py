"""Laws, objectives, the solver and the multi-start fit."""

import csv
import dataclasses
import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.scaling.fits import solver
from lm.scaling.fits.fit import Points, fit, refit
from lm.scaling.fits.objectives import HuberLog, SquaredLog, SquaredRaw
from lm.scaling.laws.law import Chinchilla, TiedChinchilla
from lm.scaling.results import Refusal

DATA = os.environ.get("SCALING_DATA", pathlib.Path(__file__).parents[3] / "shared" / "scaling_data")
EPOCH = pathlib.Path(DATA, "epoch_chinchilla", "svg_extracted_data.csv")
TRUTH = np.array([406.4, 410.7, 1.69, 0.34, 0.28])  # Hoffmann et al. 2022, eq. 10
pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")
ABSENT = f"{EPOCH} is not there (SCALING_DATA names another folder); its source is github.com/epoch-research/analyzing-chinchilla"


def points(natural=TRUTH, n=30, sigma=0.0, law=None):
    random = np.random.default_rng(1)
    log_x = np.stack([random.uniform(np.log(5e7), np.log(1e10), n), random.uniform(np.log(1e9), np.log(5e11), n)], axis=1)
    centre = log_x.mean(axis=0)
    law = law or Chinchilla()
    log_loss = solver.predict(law, law.coordinates(natural, centre)[None], log_x - centre)[0]
    return Points(log_x, log_loss + sigma * random.standard_normal(n), np.ones(n))


def epoch(below_flops=np.inf):
    """The points of Besiroglu et al. 2024 without the five highest losses; D = C / 6N."""
    rows = list(csv.DictReader(EPOCH.open()))
    n, c, loss = (np.array([float(row[name]) for row in rows]) for name in ("Model Size", "Training FLOP", "loss"))
    keep = np.sort(np.argsort(loss)[:-5])
    keep = keep[c[keep] < below_flops]
    return Points(np.log(np.stack([n, c / (6 * n)], axis=1))[keep], np.log(loss[keep]), np.ones(len(keep)))


def test_the_law_is_its_formula_and_coordinates_invert():
    log_x = np.log([[1e8, 2e9], [3e9, 9e10]])  # of different D / N: an exchange of N and D shows
    centre = log_x.mean(axis=0)
    law = Chinchilla()
    theta = law.coordinates(TRUTH, centre)
    by_hand = [1.69 + 406.4 / n**0.34 + 410.7 / d**0.28 for n, d in np.exp(log_x)]
    np.testing.assert_allclose(np.exp(solver.predict(law, theta[None], log_x - centre)[0]), by_hand, rtol=1e-13)
    np.testing.assert_allclose(law.natural(theta, centre), TRUTH, rtol=1e-13)
    assert len(law.starts(centre)) == 4500
    assert len(TiedChinchilla().starts(centre)) == 900


@pytest.mark.parametrize("objective", [HuberLog(), SquaredLog(), SquaredRaw()])
def test_pull_is_the_slope_of_the_cost_over_the_residual(objective):
    with jax.enable_x64(True):
        r = jnp.array([-0.3, -2e-3, -5e-4, 7e-4, 0.1], jnp.float64)
        slope = jax.vmap(jax.grad(lambda x: objective.cost(x[None])[0]))(r)
        np.testing.assert_allclose(slope, objective.pull(r) * r, rtol=1e-12)


def test_the_library_leaves_the_precision_of_jax_alone():
    solver.predict(Chinchilla(), np.ones((1, 5)), np.ones((2, 2)))
    assert jnp.ones(1).dtype == jnp.float32


def test_five_parameters_come_back_from_noise_free_points():
    made = fit(Chinchilla(), points(), HuberLog())
    np.testing.assert_allclose(list(made.natural.values()), TRUTH, rtol=1e-6)
    assert made.starts == 4500
    assert made.agreeing > 50


def test_the_optimum_is_a_minimum_and_every_resample_ends_at_its_own():
    """From the optimum, 40 Gaussian directions of three sizes all raise the objective; a resample's fit is no worse than the truth."""
    random = np.random.default_rng(0)
    data = points(sigma=0.01)
    made = fit(Chinchilla(), data, HuberLog())
    assert made.gradient < 1e-7  # scaled: 1e-14 of the objective

    def total(theta, log_loss):
        r = np.abs(solver.predict(made.law, theta, data.design(made.law)) - log_loss)
        return np.sum(np.where(r < 1e-3, r**2 / 2, 1e-3 * r - 5e-7), axis=-1)

    steps = np.concatenate([size * random.standard_normal((40, 5)) for size in (1e-6, 1e-3, 0.1)])
    np.testing.assert_allclose(total(made.theta[None], data.log_loss), made.value, rtol=1e-12)
    assert np.all(total(made.theta + steps, data.log_loss) >= made.value * (1 - 1e-12))
    shaken = made.log_loss(data.log_x) + 0.01 * random.standard_normal((50, 30))
    ends = refit(made, shaken)
    assert np.all(ends.converged)
    assert np.all(ends.value <= total(made.theta[None], shaken))


def test_a_lane_that_stops_at_a_wall_has_not_converged():
    """Beyond alpha = .3 the law has no value: every step that lowers the objective crosses it. The same start without a wall converges."""

    @dataclasses.dataclass(frozen=True)
    class Walled(Chinchilla):
        def log_loss(self, theta, x):
            return jnp.where(theta[3] > 0.3, jnp.nan, 1.0) * Chinchilla().log_loss(theta, x)

    data = points()
    start = Chinchilla().coordinates(TRUTH * [1, 1, 1, 0.8, 1.1], data.centre)[None]
    for law, converged in ((Walled(), False), (Chinchilla(), True)):
        ends = solver.minimise(law, HuberLog(), data.design(law), data.log_loss, data.weights, start)
        assert np.isfinite(ends.value[0])
        assert bool(ends.converged[0]) is converged
        assert (ends.gradient[0] <= solver.SMALL) is np.bool_(converged)
    assert fit(Walled(), data, HuberLog()).kind == "not_converged"


def test_a_held_coordinate_stays():
    data = points()
    theta = Chinchilla().coordinates(TRUTH, data.centre)
    theta[3] = 0.5
    ends = solver.minimise(
        Chinchilla(), HuberLog(), data.design(Chinchilla()), data.log_loss, data.weights, theta[None], free=np.array([1, 1, 1, 0, 1], bool)
    )
    assert ends.theta[0, 3] == 0.5
    assert ends.value[0] > 1e-6


def test_a_fit_that_cannot_move_is_refused_as_not_having_left_its_start(few_starts):
    """Points of no weight have an objective of 0 everywhere."""
    assert fit(Chinchilla(), dataclasses.replace(points(), weights=np.zeros(30)), HuberLog()).kind == "start_not_left"


def test_a_rank_deficient_fit_and_too_few_points_are_refused():
    data = points(sigma=0.01)
    same_n = data.log_x.copy()
    same_n[:, 0] = same_n[0, 0]
    refused = fit(Chinchilla(), Points(same_n, data.log_loss, data.weights), HuberLog())
    assert isinstance(refused, Refusal)
    assert refused.kind in ("unidentified", "not_converged")
    few = Points(data.log_x[:5], data.log_loss[:5], data.weights[:5])
    assert fit(Chinchilla(), few, HuberLog()).kind == "too_few_points"


@pytest.fixture(scope="module")
def epoch_fit(few_starts_in_module):
    if not EPOCH.exists():
        pytest.skip(ABSENT)
    return fit(Chinchilla(), epoch(), HuberLog())


def test_epoch_240_points_reach_the_true_optimum(epoch_fit):
    """Besiroglu et al. 2024, replicated: the published point is not quite the minimum (objective 1.01864e-3 at it)."""
    made, data = epoch_fit, epoch_fit.points
    assert len(data.log_loss) == 240
    assert made.value <= 1.0182741e-3
    tolerance = {"E": (1.8172, 2e-4), "A": (477.8, 1), "B": (2143, 5), "alpha": (0.3473, 2e-4), "beta": (0.3672, 3e-4)}
    for name, (value, error) in tolerance.items():
        assert abs(made.natural[name] - value) < error, name


def test_epoch_row_bootstrap_spreads_as_published(epoch_fit):
    """The standard error of a = beta / (alpha + beta) over resampled rows: .020 +- .002 (Besiroglu et al. 2024, table 2)."""
    draws = np.random.default_rng(0).integers(0, 240, (400, 240))
    counts = np.stack([np.bincount(draw, minlength=240) for draw in draws]).astype(float)
    ends = refit(epoch_fit, epoch_fit.points.log_loss, counts, extra=0)
    a = ends.theta[:, 4] / (ends.theta[:, 3] + ends.theta[:, 4])
    assert abs(a.std() - 0.020) < 0.002


@pytest.mark.skipif(not EPOCH.exists(), reason=ABSENT)
def test_epoch_217_points_by_squares():
    """Residual sum of squares and exponents of the 217 points below 1e21 FLOPs, by Newton's steps from Hoffmann's parameters."""
    law, data = Chinchilla(), epoch(below_flops=1e21)
    start = law.coordinates(TRUTH, data.centre)[None]
    ends = solver.minimise(law, SquaredRaw(), data.design(law), data.log_loss, data.weights, start, rough=False)
    assert len(data.log_loss) == 217
    assert ends.converged[0]
    assert abs(ends.value[0] - 0.062414) < 1e-6
    natural = dict(zip(law.names, law.natural(ends.theta[0], data.centre), strict=True))
    assert abs(natural["alpha"] - 0.35106) < 1e-4
    assert abs(natural["beta"] - 0.45874) < 1e-4
