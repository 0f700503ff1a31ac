"""Tests go from a table to its analysis: surfaces, variable projection, the allocation of any law, the verb `fit`, and the page."""

import json

import numpy as np
import pytest

from experiments.replications import benchmark
from lm.errors import UserError
from lm.scaling import __main__ as command
from lm.scaling import results, table_analysis
from lm.scaling.fits import frontier, solver
from lm.scaling.fits.fit import Points, fit
from lm.scaling.fits.objectives import HuberLog
from lm.scaling.fits.projection import project
from lm.scaling.fitted_law import fit_runs, points_of
from lm.scaling.intervals.resampling import Rows
from lm.scaling.laws import catalogue
from lm.scaling.laws.law import Chinchilla
from lm.scaling.results import Refusal
from lm.scaling.runs import from_frame

TRUTH = np.array([406.4, 410.7, 1.69, 0.34, 0.28])


def table(sigma=0.004, rows=32):
    """Four budgets by eight sizes around the optimum, Hoffmann's law with relative noise."""
    random = np.random.default_rng(0)
    c = np.repeat(np.geomspace(1e18, 1e21, 4), rows // 4)
    n = np.tile(np.geomspace(0.2, 5, rows // 4), 4) * 0.3 * (c / 6) ** 0.46
    d = c / 6 / n
    loss = solver.loss(Chinchilla(), TRUTH, np.stack([n, d], axis=1)) * np.exp(sigma * random.standard_normal(rows))
    return {"N": n, "D": d, "C": c, "loss": loss}


def write(path, columns):
    names = list(columns)
    rows = [",".join(repr(float(v)) for v in row) for row in zip(*columns.values(), strict=True)]
    path.write_text("\n".join([",".join(names), *rows]) + "\n", encoding="utf-8")
    return path


def test_variable_projection_reaches_the_minimum_of_the_same_objective(few_starts):
    """Two ways to one minimum, which is not that of the squares by which projection begins: they agree to 1e-9 of it."""
    objective = HuberLog()
    points = points_of(from_frame(table()), Chinchilla())
    made, other = fit(Chinchilla(), points, objective), project(Chinchilla(), points, objective)
    assert other.value == pytest.approx(made.value, rel=1e-9)
    assert other.grid == 25


def test_a_law_without_linear_parameters_is_not_projected():
    points = Points(np.zeros((3, 1)), np.zeros(3), np.ones(3))
    assert project(catalogue.law("downstream"), points, HuberLog()) is None


def test_the_optimum_of_any_law_is_the_closed_form_where_there_is_one():
    """Hoffmann et al. 2022, eq. 4, for three laws at once; bisection in log N of a slope over 2e-5."""
    natural = np.stack([TRUTH, TRUTH * [2, 1, 1, 1, 1.1], TRUTH * [1, 3, 1, 0.9, 1]])
    log_c = np.log([1e18, 1e20, 1e22])
    got = frontier.allocate(Chinchilla(), natural, frontier.six_nd(1e7, 1e10), log_c)
    a, b, _, alpha, beta = (natural[:, i, None] for i in range(5))
    g = (alpha * a / (beta * b)) ** (1 / (alpha + beta))
    np.testing.assert_allclose(got.log_n, np.log(g) + beta / (alpha + beta) * (log_c - np.log(6)), atol=1e-6)
    np.testing.assert_allclose(got.log_n + got.log_d + np.log(6), np.broadcast_to(log_c, (3, 3)), rtol=1e-12)
    known = frontier.optimum(natural, frontier.six_nd(1e7, 1e10), log_c)
    np.testing.assert_allclose(got.log_loss, known.log_loss, atol=1e-12)


def test_an_optimum_far_beyond_the_table_is_not_held_at_an_end_of_the_search():
    """Sizes of 1e6 to 1e8, compute a million times theirs and a millionth of it."""
    runs = from_frame({"N": [1e6, 1e7, 1e8], "D": [1e8, 1e8, 1e8], "loss": [3.0, 2.9, 2.8]})
    cost, log_c = frontier.cost_of(runs), np.log([1e8, 1e17, 1e23])
    a, b, _, alpha, beta = TRUTH
    expected = (np.log(alpha * a / (beta * b)) + beta * (log_c - np.log(6))) / (alpha + beta)
    for found in (frontier.allocate(Chinchilla(), TRUTH[None], cost, log_c), frontier.optimum(TRUTH[None], cost, log_c)):
        np.testing.assert_allclose(found.log_n[0], expected, atol=1e-6)


def test_a_surface_holds_the_truth_in_its_intervals(few_starts):
    """Seven intervals at 99% of one table of 32 rows: all cover."""
    made = fit_runs(from_frame(table()), resampling=Rows(), draws=200, level=0.99)
    for name, truth in zip(Chinchilla().names, TRUTH, strict=True):
        assert made.parameters()[name].covers(truth), name
    a = made.estimate(lambda p: p[:, 4] / (p[:, 3] + p[:, 4]))
    assert a.covers(0.28 / 0.62)
    assert made.projected.value == pytest.approx(made.fit.value, rel=1e-9)


def test_three_rows_are_too_few():
    made = fit_runs(from_frame({name: column[:3] for name, column in table().items()}))
    assert isinstance(made, Refusal)
    assert made.kind == "too_few_points"


@pytest.fixture(scope="module")
def csv(tmp_path_factory):
    return write(tmp_path_factory.mktemp("tables") / "runs.csv", table())


def run(capsys, *arguments):
    status = command.main([str(argument) for argument in arguments])
    return status, capsys.readouterr().out


def test_fit_prints_and_writes_what_it_found(csv, tmp_path, capsys, few_starts):
    page = tmp_path / "out" / "page.html"
    common = ("fit", csv, "--flops=C", "--budget=C", "--draws=50", "--approach", "1", "2", "3", "--target", "1e22")
    status, text = run(capsys, *common, f"--report={page}")
    assert status == 0
    for words in ("32 rows", "approach 1", "approach 2", "L = E + A / N^alpha + B / D^beta", "a = ", "C 1e22"):
        assert words in text
    html = page.read_text(encoding="utf-8")
    assert "https://" not in html
    assert "data:image/svg+xml" in html
    status, text = run(capsys, *common, "--json")
    made = results.from_json(text)
    assert isinstance(made, table_analysis.TableAnalysis)
    assert results.to_json(made) == text
    assert made.law.exponents["a"].value == pytest.approx(made.law.values["beta"] / (made.law.values["alpha"] + made.law.values["beta"]))
    assert [at.flops for at in made.law.allocations] == [1e18, 1e19, 1e20, 1e21, 1e22]
    assert json.loads(text)["law"]["objective_value"] == made.law.objective_value


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--law=chinchila",), "chinchilla"),
        (("--interval=none",), "'none'"),
        (("--level=95",), "between 0 and 1"),
        (("--input=U",), "write NAME=COLUMN"),
        (("--law=data_constrained",), "--input=U=COLUMN"),
        (("--approach", "2"), "--budget=COLUMN"),
        (("--tokens=T",), "'T': its columns are N, D, C, loss"),
    ],
)
def test_bad_arguments_get_one_sentence(csv, arguments, said, capsys):
    with pytest.raises(UserError) as caught:
        run(capsys, "fit", csv, "--draws=20", *arguments)
    assert said in str(caught.value)


def test_one_budget_gives_no_exponent(csv, tmp_path, capsys):
    one = write(tmp_path / "one.csv", {name: column[:8] for name, column in table().items()})
    status, text = run(capsys, "fit", one, "--budget=C", "--approach", "2", "--draws=20")
    assert status == 0
    assert "refused (too_few_points)" in text


def test_the_benchmark_times_what_it_says(few_starts):
    """A small form: every resample converges, and the times are those of real work."""
    runs = benchmark.synthetic(32)
    made = benchmark.measure(runs, resamples=4, sample=1)
    assert made.converged == 1
    assert made.total > 0
    assert made.ratio > 0
    assert 0 <= made.better <= 1
