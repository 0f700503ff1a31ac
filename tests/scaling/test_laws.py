"""Every law of the catalogue is its published equation, and a law of one's own takes a few lines."""

import math
import types

import numpy as np
import pytest

from lm.scaling import diagnostics, runs
from lm.scaling.fits import solver
from lm.scaling.fits.fit import Points, fit
from lm.scaling.fits.objectives import HuberLog, SquaredLog
from lm.scaling.fitted_law import fit_runs
from lm.scaling.laws import catalogue
from lm.scaling.laws.formula import Formula
from lm.scaling.laws.further_laws import critical_tokens
from lm.scaling.laws.law import Chinchilla
from lm.scaling.laws.loss_laws import DataConstrained, NoIrreducible
from lm.scaling.laws.schedule_laws import TrainingCurve, curve_loss, curve_points
from lm.scaling.results import Refusal

N, D = 4e8, 8e9
E_16 = 1 / (1 / (15 + 1 / (1 / 1.847 - 1 / 314.478)) + 1 / 314.478)  # effective number of 16 experts routed by S-Base
N_HALF = 4e8 * (1 - math.exp(-8 / 2.6745)) * (1 - math.exp(-6 / 2.2102)) * (1 - math.exp(-4 / 0.9578))
LN_16 = math.log(16)
# Parameters of routed, granular, joint_experts, sparse, vocabulary and precision are published ones.
BY_HAND = {
    "chinchilla": ((406.4, 410.7, 1.69, 0.34, 0.28), (N, D), 1.69 + 406.4 / N**0.34 + 410.7 / D**0.28),
    "tied": ((400.0, 500.0, 1.7, 0.31), (N, D), 1.7 + 400 / N**0.31 + 500 / D**0.31),
    "no_irreducible": ((40.0, 60.0, 0.1, 0.12), (N, D), 40 / N**0.1 + 60 / D**0.12),
    "kaplan": ((6.4e13, 1.8e13, 0.076, 0.103), (N, D), ((6.4e13 / N) ** (0.076 / 0.103) + 1.8e13 / D) ** 0.103),
    "kaplan_steps": ((6.5e13, 2.1e3, 0.077, 0.76), (N, 1e4), (6.5e13 / N) ** 0.077 + (2.1e3 / 1e4) ** 0.76),
    "compute_power": ((1.7, 1000.0, 0.15), (1e20,), 1.7 + 1000 / 1e20**0.15),
    "over_training": ((1.5, 60.0, 180.0, 0.15), (1e20, 40.0), 1.5 + (60 * 40**0.15 + 180 / 40**0.15) / 1e20**0.15),
    "downstream": ((0.9, 2.0, 0.8), (2.5,), 0.9 - 2 * math.exp(-0.8 * 2.5)),
    "sigmoid": ((0.25, 0.7, 5.0, 1.0), (0.8,), 0.25 + 0.7 / (1 + math.exp(5 * (0.8 - 1.0)))),
    "width_depth": ((1.5, 8.0, 2.0, 8e4, 0.35, 0.46, 0.5), (768, 12, D), 1.5 + 8 / 768**0.35 + 2 / 12**0.46 + 8e4 / D**0.5),
    "width_depth_size": (
        (1.5, 4.0, 0.9, 500.0, 8e4, 0.35, 0.46, 0.39, 0.5),
        (768, 12, N, D),
        1.5 + 4 / 768**0.35 + 0.9 / 12**0.46 + 500 / N**0.39 + 8e4 / D**0.5,
    ),
    "routed": (
        (-0.082, -0.108, 0.009, 1.104, 1.847, 314.478),
        (N, 16),
        10**1.104 * N**-0.082 * E_16**-0.108 * N ** (0.009 * math.log10(E_16)),
    ),
    "granular": ((0.47, 18.1, 30.8, 2.1, 0.115, 0.147, 0.58), (N, D, 8), 0.47 + (2.1 / 8**0.58 + 18.1) / N**0.115 + 30.8 / D**0.147),
    "joint_experts": (
        (1.3637, 35.91, 35.98, 0.2285, -0.5529, 0.1889, 0.1775, 0.0098, 0.0259),
        (N, D, 16),
        35.91 * 16**0.2285 * N ** -(0.1889 - 0.0098 * LN_16) + 35.98 * 16**-0.5529 * D ** -(0.1775 + 0.0259 * LN_16) + 1.3637,
    ),
    "sparse": (
        (0.94, 16612.5, 5455.67, 0.4598, 17.26, 0.5962, 0.3954, -0.1666, 0.1603, 0.1595),
        (N, D, 0.1),
        16612.5 / N**0.5962 + 5455.67 / D**0.3954 + 0.4598 * 0.1**0.1666 + 17.26 / (0.1**0.1603 * N**0.1595) + 0.94,
    ),
    "vocabulary": (
        (5.533, 1.831 * 1e6**0.447, 0.196 * 1e6**0.671, 2.124 * 1e9**0.447, 0.447, 0.671),
        (N, 3e7, D),
        math.exp(1.831 / 400**0.447 + 0.196 / 30**0.671 + 2.124 / 8**0.447 - 5.533),
    ),
    "precision": (
        (2.7648, 4299.0, 18060.0, 0.4965, 0.4965, 2.6745, 2.2102, 0.9578, 0.0598, 0.5068, 0.3439, 0.5907),
        (N, D, 8, 6, 4, 3),
        2.7648 + 4299 / N_HALF**0.4965 + 18060 / D**0.4965 + 0.0598 * D**0.5068 / N**0.3439 * math.exp(-3 / 0.5907),
    ),
    "farseer": (
        (0.12, 0.42, 0.12, 88.0, -5.3, 0.1, 0.021, 0.3, 0.17),
        (N, D),
        math.exp(0.3 - 0.021 * N**0.17) + math.exp(88 / N**0.1 - 5.3) / D ** math.exp(0.42 - 0.12 * N**0.12),
    ),
    "reward_best_of_n": ((0.913, 0.122), (1.5,), math.exp(1.5 * (0.913 - 0.122 * 1.5))),
    "reward_rl": ((0.913, 0.122), (1.5,), math.exp(1.5 * (0.913 - 0.122 * math.log(1.5)))),
}
NEW = ("routed", "granular", "joint_experts", "sparse", "vocabulary", "precision", "farseer", "reward_best_of_n", "reward_rl")


@pytest.mark.parametrize("name", BY_HAND)
def test_a_law_is_its_equation_and_its_coordinates_invert(name):
    values, inputs, expected = BY_HAND[name]
    law = catalogue.law(name)
    assert law.equation
    assert law.source
    np.testing.assert_allclose(solver.loss(law, np.array(values), np.array([inputs])), [expected], rtol=1e-12)
    centre = np.log(np.array(inputs)) - 0.7
    theta = law.coordinates(np.array([values]), centre)
    np.testing.assert_allclose(law.natural(theta, centre), [values], rtol=1e-11)
    np.testing.assert_allclose(np.exp(solver.predict(law, theta, law.design(np.log([inputs]), centre))), [[expected]], rtol=1e-11)
    starts = law.starts(centre)
    assert np.all(np.isfinite(starts))
    assert starts.shape[1] == len(law.names) == len(values)


def test_repeated_data_are_worth_less_as_published():
    """Muennighoff et al. 2023: two check values with the published parameters; without repeats the law is Hoffmann's."""
    first = {"E": math.exp(0.6254804), "A": math.exp(6.255414), "B": math.exp(7.3049974), "alpha": 0.3526596, "beta": 0.3526596}
    law = DataConstrained(fixed=tuple(first.items()))
    assert law.names == ("R_D", "R_N")
    repeated = np.array([[6.34e9, 242e9, 25e9], [8.67e9, 178e9, 25e9]])
    np.testing.assert_allclose(solver.loss(law, np.array([15.387756, 5.309743]), repeated), [2.2256440890, 2.2269634075], atol=1e-9)
    once = np.array([[1e9, 30e9, 30e9]])  # fewer parameters than are optimal for 30e9 tokens
    plain = solver.loss(catalogue.law("tied"), np.array([first["A"], first["B"], first["E"], first["alpha"]]), once[:, :2])
    np.testing.assert_allclose(solver.loss(law, np.array([15.4, 5.3]), once), plain, rtol=1e-12)


@pytest.mark.parametrize("name", NEW)
def test_a_law_has_a_value_at_every_start_and_far_from_its_points(name):
    """So that no lane starts on a wall, and padding or a far forecast is a number."""
    law, at = catalogue.law(name), np.log(np.array(BY_HAND[name][1]))
    x = law.design(at + np.array([[-3.0], [0.0], [6.0]]), at)
    assert np.all(np.isfinite(solver.predict(law, law.starts(at), x)))


def test_what_laws_derive_from_published_parameters():
    """A quantized model gets worse beyond D_crit, rewards peak where their slope is 0, and routing stops helping at some size."""
    law = catalogue.law("precision")
    values = dict(zip(law.names, BY_HAND["precision"][0], strict=True))
    n, bits = 1e9, 4
    d = critical_tokens(types.SimpleNamespace(**values), n, bits)
    losses = solver.loss(law, list(values.values()), [(n, d * f, 16, 16, 16, bits) for f in (math.exp(-1e-3), 1, math.exp(1e-3), 0.5, 2)])
    assert losses[1] < min(losses[3:])
    assert d == pytest.approx(2.95e11, rel=0.005)
    assert abs(losses[2] - losses[0]) / 2e-3 < 1e-7  # dL / d log D
    d_8 = critical_tokens(types.SimpleNamespace(**values), n, 8)
    assert d_8 / d == pytest.approx(math.exp(4 / 0.5907 / (0.5068 + 0.4965)))

    for name, peak in (("reward_best_of_n", 0.913 / 0.244), ("reward_rl", math.exp(0.913 / 0.122 - 1))):
        law, given = catalogue.law(name), np.array(BY_HAND[name][0])
        derived = law.derive(given[None], {})
        assert derived["d of the highest reward"] == pytest.approx([peak])
        rewards = np.log(solver.loss(law, given, peak * np.array([[0.99], [1.0], [1.01]])))
        assert rewards[1] == max(rewards) == pytest.approx(derived["highest reward"][0])
        assert np.isnan(law.derive(np.array([[0.9, -0.1]]), {})["d of the highest reward"])

    law, given = catalogue.law("routed"), np.array(BY_HAND["routed"][0])
    (size,) = law.derive(given[None], {}).values()
    assert size == pytest.approx([1e12])
    np.testing.assert_allclose(*solver.loss(law, given, [(size[0], 1), (size[0], 512)]), rtol=1e-10)


def test_a_reward_of_either_sign_is_fitted_with_its_peak():
    """Residuals are differences of the reward, whose exponential the law gives: least squares of d and d^2."""
    d = np.linspace(0.3, 9.0, 24)
    rewards = d * (0.6 - 0.08 * d) + 0.02 * np.cos(7 * d)
    assert rewards.min() < 0 < rewards.max()
    frame = {"N": np.full(24, 1e9), "D": np.full(24, 1e9), "loss": np.exp(rewards), "d": d}
    table = runs.from_frame(frame, runs.Columns(inputs={"d": "d"}))
    made = fit_runs(table, catalogue.law("reward_best_of_n"), SquaredLog(), draws=40)
    alpha, minus_beta = np.linalg.lstsq(np.stack([d, d * d], axis=1), rewards, rcond=None)[0]
    np.testing.assert_allclose(made.values, [alpha, -minus_beta], rtol=1e-8)
    peak = made.derived()["d of the highest reward"]
    assert peak.low < peak.value < peak.high
    assert peak.value == pytest.approx(-alpha / (2 * minus_beta))
    assert not [found for found in diagnostics.after(made, table) if isinstance(found, Refusal)]


def spread(law, count=40):
    random = np.random.default_rng(0)
    low = {"N": 5e7, "D": 1e9}
    return np.exp(np.stack([random.uniform(np.log(low[name]), np.log(200 * low[name]), count) for name in law.inputs], axis=1))


def test_held_parameters_are_not_fitted():
    free, held = NoIrreducible(), NoIrreducible(fixed=(("alpha", 0.1),))
    x = spread(free)
    assert held.names == ("A", "B", "beta")
    assert len(held.starts(np.zeros(2))) == len(free.starts(np.zeros(2))) / 4
    theta = held.coordinates(np.array([40.0, 60.0, 0.12]), np.array([20.0, 23.0]))
    np.testing.assert_allclose(held.natural(theta, np.array([20.0, 23.0])), [40, 60, 0.12], rtol=1e-12)
    np.testing.assert_allclose(solver.loss(held, [40, 60, 0.12], x), solver.loss(free, [40, 60, 0.1, 0.12], x), rtol=1e-12)


def test_a_law_of_ones_own():
    class Mine(Formula):
        parameters = ("E", "A", "alpha")
        inputs = ("N",)
        start = ((0.5, 2.0), (1.0, 100.0), (0.1, 0.5))
        pairs = (("A", "alpha", "N"),)

        def loss(self, p, x):
            return p.E + p.A * x.N**-p.alpha

    x = spread(Mine(), 32)
    made = fit(Mine(), Points(np.log(x), np.log(2 + 300 * x[:, 0] ** -0.3), np.ones(len(x))), SquaredLog())
    np.testing.assert_allclose(list(made.natural.values()), [2, 300, 0.3], rtol=1e-6)


def test_noise_free_points_on_a_stated_grid_give_all_five_parameters_to_1e6():
    """Eight sizes from 5e7 to 1e10 by four token counts from 1e9 to 5e11, Hoffmann's law: the exact phase of the solver is the polish."""
    truth = np.array(BY_HAND["chinchilla"][0])
    x = np.stack(np.meshgrid(np.geomspace(5e7, 1e10, 8), np.geomspace(1e9, 5e11, 4)), axis=-1).reshape(-1, 2)
    made = fit(Chinchilla(), Points(np.log(x), np.log(solver.loss(Chinchilla(), truth, x)), np.ones(32)), HuberLog())
    np.testing.assert_allclose(list(made.natural.values()), truth, rtol=1e-6)


def curves():
    """Cosine and two-stage schedules of 2,000 steps, losses by the sum over every step."""
    t = np.arange(2000)
    values = (2.6, 0.6, 0.45, 400.0, 2.0, 0.6, 0.6)
    rates = (3e-4 * (0.1 + 0.45 * (1 + np.cos(np.pi * t / 2000))), np.where(t < 800, 3e-4, 9e-5))
    made = [TrainingCurve(rate, np.arange(200, 2000, 150), np.empty(0), before=3e-4 * 500) for rate in rates]
    return values, [curve._replace(loss=curve_loss(values, curve)) for curve in made]


def test_the_multi_power_law_by_blocks_is_its_sum_over_steps():
    """At a constant rate the law is a power law of S1; a single drop is a block of its own; a cosine in 64 blocks is within .05%."""
    values, made = curves()
    flat = TrainingCurve(np.full(500, 3e-4), np.array([100, 499]), np.ones(2))
    s1 = 3e-4 * np.array([101, 500])
    np.testing.assert_allclose(curve_loss(values, flat), 2.6 + 0.6 / s1**0.45, rtol=1e-12)
    points = curve_points(made)
    predicted = solver.predict(catalogue.law("multi_power"), np.log(values)[None], points.log_x)[0]
    np.testing.assert_allclose(predicted[12:], points.log_loss[12:], rtol=1e-12)  # the two-stage schedule
    np.testing.assert_allclose(predicted[:12], points.log_loss[:12], atol=5e-4)


@pytest.mark.parametrize("rows", [5, 31])  # padded to one program, that of tests/scaling/test_chain.py
def test_a_law_comes_back_from_any_number_of_rows_where_it_has_no_value_at_inputs_of_1(rows):
    """Errors of downstream tasks: 1 - 3 exp(-gamma) is negative, so a row of zeros in the logarithms would have no log loss."""
    truth, law = np.array([0.9, 3.0, 0.8]), catalogue.law("downstream")
    x = np.geomspace(2.2, 4.0, rows)[:, None]
    made = fit(law, Points(np.log(x), np.log(solver.loss(law, truth, x)), np.ones(rows)), SquaredLog())
    np.testing.assert_allclose(list(made.natural.values()), truth, rtol=1e-6)


@pytest.mark.parametrize("name", ["multi_power", "width_depth"])
def test_the_derivatives_of_a_law_do_not_depend_on_the_number_of_rows(name):
    law = catalogue.law(name)
    if name == "multi_power":
        values, made = curves()
        theta, x = np.log(np.array(values)), curve_points(made).log_x
    else:
        centre = np.log(np.array(BY_HAND[name][1]))
        theta, x = law.coordinates(np.array([BY_HAND[name][0]]), centre)[0], law.design(centre + np.linspace(-1, 1, 24)[:, None], centre)
    whole = solver.jacobian(law, theta, x)
    assert np.all(np.isfinite(whole))
    for rows in range(5, len(x)):
        np.testing.assert_allclose(solver.jacobian(law, theta, x[:rows]), whole[:rows], rtol=1e-13)
