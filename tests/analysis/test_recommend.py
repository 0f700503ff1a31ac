"""Recommendations beyond a study name their approach, meet the law behind the rows, and say a refusal once."""

import dataclasses

import numpy as np
import pytest

from experiments.replications import few_budgets
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
        assert one.n == one.law.with_error.n
        assert one.d.value == pytest.approx(one.law.with_error.d.value, rel=1e-6)
        assert isinstance(one.loss, Estimate)
    by_minima = recommend(minima, FLAT, cells, noise, SETTINGS)
    assert [one.by for one in by_minima] == [2, 2]
    assert [one.loss for one in by_minima] == [one.minima.loss for one in by_minima]


def test_tokens_are_what_the_compute_pays_for(table, law):
    cells, noise, minima = table
    cost = frontier.cost_of(cells)
    for source, fitted in ((minima, FLAT), (EDGE, law)):
        for one in recommend(source, fitted, cells, noise, SETTINGS):
            for n, d in ((one.n.value, one.d.value), (one.n.low, one.d.high), (one.n.high, one.d.low)):
                assert np.exp(cost.log_flops_per_token(np.log(n))) * d == pytest.approx(one.flops, rel=1e-9)


def test_sizes_far_from_the_minimum_do_not_move_it(table):
    """A profile that flattens far above its minimum, as small runs of large models do, has its optimum where it had it."""
    cells, noise, minima = table
    narrow = recommend(minima, FLAT, cells, noise, SETTINGS)
    far = []
    for m in minima:
        n, tokens, loss = m.result.n, m.result.tokens, m.result.loss
        wide = {"n": (*n, 40 * n[-1]), "tokens": (*tokens, tokens[-1] / 40), "loss": (*loss, 1.01 * max(loss))}
        far.append(m._replace(result=dataclasses.replace(m.result, **wide)))
    moved = recommend(far, FLAT, cells, noise, SETTINGS)
    assert [one.n for one in moved] == [one.n for one in narrow]


def test_reasons_are_said_once(table):
    cells, noise, _ = table
    made = recommend(EDGE, FLAT, cells, noise, SETTINGS)
    assert all(one.by is None and one.n == one.d == one.loss for one in made)
    assert made[0].n.reason == "approach 2: no minimum; approach 3: N spans too little"
    assert recommend(EDGE, EDGE, cells, noise, SETTINGS)[0].n == EDGE
    refused, told = encode(EDGE), {"sigma": {}, "forecast": None, "excluded": [], "cautions": [{"message": EDGE.reason}]}
    approaches = dict.fromkeys(("envelope", "isoflop", "parametric"), refused)
    same = encode(recommend(EDGE, EDGE, cells, noise, SETTINGS))
    printed = summary.render({"study": "s", "exponents": approaches, "recommended": same} | told)
    assert printed.count(EDGE.reason) == 1
    assert printed.count("times the largest budget") == 2


def test_public_tables_are_asked_what_a_study_is(few_starts):
    """From the three lowest budgets of a table under a known law, the fourth shows the N* and the loss that were recommended."""
    rows = synthetic.study(sigma=0.002, seed=4)
    found = list(few_budgets.held(synthetic.table(rows)))
    assert [(one.quantity, one.kept, one.factor) for one in found] == [("N*", 3, "2"), ("lowest loss", 3, "2")]
    assert all(abs(one.error) < one.reach for one in found)
    assert few_budgets.render(found * 2).count("100%") == 2
