"""The power of a design against studies that are simulated and fitted."""

import dataclasses

import numpy as np
import pytest

from lm.errors import UserError
from lm.scaling import __main__ as command
from lm.scaling import coverage, results
from lm.scaling.fits import fit, frontier
from lm.scaling.intervals import bootstrap
from lm.scaling.laws.law import Chinchilla
from lm.scaling.planning import cells, power, text
from lm.scaling.results import Refusal
from tests.scaling import known

PRIOR = np.array(known.EPOCH)


def design(sigma, spread=4.0, budgets=(1e18, 3e18, 1e19, 3e19), sizes=6, **more):
    return coverage.Design(power.grid(Chinchilla(), PRIOR, budgets, sizes, spread, **more), Chinchilla(), PRIOR, cells.Constant(sigma))


def test_the_expected_sd_of_the_exponent_is_that_of_fits_to_simulated_studies():
    """400 studies: their sd is known to 3.5%; three of these, and 3% for the first order."""
    planned = design(2e-3)
    made = power.power(planned, studies=500)
    base = known.fit_of(planned)
    ends = base.law.natural(fit.refit(base, planned.simulate(400, 3), extra=0).theta, base.points.centre)
    a = ends[:, 4] / (ends[:, 3] + ends[:, 4])
    assert made.exponent == pytest.approx(PRIOR[4] / (PRIOR[3] + PRIOR[4]), abs=1e-6)
    assert a.std() == pytest.approx(made.sd, rel=0.14)
    (target,) = made.targets
    assert target.flops == pytest.approx(3e20)
    best = frontier.allocate(Chinchilla(), ends, frontier.cost_of(planned.runs), np.log([3e20])).log_n[:, 0]
    assert best.std() == pytest.approx(target.sd, rel=0.14)
    assert best.mean() == pytest.approx(np.log(target.n_star), abs=0.3 * target.sd)


def test_the_chance_of_interior_optima_is_the_share_of_simulated_parabolas():
    """20,000 studies of numpy's own parabolas: the share is known to .35%; four of these."""
    planned = design(0.01, spread=1.6, budgets=(1e17, 1e18, 1e19), sizes=8)
    found = power.power(planned, studies=2000, targets=(1e20,))
    made = found.isoflop
    runs = planned.exact()
    random = bootstrap.generator(5, "brute force")
    every = np.ones(20_000, bool)
    minima = []
    for budget, said in zip((1e17, 1e18, 1e19), made.budgets, strict=True):
        index = np.flatnonzero(runs.budget == budget)
        u = np.log(runs.n[index])
        centre = u.mean()
        losses = runs.loss[index] * (1 + 0.01 * random.standard_normal((len(every), len(index))))
        c2, c1, _ = np.polyfit(u - centre, losses.T, 2)
        vertex = -c1 / (2 * c2)
        interior = (c2 > 0) & (vertex > u.min() - centre) & (vertex < u.max() - centre)
        assert said.interior == pytest.approx(interior.mean(), abs=4 * 0.0035)
        every &= interior
        minima.append(vertex + centre)
    assert made.interior == pytest.approx(every.mean(), abs=4 * 0.0035)
    slope, level = np.polyfit(np.log([1e17, 1e18, 1e19]), np.stack(minima)[:, every], 1)
    assert found.targets[0].isoflop_sd == pytest.approx((level + slope * np.log(1e20)).std(), rel=0.15)
    assert made.sd == pytest.approx(slope.std(), rel=0.15)  # of about 500 interior studies against 5,000: 3.2%, four of these and more


def test_more_seeds_and_less_noise_help_by_the_square_root():
    once, four, quiet = (power.power(one, studies=200) for one in (design(1e-2), design(1e-2, seeds=4), design(5e-3)))
    assert four.rows == 4 * once.rows
    assert four.sd == pytest.approx(once.sd / 2, rel=1e-6)
    assert quiet.sd == pytest.approx(once.sd / 2, rel=0.06)  # Huber's cost is no power law of the noise
    assert four.isoflop.sd == pytest.approx(quiet.isoflop.sd, rel=0.25)


def test_a_grid_off_centre_loses_optima():
    centred, off = (power.power(design(5e-3, spread=2.0, off=factor), studies=200).isoflop for factor in (1.0, 2.0))
    chance = off.interior if not isinstance(off, Refusal) else 0.0
    assert chance < 0.5 < centred.interior


def test_a_design_that_holds_nothing_is_refused():
    with pytest.raises(UserError, match="add budgets"):
        power.power(design(1e-3, budgets=(1e18,)))
    with pytest.raises(UserError, match="10,000"):
        design(1e-3, sizes=100_000)
    with pytest.raises(UserError, match="3 sizes"):
        design(1e-3, sizes=2)


def test_a_mean_that_is_not_off_has_no_sign_of_its_own():
    planned = power.power(design(1e-9), studies=200)
    assert "-0.0000" not in text.power(dataclasses.replace(planned, exponent=planned.isoflop.exponent + 1e-9))


def run(capsys, *arguments):
    status = command.main([str(argument) for argument in arguments])
    return status, capsys.readouterr().out


def test_the_verb_power_reads_a_grid_or_a_table(tmp_path, capsys):
    common = ("--sigma=.003", "--studies=200")
    status, said = run(capsys, "power", "--budgets", "1e17", "1e18", "1e19", "1e20", "--sizes=6", *common)
    assert status == 0
    assert "24 runs" in said
    assert "every optimum interior 100.0%" in said
    _, said = run(capsys, "power", "--budgets", "1e17", "1e18", "1e19", "1e20", "--sizes=6", *common, "--json")
    made = results.from_json(said)
    assert isinstance(made, power.Power)
    runs = power.grid(Chinchilla(), PRIOR, (1e17, 1e18, 1e19, 1e20), 6, 4.0)
    path = tmp_path / "design.csv"
    rows = [f"{n!r},{d!r},{c!r}" for n, d, c in zip(runs.n.tolist(), runs.d.tolist(), runs.budget.tolist(), strict=True)]
    path.write_text("\n".join(["N,D,budget", *rows]) + "\n", encoding="utf-8")
    _, said = run(capsys, "power", path, "--budget=budget", *common, "--json")
    assert results.from_json(said).sd == pytest.approx(made.sd, rel=1e-6)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "give one design"),
        (("--budgets", "1e18", "1e19", "--sigma=0"), "between 0 and 1"),
        (("--budgets", "1e18", "--prior=A"), "not a number"),
        (("--budgets", "1e18", "--prior=gamma=1"), "NAME=VALUE with one of A, B, E, alpha, beta"),
        (("--budgets", "1e18", "--studies=5"), "--studies=5"),
        (("nowhere.csv",), "no file nowhere.csv"),
    ],
)
def test_designs_that_mean_nothing_get_one_sentence(arguments, said, capsys):
    with pytest.raises(UserError) as caught:
        run(capsys, "power", *arguments)
    assert said in str(caught.value)
