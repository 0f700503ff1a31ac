"""Benchmarks: what is made of the times of two sides, and what is refused. Nothing here is timed."""

import json

import pytest

from experiments import __main__ as command
from experiments.benchmarks import alternate, commands, ours, side
from experiments.benchmarks.shapes import DECODER
from experiments.benchmarks.train_cpu import BENCHMARKS
from lm.errors import UserError
from lm.model.flops import ledger
from lm.train.derived import row_of


def times(wall, user, system):
    return {"wall": wall, "user": user, "system": system, "loss": 9.0}


@pytest.fixture
def result(monkeypatch):
    """The result of a benchmark whose sides took these times."""
    config = ours.decoder_config(DECODER)
    facts = (
        {
            "program": "jax 1",
            "attention": "rows",
            "steps_per_dispatch": 1,
            "compiler_options": {"level": 2},
            "environment": {"device": "1 x cpu", "cpu": "a CPU", "lm": "1"},
            "flops_per_token": dict(ledger(config.model, row_of(config)).flops_per_token),
        },
        {"program": "torch 2", "attention": "fused", "threads": 2, "parameters": 6_901_760},
    )
    rounds = [(times(1, 1.5, 0.5), times(2, 3, 1)), (times(2, 2, 0), times(2, 4, 0)), (times(1, 2, 0), times(3, 4, 0))]
    monkeypatch.setattr(alternate, "measure", lambda *sides, **how: alternate.Pair(facts, rounds, [0.1, 0.2, 2.5]))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: True)
    return BENCHMARKS["train_cpu"].measure(rounds=3, steps=1, say=print)


def test_a_ratio_is_the_median_of_rounds_with_their_range(result):
    assert result["ratio"] == {"median": 2.0, "least": 1.0, "most": 3.0}
    assert result["ratio_processor"] == {"median": 2.0, "least": 2.0, "most": 2.0}
    assert result["tokens_per_second"] == [4096.0, 2048.0]
    # 6 x (weights of products) + causal attention, of a step that takes a second
    products = 6 * 12 * 256 * 256 + 256 * 8192
    assert result["gflops_per_second"] == pytest.approx(4096 * (6 * products + 6 * 6 * 256 * 257) / 1e9, rel=1e-3)
    assert json.loads(json.dumps(result)) | {"rounds": None} == result | {"rounds": None}
    text = commands.told(result)
    assert "2.00 (1.00 to 3.00)" in text
    assert "0.1 to 2.5" in text


def test_a_side_is_timed_by_clock_and_processor():
    losses = iter([3.0, 2.0, 1.0])
    found = side.timed(lambda: next(losses), 2)
    assert found["loss"] == 2.0
    assert min(found.values()) >= 0
    assert side.timed(lambda: next(losses), 2, at_once=4)["loss"] == 1.0  # one call


@pytest.mark.parametrize("words", [["train_cpo"], ["train_cpu", "--rounds=0"]])
def test_wrong_words_are_one_line(words):
    with pytest.raises(UserError):
        command.main(["benchmarks", *words])


def test_both_sides_have_the_same_weights():
    config = ours.decoder_config(DECODER)
    assert ledger(config.model, row_of(config)).params["total"] == 6_901_760  # what torch counts of the peer
