"""Budgets of IsoFLOP profiles: measured ones grouped, the C of a profile, rows off their budget, and D* of its own curve."""

import dataclasses
import math

import numpy as np

from lm.scaling import budgets, diagnostics, runs
from lm.scaling.approaches import isoflop, profiles
from lm.scaling.results import Estimate, Refusal
from lm.scaling.settings import AnalysisSettings
from lm.scaling.table_analysis import TableSettings, analyse_runs

PLANNED = np.array([1e18, 3e18, 1e19, 3e19])
SIZES = 7


def table(stray=lambda log_n, i: 0 * log_n, budget=None):
    """Profiles whose loss is a parabola about N* = C^.4 with its D* = C^.55, each along its own axis; log (6 N D / C) is `stray`."""
    columns = []
    for i, c in enumerate(PLANNED):
        u = np.linspace(-1, 1, SIZES)
        log_n = 0.4 * math.log(c) + u
        log_d = math.log(c / 6) - log_n + stray(log_n, i)
        columns.append([np.exp(log_n), np.exp(log_d), np.full(SIZES, c), 3 + 0.1 * u**2])
    n, d, planned, loss = np.concatenate(columns, axis=1)
    inputs = {"N": n, "D": d, "C": 6 * n * d, "M": d / n}
    return runs.Runs(inputs, loss, tuple(f"row {i + 2}" for i in range(len(n))), budget=planned if budget is None else budget(planned))


def minima(made, curve="parabola"):
    settings = AnalysisSettings(draws=20, curve=curve)
    return isoflop.fit_isoflop(profiles.by_budget(made), made, Refusal("no_replicas", ""), settings)[0]


def test_the_compute_of_a_profile_is_its_budget_where_none_is_counted():
    """6 N D that strays from the budget, at the smallest most, moves no exponent; as counted FLOPs it is C."""
    made = table(lambda log_n, i: 0.2 - 0.05 * i + 0 * log_n)
    found = minima(made)
    np.testing.assert_allclose([b.flops for b in found.budgets], PLANNED, rtol=1e-12)
    assert abs(found.a.value - 0.4) < 1e-9
    counted = minima(dataclasses.replace(made, counted=True))
    np.testing.assert_allclose([b.flops for b in counted.budgets], PLANNED * np.exp(0.2 - 0.05 * np.arange(4)), rtol=1e-9)


def test_tokens_of_the_optimum_come_from_their_own_curve():
    """Loss is a parabola in log D about its own minimum, where N D is bent along the profile and C / (6 N*) is not D*."""
    u = np.linspace(-1, 1, SIZES)
    log_d, empty = 20 - u + 0.2 * u**3, ((),) * SIZES
    log_loss = np.log(2 + (19.7 - log_d) ** 2)
    profile = profiles.Profile(1e18, math.log(1e18), empty, empty, u, log_d, log_loss, np.ones(SIZES), np.eye(SIZES))
    made = isoflop.fit_budget(profile, np.ones(SIZES), None, AnalysisSettings(), 20).result
    assert math.isclose(made.d_star.value, math.exp(19.7), rel_tol=1e-9)
    assert abs(math.log(made.n_star.value) + math.log(made.d_star.value) - 20) > 0.01


def test_either_curve_may_have_no_minimum_alone():
    """Loss is lowest in the middle of the sizes, and below the sampled tokens: N* stands, and D* is refused."""
    off = np.tile(np.abs(np.linspace(-1, 1, SIZES)), 4)
    made = table()
    cells = dataclasses.replace(made, loss=3 + 0.1 * (off + 0.2) ** 2, inputs=made.inputs | {"D": np.exp(off)})
    found = minima(cells)
    assert isinstance(found.a, Estimate)
    assert {b.d_star.kind for b in found.budgets} == {"edge"}
    assert found.b.kind == "too_few_points"
    assert found.d_line is None


def test_measured_budgets_are_those_of_the_plan():
    """Values within rounding of four budgets are four profiles; planned values stay as they are to the last digit."""
    random = np.random.default_rng(0)
    planned = table().budget
    made, said = budgets.grouped(planned * random.uniform(0.99, 1.01, len(planned)))
    assert said.kind == "grouped_budgets"
    assert "28" in said.message
    assert len(set(made.tolist())) == 4
    np.testing.assert_allclose(np.unique(made), PLANNED, rtol=0.01)
    assert budgets.grouped(planned) == (planned, None)
    one_off = budgets.grouped(np.concatenate([planned[:-1], [planned[-1] * 1.001]]))[0]
    assert one_off[0] == PLANNED[0]
    assert budgets.grouped(PLANNED[0] * 1.2 ** np.arange(28))[1] is None


def test_every_reader_of_a_table_gets_grouped_budgets():
    made = table()
    frame = {"N": made.n, "D": made.d, "loss": made.loss, "b": made.budget * np.tile([0.99, 1.01], 14)}
    read = runs.from_frame(frame, runs.Columns(budget="b"))
    assert len(set(read.budget.tolist())) == 4
    assert [one.kind for one in read.cautions] == ["grouped_budgets"]


def test_rows_off_their_budget_are_named():
    made = table(lambda log_n, i: np.where(np.arange(SIZES) == 3, 0.3, 0.05) if i == 1 else 0 * log_n)
    (found,) = diagnostics.off_budget(made)
    assert found.kind == "off_budget"
    assert made.run[SIZES + 3] in found.message
    assert made.run[SIZES + 2] not in found.message
    assert not diagnostics.off_budget(table())
    analysed = analyse_runs(made, TableSettings(approaches=(2,), draws=20))
    assert found in analysed.cautions
