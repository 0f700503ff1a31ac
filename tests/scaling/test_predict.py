"""Saved fits: what comes back from disk, forecasts and their parts, scores, and the verbs `predict` and `score`."""

import dataclasses
import hashlib
import json
import math
import pathlib

import numpy as np
import pytest

from lm.errors import UserError
from lm.scaling import __main__ as command
from lm.scaling import prediction, results, saved, scores
from lm.scaling.fits import fit as fits
from lm.scaling.fits import frontier, solver
from lm.scaling.fits.objectives import HuberLog
from lm.scaling.fitted_law import FittedLaw, points_of
from lm.scaling.intervals.discrepancy import discrepancy
from lm.scaling.intervals.noise import NoiseModel
from lm.scaling.laws import catalogue
from lm.scaling.laws.law import Chinchilla
from lm.scaling.planning import predicting
from lm.scaling.results import Refusal
from lm.scaling.runs import Columns, from_frame
from tests.scaling.test_table_analysis import TRUTH, table, write

SIGMA = 0.004


@pytest.fixture(scope="module")
def fit(tmp_path_factory, few_starts_in_module):
    """A fit of 32 rows as the verb `fit` saves it, and its analysis."""
    folder = tmp_path_factory.mktemp("saved")
    csv = write(folder / "runs.csv", {"params": table()["N"], **table()})
    path = folder / "out" / "fit.json"
    arguments = ["fit", str(csv), "--params=params", "--draws=200", "--target", "1e22", f"--save={path}"]
    assert command.main(arguments) == 0
    return path


def run(capsys, *arguments):
    status = command.main([str(argument) for argument in arguments])
    return status, capsys.readouterr().out


def test_a_saved_fit_comes_back_to_the_last_digit(fit):
    made = saved.read(fit)
    law = saved.restored(made)
    assert results.from_json(results.to_json(made)) == made
    np.testing.assert_array_equal(law.values, made.values)
    np.testing.assert_array_equal(law.draws, made.draws)
    np.testing.assert_allclose(np.exp(law.fit.points.log_loss), table()["loss"], rtol=1e-15)
    root = math.sqrt(float(np.mean(law.fit.residuals**2)))
    assert root == pytest.approx(SIGMA, rel=0.3)
    assert made.sha256 == hashlib.sha256(pathlib.Path(made.source).read_bytes()).hexdigest()


def test_a_forecast_is_the_law_and_its_parts_are_noise_and_parameters(fit):
    made = saved.read(fit)
    law = saved.restored(made)
    places = {"N": np.array([1e9, 1e10]), "D": np.array([2e10, 1e14])}
    got = prediction.predict(law, saved.cost_of(made), places)
    x = np.stack(list(places.values()), axis=1)
    np.testing.assert_allclose(np.exp(got.log_loss), solver.loss(Chinchilla(), law.values, x), rtol=1e-12)
    every = np.log(solver.loss(Chinchilla(), law.draws, x))
    np.testing.assert_allclose(got.parts["parameters"], every - got.log_loss, atol=1e-12)
    degrees = len(law.fit.residuals) - 5
    scale = math.sqrt(float(np.sum(law.fit.residuals**2)) / degrees)
    sd = scale * math.sqrt(degrees / (degrees - 2))  # of Student's t
    np.testing.assert_allclose(got.parts["noise"].std(axis=0), sd, rtol=3 / math.sqrt(2 * 200))
    (near, far) = prediction.forecasts(law, got, 0.8)
    assert near.beyond == {}
    assert near.caution is None
    assert far.beyond["D"] == pytest.approx(1e14 / max(table()["D"]))
    assert far.caution.kind == "extreme_extrapolation"
    alone = prediction.predict(law, saved.cost_of(made), {"N": [1e10], "D": [1e14]})
    np.testing.assert_array_equal(alone.draws[:, 0], got.draws[:, 1])


def test_inputs_follow_from_one_another_under_six_nd():
    cost = frontier.six_nd(1e8, 1e10)
    for given in ({"N": 1e9, "D": 2e10}, {"N": 1e9, "C": 1.2e20}, {"N": 1e9, "M": 20.0}, {"D": 2e10, "M": 20.0}, {"D": 2e10, "C": 1.2e20}):
        got = prediction.completed(given, cost)
        assert {name: float(column[0]) for name, column in got.items()} == pytest.approx({"N": 1e9, "D": 2e10, "C": 1.2e20, "M": 20.0})


def test_intervals_hold_as_many_new_runs_as_they_say(fit):
    """400 runs within the sampled range: shares are known to 2%, and shift with the one fit that all are held against."""
    made = saved.read(fit)
    random = np.random.default_rng(1)
    n, d = (np.exp(random.uniform(*np.log([table()[name].min(), table()[name].max()]), 400)) for name in "ND")
    measured = np.log(solver.loss(Chinchilla(), TRUTH, np.stack([n, d], axis=1))) + SIGMA * random.standard_normal(400)
    got = prediction.predict(saved.restored(made), saved.cost_of(made), {"N": n, "D": d})
    for one in scores.level_scores(measured, got.draws):
        assert one.held / one.rows == pytest.approx(one.level, abs=0.12)


def test_scores_are_those_of_their_closed_forms():
    """CRPS of a standard normal at 0: (sqrt 2 - 1) / sqrt pi (Gneiting and Raftery 2007, eq. 21)."""
    draws = np.random.default_rng(0).standard_normal((20_000, 1))
    assert scores.crps(np.zeros(1), draws)[0] == pytest.approx((math.sqrt(2) - 1) / math.sqrt(math.pi), abs=0.01)
    low, high = np.zeros(3), np.ones(3)
    np.testing.assert_allclose(scores.interval_score(np.array([0.5, 1.2, -0.1]), low, high, 0.8), [1, 1 + 10 * 0.2, 1 + 10 * 0.1])


def test_the_optimum_of_a_saved_fit_is_that_of_the_fit(fit, capsys):
    status, text = run(capsys, "predict", fit, "--target", "1e20", "1e22", "--at", "N=1e9", "D=2e10", "--json")
    assert status == 0
    made = results.from_json(text)
    law = saved.restored(saved.read(fit))
    direct = law.path(saved.cost_of(saved.read(fit)), np.log([1e20, 1e22]))
    for i, target in enumerate(made.targets):
        assert target.allocation.n == law.answer_of(np.exp(direct.log_n[:, i]))
        assert target.run.inputs["N"] == target.allocation.n.value
        assert target.run.loss.value == pytest.approx(target.allocation.loss.value, rel=0.01)  # moved by what the law is off by
        assert target.run.loss.high - target.run.loss.low > target.allocation.loss.high - target.allocation.loss.low
    assert made.targets[0].allocation.caution is None
    assert made.targets[1].allocation.caution is not None


def test_new_runs_are_scored_with_the_columns_of_the_fit(fit, tmp_path, capsys):
    place = np.array([[1e9, 2e10], [2e9, 4e10]])
    loss = solver.loss(Chinchilla(), np.array(saved.read(fit).values), place) * np.array([1.01, 1.03])
    new = write(tmp_path / "new.csv", {"params": place[:, 0], "D": place[:, 1], "loss": loss})
    status, text = run(capsys, "score", fit, new, "--json")
    made = results.from_json(text)
    assert status == 0
    assert [row.error for row in made.rows] == pytest.approx([math.log(row.measured / row.forecast.loss.value) for row in made.rows])
    assert made.bias == pytest.approx(np.log([1.01, 1.03]).mean(), abs=2e-3)
    assert made.rows[1].rank == 1
    assert [one.held for one in made.levels] == [0, 0, 0]
    assert "in_sample" not in {caution.kind for caution in made.cautions}
    status, text = run(capsys, "score", fit, saved.read(fit).source)
    assert "CRPS" in text
    assert "32 rows" in text
    assert "fitted to 32 of these 32 rows" in text


def test_planned_runs_are_forecast_row_by_row_without_losses(fit, tmp_path, capsys):
    planned = write(tmp_path / "planned.csv", {"params": [1e9, 2e9], "D": [2e10, 4e10]})
    status, text = run(capsys, "predict", fit, "--table", planned, "--at", "N=2e9", "D=4e10", "--json")
    made = results.from_json(text)
    assert status == 0
    assert made.row_names == ("row 2", "row 3")
    assert made.table[1].loss.low == pytest.approx(made.runs[0].loss.low)
    assert "row 3" in run(capsys, "predict", fit, "--table", planned)[1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "--at"),
        (("--at", "N=1e9"), "give D too"),
        (("--at", "N=1e9", "D=x"), "D=x"),
        (("--at", "N=1e9", "D=-1"), "D=-1"),
        (("--at", "N=1e9", "D=1e9", "U=1e9"), "U"),
        (("--at", "N=1e9", "D=1e9", "C=1e19"), "C=1e+19"),
        (("--target=-1",), "--target"),
        (("--target=1e20", "--level=80"), "--level=80"),
        (("--target=1e20", "--fix", "U=1e9"), "--fix U"),
    ],
)
def test_questions_that_mean_nothing_get_one_sentence(fit, arguments, said, capsys):
    with pytest.raises(UserError) as caught:
        run(capsys, "predict", fit, *arguments)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_hold_no_fit_of_this_code_are_refused(fit, tmp_path, capsys):
    held = json.loads(fit.read_text(encoding="utf-8"))
    changed = {
        "schema": held | {"schema": 0},
        "fields": {name: value for name, value in held.items() if name != "draws"},
        "formula": held | {"first_loss": held["first_loss"] + 1e-6},
        "parameters": held | {"law": "tied"},
        "law": held | {"law": "mine"},
        "kind": held | {"type": "TableAnalysis"},
    }
    texts = {name: json.dumps(value) for name, value in changed.items()} | {"no json": "N,D,loss\n"}
    for name, text in texts.items():
        path = tmp_path / f"{name}.json"
        path.write_text(text, encoding="utf-8")
        with pytest.raises(UserError):
            run(capsys, "predict", path, "--target", "1e20")
    with pytest.raises(UserError, match="nowhere"):
        run(capsys, "predict", tmp_path / "nowhere.json", "--target", "1e20")


@pytest.fixture
def trusted(monkeypatch):
    """The law's own error is not inferred: intervals hang on the draws."""
    monkeypatch.setattr(predicting, "discrepancy", lambda _: Refusal("too_few_points", "too few rows"))


def test_without_intervals_a_forecast_stands_alone_and_the_status_says_so(fit, trusted, tmp_path, capsys):
    held = saved.read(fit)
    refused = Refusal("interval", "too few rows")
    path = saved.write(tmp_path / "few.json", results.decode(results.encode(held) | {"refused": results.encode(refused)}))
    status, text = run(capsys, "predict", path, "--at", "N=1e9", "D=2e10", "--json")
    (one,) = results.from_json(text).runs
    assert status == 0
    assert one.loss.low is None
    assert one.loss.refused == refused
    assert "no interval: too few rows" in run(capsys, "predict", path, "--at", "N=1e9", "D=2e10")[1]


def test_the_laws_own_error_is_a_part_as_the_backtest_has_it(fit, capsys):
    made = saved.read(fit)
    law = saved.restored(made)
    own = discrepancy(law.fit)
    place = {"N": np.array([1e9, 1e12]), "D": np.array([2e10, 1e14])}
    got = prediction.predict_with_error(law, saved.cost_of(made), place, own, made.noise, made.noise_unit)
    log_x = np.log(np.stack(list(place.values()), axis=1))
    spread = own.predict(log_x)
    assert made.noise_unit == pytest.approx(1)  # every row is one run
    np.testing.assert_allclose(got.log_loss, law.fit.log_loss(log_x) + spread.shift, rtol=1e-12)
    for share in (0.1, 0.9):
        quantile = np.quantile(got.draws - law.fit.log_loss(log_x), share, axis=0)
        np.testing.assert_allclose(quantile - spread.shift, spread.quantile(share) - spread.shift, rtol=0.1)
    _, text = run(capsys, "predict", fit, "--at", "N=1e9", "D=2e10", "--json")
    (one,) = results.from_json(text).runs
    assert set(one.parts) == {"noise", "parameters", "discrepancy"}


@pytest.mark.parametrize("name", list(catalogue.LAWS))
def test_every_law_of_the_catalogue_comes_back_from_disk(name, tmp_path):
    """A law at one of its starts, as if it were fitted there; one draw has failed."""
    law = catalogue.law(name)
    columns = {x: np.geomspace(2.0, 9.0, 12) for x in law.inputs if x not in ("N", "D", "C", "M")}
    frame = {"N": np.geomspace(1e8, 1e9, 12), "D": np.geomspace(1e10, 3e10, 12), "loss": np.full(12, 2.0)} | columns
    runs = from_frame(frame, Columns(inputs={x: x for x in columns}))
    points = points_of(runs, law)
    starts = law.starts(points.centre)
    theta = starts[np.all(np.isfinite(solver.predict(law, starts, points.design(law))), axis=1)][0]
    values = law.natural(theta, points.centre)
    made = fits.Fit(law, HuberLog(2e-3), points, theta, 0.0, 0.0, 1.0, 1, 1, theta[None], ())
    one = FittedLaw(made, values, np.stack([values, np.full_like(values, np.nan)]), "none", 0.8, {})
    path = saved.write(tmp_path / "fit.json", saved.saved(one, runs, Refusal("no_replicas", ""), {}))
    back = saved.restored(saved.read(path))
    assert back.law == law
    np.testing.assert_array_equal(back.draws, one.draws)
    assert back.fit.objective == HuberLog(2e-3)
    np.testing.assert_allclose(back.fit.log_loss(points.log_x), made.log_loss(points.log_x), rtol=1e-9)


def test_a_draw_without_a_loss_takes_the_interval_and_leaves_the_number(fit, trusted, tmp_path, capsys):
    held = saved.read(fit)
    spoiled = dataclasses.replace(held, draws=((None,) * 5, *held.draws[1:]))
    path = saved.write(tmp_path / "spoiled.json", spoiled)
    _, text = run(capsys, "predict", path, "--at", "N=1e9", "D=2e10", "--json")
    (one,) = results.from_json(text).runs
    assert one.loss.low is None
    assert one.loss.refused.kind == "interval"
    assert one.parts["parameters"] > 0
    _, text = run(capsys, "score", path, held.source, "--json")
    assert isinstance(results.from_json(text).levels, Refusal)


def test_the_noise_of_seeds_is_that_of_a_run_to_come():
    model = NoiseModel(math.log(0.005), 0.0, math.log(1e20), ((1e-6, 0.0), (0.0, 1e-6)), 12, (), 0.8)
    drawn = prediction.Noise(model).draws(None, np.zeros((2, 2)), np.log([1e18, 1e20]), 2000, 0)
    np.testing.assert_allclose(drawn.std(axis=0), 0.005, rtol=4 / math.sqrt(2 * 2000))
    few = dataclasses.replace(model, dof=2)
    assert prediction.Noise(model).measured
    assert not prediction.Noise(few).measured
