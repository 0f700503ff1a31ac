"""The forecast, its score, and the analysis of a whole study."""

import dataclasses
import json
import math

import numpy as np
import pytest

from lm.analysis import analysis, forecast, score
from lm.errors import UserError
from lm.scaling import results
from lm.scaling.results import Estimate, Refusal
from lm.scaling.settings import AnalysisSettings
from tests import synthetic

pytestmark = pytest.mark.usefixtures("few_starts_in_module")
SETTINGS = AnalysisSettings(draws=99, table_draws=30)


def split(rows):
    return [row for row in rows if row.stage == 0], [row for row in rows if row.stage == 1]


@pytest.fixture(scope="module")
def rows():
    return synthetic.study(sigma=0.008, seed=2, brackets=True)


@pytest.fixture(scope="module")
def broken():
    """Runs that no fit uses: one that diverged, and one whose schedule had not decayed."""
    diverged, early = (synthetic.row(width, synthetic.BUDGETS[0]) for width in (17, 18))
    diverged = dataclasses.replace(diverged, status="diverged", reason="loss is not finite at step 12", loss=math.nan)
    return [diverged, dataclasses.replace(early, curve=(dict(early.curve[-1]) | {"decayed": False},))]


@pytest.fixture(scope="module")
def made(rows, few_starts_in_module):
    return forecast.make(*split(rows), SETTINGS)


@pytest.fixture(scope="module")
def whole(rows, broken, made):
    return analysis.analyse([*rows, *broken], SETTINGS, made)


def test_a_forecast_from_a_noise_free_law_is_exact():
    known, planned = split(synthetic.study(replicas=False))
    got = forecast.make(known, planned, SETTINGS)
    for cell, row in zip(got.cells, planned, strict=True):
        assert math.isclose(cell.loss.value, row.loss, rel_tol=1e-6)


def test_a_forecast_does_not_read_what_it_forecasts(rows, made):
    known, planned = split(rows)
    hidden = [dataclasses.replace(row, loss=math.nan, status="pending", curve=()) for row in planned]
    again = forecast.make(known, hidden, SETTINGS)
    assert again == made
    assert results.from_json(results.to_json(made)) == made
    louder = [dataclasses.replace(known[0], loss=known[0].loss * 1.01), *known[1:]]
    assert forecast.make(louder, hidden, SETTINGS) != made


def test_the_three_parts_of_an_interval_add_up(made):
    """The half width of an 80% interval is 1.28 standard deviations of all parts together, within the error of 99 draws."""
    for cell in made.cells:
        assert set(cell.parts) == {"noise", "parameters", "discrepancy"}
        whole = math.sqrt(sum(sd**2 for sd in cell.parts.values()))
        assert math.log(cell.loss.high / cell.loss.low) / 2 == pytest.approx(1.28 * whole, rel=0.35)
        assert abs(cell.shift) < 3 * whole


def test_a_study_is_backtested_on_its_own_budgets(whole):
    methods = {group.method for group in whole.backtest.groups}
    assert {"law", "law and its error", "last budget"} <= methods
    assert [cut.refused is None for cut in whole.backtest.cuts] == [False, False, True]
    assert results.from_json(results.to_json(whole.backtest)) == whole.backtest


def test_an_optimum_that_the_known_cells_do_not_determine_is_not_forecast():
    """Loss that hangs on D alone: the cells' losses can be expected, N* cannot."""
    random = np.random.default_rng(0)
    rows = synthetic.study(sigma=0.01, seed=5)
    rows = [dataclasses.replace(row, loss=(0.8 + 88.0 / row.tokens**0.35) * math.exp(0.01 * random.standard_normal())) for row in rows]
    got = forecast.make(*split(rows), dataclasses.replace(SETTINGS, draws=60))
    assert isinstance(got.n_star, Refusal)
    assert got.n_star.kind in ("unidentified", "not_converged")


def test_predictive_intervals_cover_new_cells(nine_starts):
    """12 studies of 7 cells that share a fit: 80% within +-20 points (the fit's error is common to a study's cells)."""
    hits = []
    for seed in range(12):
        known, planned = split(synthetic.study(sigma=0.01, seed=50 + seed))
        got = forecast.make(known, planned, dataclasses.replace(SETTINGS, draws=59))
        hits += [cell.loss.covers(row.loss) for cell, row in zip(got.cells, planned, strict=True)]
    assert abs(np.mean(hits) - 0.8) < 0.2


def test_the_score_counts_errors_as_defined(rows, made, whole):
    _, planned = split(rows)
    got = whole.score
    by_hand = [cell.loss.value / row.loss - 1 for cell, row in zip(made.cells, planned, strict=True)]
    assert math.isclose(got.mean_error, np.mean(by_hand))
    assert math.isclose(got.mean_absolute_error, np.mean(np.abs(by_hand)))
    assert math.isclose(got.power_law_error, np.mean([abs(made.baseline_power_law / row.loss - 1) for row in planned]))
    assert got.mean_absolute_error < min(got.power_law_error, got.last_budget_error)
    assert got.met == (got.mean_absolute_error <= got.aim)
    assert 0 <= got.regret < 0.01
    measured = whole.isoflop.budgets[-1].loss_star.value
    assert math.isclose(got.star_error, made.loss_star.value / measured - 1)
    assert math.isclose(got.power_law_star_error, made.baseline_power_law / measured - 1)
    assert got.last_budget_star_error > 0.05  # the lowest loss falls with compute


def test_binomial_probabilities():
    assert score.binomial_p(7, 7, 0.8) > 0.05
    assert score.binomial_p(2, 7, 0.8) < 0.05
    assert math.isclose(score.binomial_p(1, 1, 0.8), 1.0)


def test_an_analysis_comes_back_from_its_file(whole, tmp_path):
    path = tmp_path / "fit.json"
    path.write_text(analysis.to_json(whole), encoding="utf-8")
    assert analysis.read(path) == whole
    stored = json.loads(path.read_text(encoding="utf-8"))
    older = stored | {"score": {key: value for key, value in stored["score"].items() if key != "star_error"}}
    for text in (json.dumps(stored | {"schema": 0}), json.dumps(older), json.dumps({"type": "Gone"}), "{"):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(UserError, match=r"fit\.json"):
            analysis.read(path)


def test_an_analysis_repeats_to_the_last_digit(rows, broken, made, whole):
    assert analysis.to_json(analysis.analyse([*rows, *broken], SETTINGS, made)) == analysis.to_json(whole)


def test_the_summary_holds_an_interval_or_a_refusal_for_every_exponent(whole):
    shown = json.loads(json.dumps(whole.summary()))
    assert set(shown["exponents"]) == {"envelope", "isoflop", "parametric"}
    for approach in shown["exponents"].values():
        for answer in (approach["a"], approach["b"]):
            assert answer["type"] == "Refusal" or answer["low"] < answer["value"] < answer["high"] or answer["refused"]
    for name, endings in (("isoflop", ("",)), ("parametric", ("", "_counted"))):
        for ending in endings:
            own = [shown["exponents"][name][f"{exponent}{ending}_with_error"] for exponent in "ab"]
            assert all(answer["low"] < answer["value"] < answer["high"] for answer in own)
    assert [one["factor"] for one in shown["recommended"]] == [10, 100]
    assert shown["exponents"]["envelope"]["a"]["kind"] == "too_few_points"
    assert len(shown["sigma"]) == 4
    assert shown["forecast"]["cells"] == 7
    assert len(shown["conventions"]) == 12
    assert all(row["isoflop_a"]["kind"] == "missing" for row in shown["conventions"] if row["c"] == "xla")
    assert isinstance(whole.isoflop_without_gaps.a, Estimate)


def test_the_table_repeats_the_headline_under_the_headlines_conventions(whole):
    row = next(r for r in whole.conventions if (r.n, r.c) == (SETTINGS.n, SETTINGS.c))
    assert (row.isoflop_a, row.isoflop_b) == (whole.isoflop.a, whole.isoflop.b)
    assert (row.parametric_a, row.parametric_b) == (whole.parametric.a_counted, whole.parametric.b_counted)


def test_failed_runs_are_excluded_by_rule_and_named(broken, whole):
    assert [(e.id, e.reason) for e in whole.excluded] == [
        (broken[0].id, "diverged: loss is not finite at step 12"),
        (broken[1].id, "the schedule had not decayed at the end of the run"),
    ]
    assert not {row.id for row in broken} & set(whole.used)
    with pytest.raises(UserError, match="no run"):
        analysis.analyse([broken[0]], SETTINGS)


def test_a_budget_without_a_usable_run_fails_the_study(rows, whole):
    last = max(row.budget for row in rows)
    waiting = [dataclasses.replace(r, status="pending", loss=math.nan, curve=()) if r.budget == last else r for r in rows]
    got = analysis.analyse(waiting, dataclasses.replace(SETTINGS, draws=20, table_draws=10))
    assert got.failures[-1] == "3.2e+12 FLOPs: none of its 7 planned sizes has a run that fits may use"
    assert len(got.failures) == 1 + len([check for check in whole.checks[:-1] if not check.passed])


def test_nothing_known_forecasts_nothing():
    assert isinstance(forecast.make([], [], SETTINGS), Refusal)
