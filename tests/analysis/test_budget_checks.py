"""Acceptance of budgets, ties, shape classes, learning-rate brackets and conventions."""

import dataclasses
import math

import numpy as np
import pytest

from lm.analysis import brackets, budget_checks, conventions, runs
from lm.scaling.approaches import isoflop, profiles
from lm.scaling.intervals.noise import fit_noise
from lm.scaling.results import Estimate, Refusal
from lm.scaling.settings import AnalysisSettings
from tests import synthetic
from tests.scaling.test_isoflop import fitted, truth

SETTINGS = AnalysisSettings(draws=300, table_draws=100)


def test_a_quiet_study_passes():
    made = budget_checks.check_budgets(fitted(synthetic.study(sigma=0.003)), SETTINGS)
    assert all(check.passed for check in made)
    assert all(check.rising_left >= 2 and check.rising_right >= 2 for check in made)


def test_each_failure_says_why():
    short = ((20, 24, 32, 40, 48, 56, 64), *synthetic.WIDTHS[1:])
    one_side = budget_checks.check_budgets(fitted(synthetic.study(sigma=0.003, widths=short)), SETTINGS)[0]
    assert not one_side.passed
    assert "below the minimum" in one_side.reasons[0]
    edge = budget_checks.check_budgets(
        fitted(synthetic.study(sigma=0.003, widths=((56, 64, 80, 96, 112), *synthetic.WIDTHS[1:]))), SETTINGS
    )[0]
    assert not edge.passed
    assert "below the sampled sizes" in edge.reasons[0]
    unknown = budget_checks.check_budgets(fitted(synthetic.study(sigma=0.003, replicas=False)), SETTINGS)
    assert not any(check.passed for check in unknown)


def test_sizes_closer_than_the_noise_are_tied():
    quiet, loud = (budget_checks.check_budgets(fitted(synthetic.study(sigma=s, seed=2)), SETTINGS)[0] for s in (1e-4, 0.03))
    assert len(quiet.tied) <= 2
    assert len(loud.tied) > len(quiet.tied)


@pytest.mark.parametrize(("penalty", "warned"), [(0.0, False), (0.04, True)])
def test_a_shape_class_that_stands_apart_is_warned_of(penalty, warned):
    """One size in the middle of the grid is 4% worse than its N says, at noise of .5%."""
    rows = synthetic.study(sigma=0.005, seed=4, classes={40: penalty})
    cells = synthetic.cells(rows)
    found = budget_checks.shape_classes(profiles.by_budget(cells), cells, fit_noise(synthetic.table(rows), SETTINGS), SETTINGS)
    named = {(shape.field, shape.value): shape for shape in found}
    assert named["d_model", 40].warned == warned
    if warned:
        assert named["d_model", 40].mean_error > 0.02
    assert ("head_dim", 16) not in named  # takes one value


def test_shape_classes_have_unit_variance_under_noise_alone():
    """z of one class over 60 studies: mean 0 and sd 1, within three standard errors and the noise of sigma itself."""
    z = []
    for seed in range(60):
        rows = synthetic.study(sigma=0.01, seed=seed)
        cells = synthetic.cells(rows)
        found = budget_checks.shape_classes(profiles.by_budget(cells), cells, fit_noise(synthetic.table(rows), SETTINGS), SETTINGS)
        z.append(next(shape.z for shape in found if (shape.field, shape.value) == ("d_model", 40)))
    assert abs(np.mean(z)) < 3 / math.sqrt(60)
    assert 0.7 < np.std(z) < 1.5


def test_a_bracket_finds_the_best_rate_and_the_rules_gap():
    rows = synthetic.study(brackets=True)
    noise = fit_noise(synthetic.table(synthetic.study(sigma=0.002)), SETTINGS)
    found = brackets.fit_brackets(rows, noise, SETTINGS)
    assert len(found) == 3
    for bracket in found:
        assert math.isclose(bracket.best_factor.value, math.exp(0.2), rel_tol=1e-6)
        assert math.isclose(bracket.gap.value, 0.03 * 0.2**2, rel_tol=1e-6)
        assert bracket.best_factor.covers(math.exp(0.2))


def test_a_bracket_without_a_vertex_is_refused_and_gives_a_least_gap():
    rows = synthetic.study(brackets=True)
    rows = [dataclasses.replace(r, loss=r.loss * (0.9 if r.learning_rate_factor == 2 else 1)) for r in rows]
    found = brackets.fit_brackets(rows, Refusal("no_replicas", ""), SETTINGS)
    assert all(isinstance(bracket.best_factor, Refusal) for bracket in found)
    assert all(bracket.least_gap > 0.08 for bracket in found)


def test_gaps_along_the_size_axis_are_taken_out_of_the_exponent():
    """Large sizes, in log N - log N*(C), lose up to 4% to a bad rate: N* moves; without the gaps it comes back."""
    clean = synthetic.study()
    n_star = truth(clean)[0]
    line = np.polyfit(np.log(synthetic.BUDGETS), np.log(n_star), 1)

    def gap(row):
        return 0.02 * max(math.log(row.params["matmul"]) - np.polyval(line, math.log(row.budget)), 0.0)

    spoilt = [dataclasses.replace(row, loss=row.loss * math.exp(gap(row))) for row in clean]
    cells = synthetic.cells(spoilt)
    first = fitted(spoilt)
    chosen = [spoilt[i] for i in (0, 3, 5, 6)]
    made = [
        brackets.Bracket((row.id,), row.budget, row.params["matmul"], row.flops["matmul_causal"], (1.0,), (row.loss,), (0.0, 0.0, 0.0),
                         Refusal("edge", ""), Estimate(gap(row), None, None, 0.8, ""), 0.0, None)
        for row in chosen
    ]  # fmt: skip
    moved = brackets.without_gaps(cells, made, first)
    clean_cells = synthetic.cells(clean)
    assert np.abs(moved.log_loss - clean_cells.log_loss).max() < 0.4 * np.abs(cells.log_loss - clean_cells.log_loss).max()
    assert isinstance(brackets.without_gaps(cells, (), first), Refusal)


def test_interpolated_budgets_agree_with_the_law_under_another_count():
    rows = synthetic.study()
    settings = dataclasses.replace(SETTINGS, c="6nd", n="matmul")
    cells = synthetic.cells(rows, "matmul", "6nd")
    made = conventions.profiles_of(cells, settings)
    got, _ = isoflop.fit_isoflop(made, cells, Refusal("no_replicas", ""), settings)
    assert abs(got.a.value - 0.5) < 0.01
    for profile in made:  # no extrapolation, three budgets a size
        for size, ids in zip(profile.sizes, profile.ids, strict=True):
            own = [math.log(r.flops["6nd"]) for r in rows if runs.size(r) == size and r.role == "grid"]
            assert min(own) - 1e-6 <= profile.log_c <= max(own) + 1e-6
            assert len({r.budget for r in rows if r.id in ids}) >= 3


def test_interpolation_needs_sizes_that_are_shared_between_budgets():
    widths = ((16, 18, 20, 22, 24, 26), (28, 30, 32, 34, 36, 38), (40, 42, 44, 46, 48, 50), (52, 54, 56, 58, 60, 62))
    cells = synthetic.cells(synthetic.study(widths=widths, replicas=False), "matmul", "6nd")
    assert profiles.interpolated(cells, 4).kind == "too_few_points"
