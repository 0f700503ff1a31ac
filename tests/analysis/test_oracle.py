"""A fit against a truth that is known: what counts as identified, and the loss that no run can beat."""

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest

from lm import config as config_lib
from lm.analysis import oracle, oracle_fit, summary
from lm.data import pipeline
from lm.data.config import Component, DataConfig, WordChain
from lm.data.corpora.word_chain import WordChainSource
from lm.data.corpora.word_entropy import Oracle
from lm.errors import UserError
from lm.report import answers
from lm.scaling import results
from lm.scaling.approaches import parametric
from lm.scaling.intervals.noise import fit_noise
from lm.scaling.page.cells import Reasons
from lm.scaling.results import Estimate, Refusal
from lm.scaling.settings import AnalysisSettings
from lm.train.config import EvalConfig, RunConfig
from tests import synthetic

CHAIN = WordChain(words=500, words_per_document=60, train_documents=40, validation_documents=60)
LAW = (25.0, 88.0, 0.45, 0.35, 0.35)
TRUE = oracle.LeastLoss(0.45, 0.45, 0.44, 10, 1000, 1.5)


def config(**changes):
    data = DataConfig(components=(Component("word_chain", chain=CHAIN),), sequence_length=64)
    return dataclasses.replace(RunConfig(data=data, evaluation=EvalConfig(documents_bytes=6_000, stride=32)), **changes)


@pytest.fixture(scope="module")
def fitted(few_starts_in_module):
    """A small study of LAW against its floor."""
    settings = AnalysisSettings(draws=59)
    rows = synthetic.study(law=LAW, sigma=0.0005, seed=4)
    cells, noise = synthetic.cells(rows), fit_noise(synthetic.table(rows), settings)
    three = parametric.fit_parametric(cells, noise, settings)
    return oracle_fit.compare(TRUE, cells, three, noise, settings)


def test_a_law_that_holds_is_found_and_its_floor_identified(fitted):
    assert fitted.identified
    assert fitted.width < oracle_fit.WIDEST
    assert "E is identified" in fitted.verdict
    for name in ("alpha", "beta"):
        assert fitted.reducible[name].value == pytest.approx(0.35, abs=0.01)
        assert fitted.reducible[name].high - fitted.reducible[name].low < getattr(fitted, name).high - getattr(fitted, name).low
    assert fitted.ideal == {"alpha": 0.5, "beta": pytest.approx(1 / 3)}


def test_the_results_say_it(fitted):
    assert results.from_json(results.to_json(fitted)) == fitted
    nothing = results.encode(Refusal("missing", "not asked for"))
    exponents = dict.fromkeys(("envelope", "isoflop", "parametric"), nothing)
    made = {"exponents": exponents, "recommended": [], "sigma": {}, "forecast": None, "excluded": [], "cautions": []}
    printed = summary.render({"study": "s", **made, "oracle": results.encode(fitted)})
    assert fitted.verdict in printed
    assert "of an ideal learner 0.33" in printed
    assert "of an ideal learner" not in summary.render({"study": "s", **made})
    table = answers.oracle(SimpleNamespace(oracle=fitted), Reasons())
    assert [row[-1] for row in table.rows] == ["0.50", "0.33"]


def test_an_interval_that_misses_or_is_wide_identifies_nothing():
    def said(low, high, at=0.45):
        floor = Estimate(0.45, low, high, 0.8, "m")
        return oracle_fit.verdict(floor, at, (high - low) / at, floor.covers(at))

    assert said(0.43, 0.47).startswith("E is identified")
    missed = said(0.46, 0.47)
    assert missed.startswith("E is unidentified")
    assert all(words in missed for words in ("80%", "0.460 to 0.470", "misses", "0.4500"))
    assert said(0.40, 0.47).startswith("E is unidentified")
    refused = Refusal("unidentified", "N spans a factor 2")
    assert oracle_fit.verdict(refused, 0.45, None, False) == "E is unidentified: N spans a factor 2"
    assert "no interval (too few)" in oracle_fit.verdict(
        Estimate(0.45, None, None, 0.8, "m", Refusal("interval", "too few")), 0.45, None, False
    )


def test_losses_below_the_least_possible_are_refused():
    cells = synthetic.cells(synthetic.study(law=LAW))
    got = oracle_fit.fit_above(2.0, cells, Refusal("no_replicas", "none"), AnalysisSettings())
    assert isinstance(got["alpha"], Refusal)
    assert "data or oracle are wrong" in got["alpha"].reason


def test_the_truth_is_the_oracles_loss_on_the_documents_that_are_judged(tmp_path):
    found = oracle.measure(config(), CHAIN, str(tmp_path))
    held = pipeline.prepare(config().data, str(tmp_path), lambda _: None).validation
    reader, source, nats, size, documents = Oracle(CHAIN), WordChainSource(CHAIN), 0.0, 0, 0
    for i in range(len(held)):
        if size + held.byte_counts[i] <= 6_000:
            nats += reader.document(source.words(int(held.index_of[i])))
            size += int(held.byte_counts[i])
            documents += 1
    assert found.nats_per_byte == pytest.approx(nats / size, rel=1e-12)
    assert (found.bytes, found.documents) == (size, documents)
    assert found.rate < found.expected
    assert abs(found.nats_per_byte / found.expected - 1) < 0.15


def test_it_is_measured_once_and_kept_with_the_study(tmp_path, monkeypatch):
    study = {"fingerprint": "f", "definition": {"base": config_lib.experiment_part(config())}, "data_dir": "data"}
    (tmp_path / "study.json").write_text(json.dumps(study), encoding="utf-8")
    first = oracle.least_loss(config(), tmp_path)
    monkeypatch.setattr(oracle, "measure", lambda *_: pytest.fail("measured twice"))
    assert oracle.least_loss(config(), tmp_path) == first
    assert oracle.least_loss(RunConfig(), tmp_path) is None
    both = dataclasses.replace(config().data, components=(Component("word_chain", chain=CHAIN), Component()))
    assert oracle.chain_of(config(data=both)) is None
    assert oracle.chain_of(config(data=dataclasses.replace(both, components=(Component("word_chain"),)))) == WordChain()


def test_windows_without_the_words_that_predict_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"evaluation\.stride=54"):
        oracle.measure(config(evaluation=EvalConfig(stride=60)), CHAIN, str(tmp_path))
    with pytest.raises(UserError, match=r"data\.sequence_length"):
        oracle.require_context(config(), dataclasses.replace(CHAIN, lag=30))
    oracle.require_context(config(evaluation=EvalConfig(stride=54)), CHAIN)


def test_any_scored_byte_can_be_predicted_from_its_window():
    """What a reader with the stated context knows is what the oracle uses: predictions from the tail of a document are the same."""
    chain = dataclasses.replace(CHAIN, lag=2)
    reader, source = Oracle(chain), WordChainSource(chain)
    context = (chain.lag + 1) * (reader.language.longest + 1)
    for words in source.chains(range(5)):
        whole, sizes = reader.bytes(words), reader.language.letters(words) + 1
        for first in range(0, len(words) - chain.lag, 7):
            begin = int(sizes[:first].sum())
            tail = reader.bytes(words[first:])
            assert np.allclose(tail[context:], whole[begin + context :], atol=1e-9)
