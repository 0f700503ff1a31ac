"""How the exponent moves with one change of the analysis at a time."""

import contextlib
import dataclasses
import io

import numpy as np
import pytest

from lm.errors import UserError
from lm.scaling import __main__ as command
from lm.scaling import results, sensitivity
from lm.scaling.filters import Between, WithoutHighest
from lm.scaling.fits.objectives import HuberLog, SquaredLog
from lm.scaling.intervals.resampling import Measured
from lm.scaling.laws.law import Chinchilla
from lm.scaling.results import Estimate
from lm.scaling.runs import Columns, from_frame
from lm.scaling.sensitivity import Chosen
from lm.scaling.settings import AnalysisSettings
from tests.scaling.test_quality import table as profiles
from tests.scaling.test_table_analysis import write

POWER = 1.2


def columns():
    """The profiles of the rules' tests, with compute as counted and a second convention of N, its power 1.2."""
    made = profiles()
    return made | {"C": made["budget"], "other": made["N"] ** POWER}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    path = write(tmp_path_factory.mktemp("sensitivity") / "runs.csv", columns())
    out = io.StringIO()
    options = ["--budget=budget", "--flops=C", "--approach", "2", "--draws=100", "--without-highest", "1", "--sensitivity"]
    with contextlib.redirect_stdout(out):
        assert command.main(["fit", str(path), *options, "--params-also", "other", "--json"]) == 0
    return results.from_json(out.getvalue())


def test_the_first_is_the_analysis_as_chosen_and_the_others_differ_from_it(made):
    first, *others = made.sensitivity
    assert first.a == made.isoflop.a
    assert [(one.what, one.choice) for one in others] == [
        ("curve", "cubic"),
        ("curve", "akima"),
        ("regression", "weighted"),
        ("filter", "not: without the 1 highest losses"),
        ("filter", "without the 1 highest losses"),
        ("filter", "without the lowest budget"),
        ("filter", "without the highest budget"),
        ("convention of N", "other"),
    ]
    for one in others:
        assert one.approach == 2
        assert one.difference == pytest.approx(one.a.value - first.a.value)
        assert one.outside == (not first.a.low <= one.a.value <= first.a.high)
    rows = {one.choice: one.rows for one in others}
    assert (rows["cubic"], rows["not: without the 1 highest losses"], rows["without the 1 highest losses"]) == (35, 36, 34)


def test_a_power_of_n_has_that_power_of_the_optimum(made):
    """Parabolas in log N and in 1.2 log N have one minimum."""
    one = made.sensitivity[-1]
    assert one.a.value == pytest.approx(POWER * made.isoflop.a.value, rel=1e-9)
    assert one.outside


def test_a_convention_of_n_changes_what_follows_from_n():
    runs = from_frame(columns(), Columns(inputs={"N by other": "other"}))
    other = sensitivity.under(runs, "N by other")
    np.testing.assert_allclose(other.n, runs.n**POWER)
    np.testing.assert_allclose(other.c, 6 * other.n * other.d)
    np.testing.assert_allclose(other.inputs["M"], other.d / other.n)
    counted = sensitivity.under(dataclasses.replace(runs, counted=True), "N by other")
    np.testing.assert_allclose(counted.c, runs.c)


def test_a_law_is_fitted_under_every_other_objective_and_delta(monkeypatch):
    asked = []

    def exponent(runs, chosen, objective):
        asked.append((len(runs), objective))
        return Estimate(0.6, 0.55, 0.65, 0.8, "none")

    monkeypatch.setattr(sensitivity, "law_exponent", exponent)
    runs = from_frame(columns(), Columns())
    chosen = Chosen(Chinchilla(), HuberLog(), Measured(), (WithoutHighest(2), Between("N", 0, 1e99)), AnalysisSettings())
    base = Estimate(0.5, 0.45, 0.7, 0.8, "none")
    found = sensitivity.sensitivity(runs, chosen, base, None)
    assert [(one.what, one.choice) for one in found[1:7]] == [
        *(("objective", name) for name in ("squared_log", "squared_raw", "l1")),
        *(("delta", name) for name in ("0.0001", "0.01", "0.1")),
    ]
    assert asked[0] == (34, SquaredLog())
    assert asked[3] == (34, HuberLog(1e-4))
    assert not any(one.outside for one in found)
    assert [one.rows for one in found if one.choice.startswith("not:")] == [36, 34]
    squares = sensitivity.sensitivity(runs, dataclasses.replace(chosen, objective=SquaredLog()), base, None)
    assert "delta" not in {one.what for one in squares}
    assert "huber" in {one.choice for one in squares}


@pytest.mark.parametrize(
    "options", [("--params-also", "other"), ("--sensitivity", "--approach", "1"), ("--sensitivity", "--law=compute_power")]
)
def test_what_has_no_exponent_has_no_sensitivity(options, tmp_path):
    with pytest.raises(UserError, match="--sensitivity"):
        command.main(["fit", str(write(tmp_path / "runs.csv", columns())), *options])
