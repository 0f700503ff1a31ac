"""What to train beyond the study: by which approach, that it meets the law behind the rows, and refusals said once."""

import dataclasses

import numpy as np
import pytest

from lm.analysis import summary
from lm.analysis.recommend import FACTORS, recommend
from lm.scaling.approaches import isoflop, parametric, profiles
from lm.scaling.fits import frontier
from lm.scaling.intervals.noise import fit_noise
from lm.scaling.results import Estimate, Refusal, encode, from_json, to_json
from lm.scaling.settings import AnalysisSettings
from tests import synthetic

SETTINGS = AnalysisSettings(draws=60)
FLAT, EDGE = Refusal("unidentified", "N spans too little"), Refusal("edge", "no minimum")


@pytest.fixture(scope="module")
def table():
    rows = synthetic.study(sigma=0.005, seed=2)
    cells, noise = synthetic.cells(rows), fit_noise(synthetic.table(rows), SETTINGS)
    return cells, noise, isoflop.fit_isoflop(profiles.by_budget(cells), cells, noise, SETTINGS)[1]


@pytest.fixture(scope="module")
def law(table, few_starts_in_module):
    return parametric.fit_law(*table[:2], SETTINGS, SETTINGS.draws, "main")


def truth(cells):
    flops = np.array(FACTORS) * cells.budget.max()
    best = frontier.optimum(np.array([synthetic.LAW]), frontier.cost_of(cells), np.log(flops))
    return flops, *(np.exp(column[0]) for column in best)


def test_it_is_the_optimum_of_the_law_behind_the_rows(table, law):
    cells, noise, minima = table
    made = recommend(minima, law, cells, noise, SETTINGS)
    flops, n, d, loss = truth(cells)
    assert [one.by for one in made] == [2, 2]
    np.testing.assert_allclose([one.flops for one in made], flops, rtol=1e-9)
    for got, *wanted in zip(made, n, d, loss, strict=True):
        answers = (got.n, got.d, got.loss)
        assert all(answer.low < answer.value < answer.high for answer in answers)
        assert all(answer.low * 0.9 < value < answer.high * 1.1 for answer, value in zip(answers, wanted, strict=True))
    near, far = made
    assert far.n.high / far.n.low > near.n.high / near.n.low
    assert far.loss.high / far.loss.low > near.loss.high / near.loss.low
    assert from_json(to_json(made)) == made


def test_where_the_minima_refuse_the_law_answers_and_where_the_law_does_the_minima(table, law):
    cells, noise, minima = table
    by_law = recommend(EDGE, law, cells, noise, SETTINGS)
    assert [one.by for one in by_law] == [3, 3]
    for one in by_law:
        assert (one.n, one.d) == (one.law.with_error.n, one.law.with_error.d)
        assert isinstance(one.loss, Estimate)
    by_minima = recommend(minima, FLAT, cells, noise, SETTINGS)
    assert [one.by for one in by_minima] == [2, 2]
    assert [one.loss for one in by_minima] == [one.minima.loss for one in by_minima]


def test_numbers_without_intervals_give_way_to_those_with_them(table, law):
    cells, noise, _ = table
    lost = dataclasses.replace(SETTINGS, max_lost=-1.0)  # no share of lost draws is small enough
    bare = isoflop.fit_isoflop(profiles.by_budget(cells), cells, noise, lost)[1]
    assert [one.by for one in recommend(bare, law, cells, noise, lost)] == [3, 3]
    assert [one.by for one in recommend(bare, FLAT, cells, noise, lost)] == [2, 2]


def test_reasons_are_said_once(table):
    cells, noise, _ = table
    made = recommend(EDGE, FLAT, cells, noise, SETTINGS)
    assert all(one.by is None and one.n == one.d == one.loss for one in made)
    assert made[0].n.reason == "approach 2: no minimum; approach 3: N spans too little"
    assert recommend(EDGE, EDGE, cells, noise, SETTINGS)[0].n == EDGE
    refused, told = encode(EDGE), {"sigma": {}, "forecast": None, "excluded": [], "cautions": []}
    approaches = dict.fromkeys(("envelope", "isoflop", "parametric"), refused)
    same = encode(recommend(EDGE, EDGE, cells, noise, SETTINGS))
    printed = summary.render({"study": "s", "exponents": approaches, "recommended": same} | told)
    assert printed.count(EDGE.reason) == 1
    assert printed.count("times the largest budget") == 2
