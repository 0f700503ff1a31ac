"""A study's rows as the table of runs: a study and a CSV file of the same runs have one analysis."""

import dataclasses
import math

import numpy as np
import pytest

from lm.analysis import runs
from lm.scaling.approaches import isoflop, parametric, profiles
from lm.scaling.filters import before_after
from lm.scaling.intervals.noise import fit_noise
from lm.scaling.results import Estimate
from lm.scaling.runs import Columns, from_frame
from lm.scaling.settings import AnalysisSettings
from lm.scaling.table_analysis import TableSettings, analyse_runs
from tests import synthetic

SETTINGS = AnalysisSettings(draws=99)


def frame(rows):
    """Returns the columns that a CSV file of the rows holds."""
    columns = {"N": [r.params["matmul"] for r in rows], "C": [r.flops["matmul_causal"] for r in rows], "D": [r.tokens for r in rows]}
    return columns | {name: [getattr(r, name) for r in rows] for name in ("loss", "budget", "seed")}


@pytest.fixture(scope="module")
def rows():
    return synthetic.study(sigma=0.008, seed=3)


def close(a, b):
    assert type(a) is type(b)
    if isinstance(a, Estimate):
        np.testing.assert_allclose([a.value, a.low, a.high], [b.value, b.low, b.high], rtol=1e-6)
        assert a.method == b.method
    else:
        assert a.kind == b.kind


def test_a_study_and_a_table_of_its_runs_have_one_analysis(rows, few_starts):
    study, noise = synthetic.cells(rows), fit_noise(synthetic.table(rows), SETTINGS)
    table = from_frame(frame(rows), Columns(flops="C", budget="budget", seed="seed"))
    made = analyse_runs(table, TableSettings(approaches=(2, 3), draws=SETTINGS.draws))
    two = isoflop.fit_isoflop(profiles.by_budget(study), study, noise, SETTINGS)[0]
    three = parametric.fit_parametric(study, noise, SETTINGS)
    close(made.isoflop.a, two.a)
    close(made.isoflop.budgets[0].n_star, two.budgets[0].n_star)
    for name, answer in three.parameters.items():
        close(made.law.parameters[name], answer)
    close(made.law.exponents["a"], three.a_counted)
    assert made.law.objective_value == pytest.approx(three.objective_value, rel=1e-9)
    assert before_after(table, ())[0].values == pytest.approx(three.values, rel=1e-6)


def test_replicas_are_one_cell_and_brackets_none(rows):
    bracketed = synthetic.study(sigma=0.008, seed=3, brackets=True)
    assert synthetic.cells(bracketed).ids == synthetic.cells(rows).ids
    cells = synthetic.cells(rows)
    assert len(cells) == 28
    assert cells.seeds.tolist() == [3] * 7 + [1, 1, 3, 3, 3, 1, 1] + [1] * 14
    by_id = {row.id: row for row in rows}
    for ids, loss in zip(cells.ids, cells.log_loss, strict=True):
        assert loss == pytest.approx(np.mean([math.log(by_id[name].loss) for name in ids]))


def test_noise_is_read_in_the_convention_of_the_plan(rows):
    """Counting C otherwise moves the cells along C, and neither sigma nor the cells."""
    planned, other = synthetic.table(rows), synthetic.table(rows, c="6nd")
    assert fit_noise(planned, SETTINGS) == fit_noise(other, SETTINGS)
    assert not np.allclose(planned.c, other.c)
    assert planned.cells().ids == other.cells().ids


def test_only_completed_runs_with_a_decayed_end_are_used(rows):
    spoilt = [
        dataclasses.replace(rows[0], status="diverged", reason="loss is nan"),
        dataclasses.replace(rows[1], loss=math.inf),
        dataclasses.replace(rows[2], curve=(dict(rows[2].curve[-1]) | {"decayed": False},)),
        dataclasses.replace(rows[3], curve=()),
    ]
    used, excluded = runs.usable(spoilt)
    assert [row.id for row in used] == [rows[3].id]
    assert [one.id for one in excluded] == [row.id for row in rows[:3]]
    assert "diverged: loss is nan" in excluded[0].reason


def test_a_convention_that_a_run_does_not_record_is_refused(rows):
    assert runs.missing_convention(rows, "matmul", "matmul_causal") is None
    assert "'xla'" in runs.missing_convention(rows, "matmul", "xla").reason
    assert "'none'" in runs.missing_convention(rows, "none", "6nd").reason
