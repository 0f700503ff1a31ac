"""Strategies of resampling: what each draws, when it refuses, how an interval is read, and that it covers."""

import dataclasses
import math

import numpy as np
import pytest

from lm.errors import UserError
from lm.scaling import coverage, runs
from lm.scaling.intervals import bootstrap, noise, resampling
from lm.scaling.results import Estimate, Refusal
from tests.scaling import known

DESIGN = known.own_design()


def table(**columns):
    names = {key: key for key in ("run", "seed", "budget") if key in columns}
    return runs.from_frame(columns, runs.Columns(**names))


def test_rows_of_a_run_are_picked_together():
    made = known.fit_of(DESIGN)
    labels = tuple(f"run {i // 4}" for i in range(len(DESIGN.runs)))
    by_run = dataclasses.replace(DESIGN.runs, run=labels)
    losses, weights = resampling.ByRun().draw(made, by_run, 50, 0)
    assert losses is made.points.log_loss
    weights = np.asarray(weights)
    grouped = weights.reshape(50, -1, 4)
    assert np.all(grouped == grouped[:, :, :1])
    assert np.all(weights.sum(axis=1) == len(labels))
    _, rows = resampling.Rows().draw(made, by_run, 50, 0)
    assert np.any(np.ptp(np.asarray(rows).reshape(50, -1, 4), axis=2) > 0)


def test_residuals_stay_within_their_budget():
    """Budget i's residuals are i + 1 in size, so that a draw's size says where it came from; inflation is one factor for all."""
    exact = known.fit_of(DESIGN).points.log_loss
    rank = np.unique(DESIGN.runs.budget, return_inverse=True)[1] + 1.0
    sign = np.where(np.arange(len(rank)) % 2, 1.0, -1.0)
    made = known.fit_of(DESIGN, exact + 1e-3 * rank * sign)
    losses, weights = resampling.WithinBudget().draw(made, DESIGN.runs, 200, 0)
    assert weights is None
    size = np.sqrt(np.mean((losses - exact) ** 2, axis=0))
    np.testing.assert_allclose(size / size[0], rank, rtol=0.3)
    # inflated for five parameters of 28 rows and for the mean of 7 that is taken off, which leaves 48/49 of signs of 4 and 3
    assert np.mean(size / rank) / 1e-3 == pytest.approx(math.sqrt(48 / 49 / (1 - 5 / 28) / (1 - 1 / 7)), rel=0.02)


def test_parametric_noise_has_the_models_size():
    exact = known.fit_of(DESIGN)
    losses, weights = resampling.Noise(resampling.PORIAN).draw(exact, DESIGN.runs, 4000, 0)
    expected = resampling.PORIAN.sigma(np.log(DESIGN.runs.c), exact.points.log_loss)
    np.testing.assert_allclose(losses.std(axis=0), expected, rtol=0.06)
    assert weights is None


def test_porians_sigma_is_a_power_of_the_loss_between_its_ends():
    at = np.log([2.0, 3.0, math.sqrt(21.0), 7.0, 9.0])
    np.testing.assert_allclose(resampling.PORIAN.sigma(at, at), [0.002, 0.002, 0.01, 0.05, 0.05], rtol=1e-12)


def test_sigma_from_the_seeds_of_a_table():
    """40 cells with three seeds: the sd of an estimate with 80 degrees of freedom is 8%."""
    random = np.random.default_rng(0)
    n = np.repeat(np.geomspace(1e6, 1e8, 40), 3)
    loss = 3.0 * np.exp(0.01 * random.standard_normal(120))
    made = noise.fit_noise(table(N=n, D=20 * n, loss=loss, seed=["1", "2", "3"] * 40))
    assert made.dof == 80
    assert abs(made.sigma(np.log(1e16)) / 0.01 - 1) < 0.3
    assert isinstance(noise.fit_noise(table(N=n, D=20 * n, loss=loss, seed=["1"] * 120)), Refusal)
    assert "--seed-column" in noise.fit_noise(table(N=n, D=20 * n, loss=loss)).reason


def test_strategies_say_when_they_cannot_answer_and_what_suffices():
    few = known.porian_design(resampling.PORIAN, known.PORIAN_BUDGETS[:2])
    made = known.fit_of(few)
    refused = resampling.Rows().refusal(made, few.runs)
    assert refused.kind == "interval"
    assert "14 rows" in refused.reason
    assert "20 suffice" in refused.reason
    assert resampling.Rows().refusal(known.fit_of(DESIGN), DESIGN.runs) is None
    two = dataclasses.replace(DESIGN.runs, run=tuple(f"{i % 2}" for i in range(len(DESIGN.runs))))
    assert "2 runs are too few" in resampling.ByRun().refusal(known.fit_of(DESIGN), two).reason
    thin = dataclasses.replace(DESIGN.runs, budget=np.arange(1.0, 1 + len(DESIGN.runs)))
    assert "add sizes" in resampling.WithinBudget().refusal(known.fit_of(DESIGN), thin).reason
    with pytest.raises(UserError, match="--budget=COLUMN"):
        resampling.WithinBudget().draw(made, dataclasses.replace(few.runs, budget=None), 10, 0)
    with pytest.raises(UserError, match="--seed-column=COLUMN"):
        resampling.Noise().resolve(few.runs, noise.fit_noise(few.runs))


def test_residuals_far_beyond_the_seed_noise_refuse_the_parametric_interval():
    exact = known.fit_of(DESIGN).points.log_loss
    sign = np.where(np.arange(len(exact)) % 2, 1.0, -1.0)
    assert resampling.Noise(known.Flat()).refusal(known.fit_of(DESIGN, exact + 0.005 * sign), DESIGN.runs) is None
    refused = resampling.Noise(known.Flat()).refusal(known.fit_of(DESIGN, exact + 0.05 * sign), DESIGN.runs)
    assert "7.7 times the noise model's" in refused.reason  # .05 / .0072 sqrt(28 / 23)


def test_percentiles_leave_the_same_share_on_either_side():
    """Of 99 draws and a truth from one distribution the truth lies between the 10th and the 90th draw in 80 of 100 cases."""
    made = bootstrap.estimate(50.0, np.random.default_rng(0).permutation(np.arange(1.0, 100.0)), 0.8, "")
    assert (made.low, made.high) == pytest.approx((10.0, 90.0))
    assert bootstrap.estimate(1.0, np.array([1.0, np.nan]), 0.8, "").refused.kind == "interval"


def test_bca_without_bias_and_acceleration_is_the_percentile_interval():
    draws = np.arange(1.0, 100.0)
    plain, corrected = bootstrap.estimate(50.0, draws, 0.8, ""), resampling.bca(50.0, draws, np.ones(9), 0.8, "")
    assert (corrected.low, corrected.high) == pytest.approx((plain.low, plain.high))


def test_bca_covers_a_variance_where_percentiles_do_not():
    """Efron's example: the variance of 20 normal numbers, 90%. Percentiles cover .77 of 4,000 studies, BCa .83; paired, 200 show it."""
    random, hits = np.random.default_rng(0), []
    for _ in range(200):
        x = random.standard_normal(20)
        draws = x[random.integers(0, 20, (399, 20))].var(axis=1)
        left_out = np.array([np.delete(x, i).var() for i in range(20)])
        answers = bootstrap.estimate(x.var(), draws, 0.9, ""), resampling.bca(x.var(), draws, left_out, 0.9, "")
        hits.append([answer.covers(1.0) for answer in answers])
    plain, corrected = np.mean(hits, axis=0)
    assert corrected > plain + 0.02


@pytest.mark.usefixtures("few_starts")
def test_intervals_cover_and_wrong_noise_does_not():
    """60 studies, nominal 80%: a standard error of 5.2%. With .6 of the true noise they cover .47 of 240 studies."""
    share = {"a": lambda p: p[:, 4] / (p[:, 3] + p[:, 4])}
    for factor, expected in ((1.0, 0.8), (0.6, 0.47)):
        noise_model = resampling.Noise(known.Flat(0.0072 * factor))
        (found,) = coverage.coverage(DESIGN, noise_model, share, studies=60, draws=59, levels=(0.8,))
        assert (found.quantity, found.studies) == ("a", 60)
        assert abs(found.share - expected) < 0.16
        assert (found.chance < 0.01) == (factor == 0.6)


def test_the_table_of_names_is_that_of_the_classes():
    for name, made in resampling.RESAMPLINGS.items():
        assert made().name, name
    assert resampling.RESAMPLINGS["rows_bca"]().bca
    assert isinstance(bootstrap.estimate(1.0, np.ones(9), 0.8, "m"), Estimate)
