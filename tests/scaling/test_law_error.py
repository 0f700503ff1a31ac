"""The law's own error beside the statistical intervals: in exponents, optima, plans, and what is printed."""

import dataclasses

import numpy as np
import pytest

from lm.scaling import law_error, table_summary
from lm.scaling.fits import frontier
from lm.scaling.laws.law import Chinchilla
from lm.scaling.planning import optimum
from lm.scaling.results import Estimate, Refusal, from_json, to_json
from lm.scaling.table_analysis import TableSettings, analyse_and_keep
from tests.scaling import known


@pytest.fixture(scope="module")
def analysed():
    design = known.porian_design(known.Flat(), budgets=known.PORIAN_BUDGETS[:4])
    exact = design.exact()
    noise = 0.004 * np.random.default_rng(0).standard_normal(len(exact))

    table = dataclasses.replace(exact, loss=exact.loss * np.exp(noise), budget=None)
    return table, *analyse_and_keep(table, TableSettings(targets=(4e18,), draws=40))


def test_exponents_and_optima_stand_beside_the_statistical_ones(analysed):
    _, made, _ = analysed
    law = made.law
    alpha, beta = known.EPOCH[3:]
    assert set(law.exponents_with_error) == {"a", "b"}
    assert all(answer.method == law_error.METHOD for answer in law.exponents_with_error.values())
    assert law.exponents_with_error["a"].value == pytest.approx(beta / (alpha + beta), abs=0.15)
    assert law.exponents_with_error["a"].value + law.exponents_with_error["b"].value == pytest.approx(1.0, abs=1e-6)  # C = 6 N D
    for at in law.allocations:
        assert at.with_error.n.value * at.with_error.d.value * 6 == pytest.approx(at.flops, rel=1e-6)
        assert at.with_error.ratio.value == pytest.approx(at.with_error.d.value / at.with_error.n.value)
        assert at.with_error.loss.low < at.with_error.loss.value < at.with_error.loss.high
    widths = [np.log(at.with_error.loss.high / at.with_error.loss.low) for at in law.allocations]
    assert widths[-1] > widths[-2]


def test_both_are_printed_and_travel(analysed):
    _, made, _ = analysed
    shown = table_summary.render(made)
    a = made.law.exponents_with_error["a"]
    (line,) = [line for line in shown.splitlines() if line.strip().startswith("a = ")]
    assert f"{made.law.exponents['a'].value:.3f}" in line
    assert f"{a.low:.3f}" in line
    assert sum(line.split()[:1] == ["4e18"] for line in shown.splitlines()) == 2
    assert from_json(to_json(made)) == made


def test_a_plan_holds_what_the_fit_says(analysed):
    table, made, fitted = analysed
    at = optimum.best(fitted.law, frontier.cost_of(table), 4e18)
    assert isinstance(at.with_error.n, Estimate)
    assert at.with_error == made.law.allocations[-1].with_error


def test_what_splits_no_compute_has_none_and_few_rows_say_so(analysed):
    table, _, fitted = analysed
    assert law_error.exponents(None, table, 0.8) == {}
    assert law_error.optima(None, frontier.cost_of(table), [1e18], 0.8) == [None]
    refused = Refusal("too_few_points", "7 rows")
    assert law_error.exponents(refused, table, 0.8) == {"a": refused, "b": refused}
    assert law_error.optima(refused, frontier.cost_of(table), [1e18], 0.8)[0].n == refused
    assert Chinchilla() == fitted.law.law
