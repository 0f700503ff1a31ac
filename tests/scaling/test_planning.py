"""Planning against closed forms, first-order conditions and refits: budgets, iso-loss curves, serving, and the cells to run next."""

import dataclasses
import math

import numpy as np
import pytest

from lm.errors import UserError
from lm.scaling import __main__ as command
from lm.scaling import coverage, results
from lm.scaling.fits import fit, frontier, solver
from lm.scaling.fitted_law import FittedLaw
from lm.scaling.laws import catalogue
from lm.scaling.laws.law import Chinchilla
from lm.scaling.planning import cells, optimum, power, spread, table_plan
from lm.scaling.results import Refusal
from lm.scaling.runs import Columns, from_frame
from tests.scaling import known
from tests.scaling.test_table_analysis import write

A, B, E, ALPHA, BETA = known.EPOCH
SIGMA = 1e-3
BUDGETS = (1e18, 3e18, 1e19, 3e19)
LEVEL_LOSS = 2.6


def design_of(runs):
    return coverage.Design(runs, Chinchilla(), np.array(known.EPOCH), cells.Constant(SIGMA))


@pytest.fixture(scope="module")
def study():
    """Twenty-four runs of a known law, and the surface whose draws are refits of 300 noisy studies."""
    design = design_of(power.grid(Chinchilla(), np.array(known.EPOCH), BUDGETS, 6, 4.0))
    runs, made = design.exact(), known.fit_of(design)
    ends = fit.refit(made, design.simulate(300, 1), extra=0)
    sampled = {name: (float(runs.inputs[name].min()), float(runs.inputs[name].max())) for name in ("N", "D")}
    surface = FittedLaw(made, np.array(known.EPOCH), made.law.natural(ends.theta, made.points.centre), "simulated studies", 0.8, sampled)
    return runs, surface, frontier.cost_of(runs)


def test_a_budget_is_split_by_the_closed_form(study):
    """Hoffmann et al. 2022, eq. 4."""
    _, surface, cost = study
    got = optimum.best(surface, cost, 1e20, (1e18, 3e19))
    n = (ALPHA * A / (BETA * B)) ** (1 / (ALPHA + BETA)) * (1e20 / 6) ** (BETA / (ALPHA + BETA))
    assert got.n.value == pytest.approx(n, rel=1e-6)
    assert got.d.value == pytest.approx(1e20 / 6 / n, rel=1e-6)
    assert got.loss.value == pytest.approx(E + A / n**ALPHA + B / (1e20 / 6 / n) ** BETA, rel=1e-9)
    assert got.n.low < n < got.n.high
    assert got.caution.kind == "far_extrapolation"
    assert optimum.best(surface, cost, 1e19, (1e18, 3e19)).caution is None


def test_every_place_of_an_iso_loss_curve_has_the_loss(study):
    _, surface, cost = study
    curve = optimum.iso_loss(surface, cost, LEVEL_LOSS)
    places = np.stack([curve.n, curve.d], axis=1)
    np.testing.assert_allclose(solver.loss(surface.law, surface.values, places), LEVEL_LOSS, rtol=1e-10)
    np.testing.assert_allclose(curve.flops, 6 * places.prod(axis=1), rtol=1e-9)
    assert len(curve.n) > 10
    assert np.all(np.diff(curve.d) < 0)
    assert optimum.iso_loss(surface, cost, 1.8).n == ()


def test_serving_moves_to_smaller_models_and_meets_its_condition(study, thin):
    """On the iso-loss curve dD/dN = -L_N / L_D, so that at the optimum of 6 N D + 2 N D_inf: 6 D + 2 D_inf = 6 N L_N / L_D."""
    cost = study[2]
    found = [optimum.cheapest(thin, cost, LEVEL_LOSS, tokens) for tokens in (0.0, 1e11, 1e12)]
    for made, tokens in zip(found, (0.0, 1e11, 1e12), strict=True):
        n, d = made.n.value, made.d.value
        assert E + A / n**ALPHA + B / d**BETA == pytest.approx(LEVEL_LOSS, rel=1e-9)
        ratio = (ALPHA * A / n ** (ALPHA + 1)) / (BETA * B / d ** (BETA + 1))
        assert 6 * d + 2 * tokens == pytest.approx(6 * n * ratio, rel=1e-4)
        assert made.total.value == pytest.approx(6 * n * d + 2 * n * tokens, rel=1e-9)
        assert made.n.low < n < made.n.high
    assert found[0].n.value > found[1].n.value > found[2].n.value
    assert found[0].premium.value == pytest.approx(1)
    assert 1 < found[1].premium.value < found[2].premium.value
    plain = optimum.best(thin, cost, found[0].training.value)
    assert plain.loss.value == pytest.approx(LEVEL_LOSS, rel=1e-8)
    assert found[2].caution.kind == "extrapolation"


def test_a_loss_below_the_floor_is_refused_with_what_can_be_had(study):
    _, surface, cost = study
    made = optimum.cheapest(surface, cost, 1.8)
    assert isinstance(made, Refusal)
    assert "ask for one between" in made.reason


def test_next_cells_predict_what_refits_with_them_show(study):
    """sd of log N* over 300 refits before and after: each sd is known to 1 / sqrt(600), their ratio to 6%; asked for within 3 of those."""
    runs, surface, cost = study
    flops, extra = 1e21, 3e20
    made = cells.next_cells(surface, runs, cost, flops, extra, cells.Constant(SIGMA), most=8)
    assert made.spent <= extra * (1 + 1e-9)
    assert [cell.shrinks_to for cell in made.cells] == sorted((cell.shrinks_to for cell in made.cells), reverse=True)
    assert made.shrinks_to < min(cell.shrinks_to for cell in made.alone if cell.flops <= extra)
    n, d = (np.concatenate([getattr(runs, name), [getattr(cell, name) for cell in made.cells]]) for name in ("n", "d"))
    frame = {"N": n, "D": d, "loss": np.ones(len(n)), "seed": range(len(n))}
    wider = design_of(from_frame(frame, Columns(seed="seed")))
    base = known.fit_of(wider)
    ends = base.law.natural(fit.refit(base, wider.simulate(300, 2), extra=0).theta, base.points.centre)
    before, after = (frontier.allocate(base.law, p, cost, np.log([flops])).log_n.std() for p in (surface.draws, ends))
    assert before == pytest.approx(made.sd, rel=3 * 0.041)
    assert after / before == pytest.approx(made.shrinks_to, rel=3 * 0.058)


def test_four_seeds_of_each_cell_halve_the_sd_that_next_cells_begin_from(study):
    """The fit's points are cells, and the table's rows are runs."""
    runs, surface, cost = study
    frame = {"N": np.repeat(runs.n, 4), "D": np.repeat(runs.d, 4), "loss": np.repeat(runs.loss, 4), "seed": list(range(4)) * len(runs)}
    seeds = from_frame(frame, Columns(seed="seed"))
    one, four = (cells.next_cells(surface, table, cost, 1e20, 1e19, cells.Constant(SIGMA), most=1).sd for table in (runs, seeds))
    assert four == pytest.approx(one / 2, rel=1e-6)


def test_less_compute_than_the_cheapest_run_took_buys_no_run(study):
    runs, surface, cost = study
    least = float(runs.c.min())
    with pytest.raises(UserError, match=f"{least:.3g}".replace("+", r"\+")):
        cells.next_cells(surface, runs, cost, 1e20, 0.99 * least, cells.Constant(SIGMA), most=1)
    assert min(cell.d for cell in cells.next_cells(surface, runs, cost, 1e20, least, cells.Constant(SIGMA), most=1).cells) > 1


def test_exchanges_beat_the_best_cell_repeated_and_more_compute_never_hurts(study):
    runs, surface, cost = study
    narrow = [cells.next_cells(surface, runs, cost, 1e20, extra, cells.Constant(SIGMA), most=4).shrinks_to for extra in (1e19, 1e20)]
    assert narrow[1] < narrow[0] < 1


def test_moments_of_objectives_are_those_of_a_normal():
    """Squares: E psi' = 2, E psi^2 = 4 sd^2. L1: 2 f(0) and 1 (away from its rounding)."""
    from lm.scaling.fits.objectives import AbsoluteLog, SquaredLog

    sd = np.array([0.01, 0.02])
    for objective, curvature, scatter in (
        (SquaredLog(), np.full(2, 2.0), 4 * sd**2),
        (AbsoluteLog(), 2 / (math.sqrt(2 * math.pi) * sd), np.ones(2)),
    ):
        got = spread.moments(objective, sd)
        np.testing.assert_allclose(got[0], curvature, rtol=5e-3)
        np.testing.assert_allclose(got[1], scatter, rtol=5e-3)


def test_a_law_that_does_not_split_compute_is_refused():
    for name, said in (("kaplan_steps", "a law of N and D"), ("compute_power", "a law of N and D"), ("data_constrained", "--fix U=")):
        with pytest.raises(UserError, match=said):
            optimum.splits(catalogue.law(name))


@pytest.fixture(scope="module")
def thin(study):
    """The same surface with 50 of its draws, for what does not count over them."""
    return dataclasses.replace(study[1], draws=study[1].draws[::6])


@pytest.fixture(scope="module")
def csv(study, tmp_path_factory):
    runs = study[0]
    return write(tmp_path_factory.mktemp("plan") / "runs.csv", {"N": runs.n, "D": runs.d, "loss": runs.loss})


def run(capsys, *arguments):
    status = command.main([str(argument) for argument in arguments])
    return status, capsys.readouterr().out


def test_the_verb_plan_answers_and_travels_as_json(csv, study, thin, monkeypatch, capsys):
    noisy = dataclasses.replace(thin.fit, points=dataclasses.replace(thin.fit.points, log_loss=np.log(study[0].loss) + 1e-3))
    monkeypatch.setattr(table_plan, "fit_runs", lambda *_: dataclasses.replace(thin, fit=noisy))
    asked = ("plan", csv, "--target", "1e21", "--reach=2.6", "--inference-tokens=1e12", "--iso-loss=2.5", "--extra=1e20")
    status, text = run(capsys, *asked)
    assert status == 0
    for words in ("1e21", "loss 2.6 and 1e12 tokens read", "loss 2.5:", "its interval shrinks to"):
        assert words in text
    _, text = run(capsys, *asked, "--json")
    made = results.from_json(text)
    assert isinstance(made, table_plan.TablePlan)
    assert results.to_json(made) == text
    assert made.next_cells.spent <= 1e20 * (1 + 1e-9)


def test_a_plan_without_any_answer_ends_with_one(csv, thin, monkeypatch, capsys):
    monkeypatch.setattr(table_plan, "fit_runs", lambda *_: thin)
    status, text = run(capsys, "plan", csv, "--reach=1", "--iso-loss=1")
    assert status == 1
    assert "out of reach" in text
    assert run(capsys, "plan", csv, "--reach=1", "--iso-loss=2.5")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "nothing to plan"),
        (("--reach=2.6", "--extra=1e20"), "--target"),
        (("--target=-1",), "--target=-1"),
        (("--reach=2.6", "--inference-tokens=-1"), "--inference-tokens=-1"),
        (("--target=1e20", "--law=data_constrained"), "--fix U="),
        (("--target=1e20", "--params=P"), "has no column 'P'"),
    ],
)
def test_questions_that_mean_nothing_get_one_sentence(csv, arguments, said, capsys):
    with pytest.raises(UserError) as caught:
        run(capsys, "plan", csv, *arguments)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
