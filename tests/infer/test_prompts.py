"""Prompts begin and end as training streams do."""

import numpy as np
import pytest

from lm.data.objectives import config as C
from lm.data.objectives.base import SpecialIds
from lm.data.tokenizer import Bytes
from lm.errors import UserError
from lm.infer.prompts import prompt_ids, written

VOCAB = 300
A, B, EOS = ord("a") + 3, ord("b") + 3, 1


def ids(objective):
    return SpecialIds(Bytes(), objective, VOCAB)


@pytest.mark.parametrize(
    ("objective", "architecture", "text", "expected"),
    [
        (C.NextToken(), "decoder", "ab", [EOS, A, B]),
        (C.PrefixLM(), "prefix_lm", "ab", [EOS, A, B]),
        (C.PrefixLM(), "encoder_decoder", "ab", [A, B]),
        (C.SpanCorruption(), "encoder_decoder", "a_b_", [A, 299, B, 298, EOS]),
        (C.SpanCorruption(), "decoder", "a_", [EOS, A, 299, EOS]),
        (C.MixtureOfDenoisers(sentinels=20), "prefix_lm", "ab", [EOS, 278, A, B, EOS]),  # 279 R, 278 S
        (C.MixtureOfDenoisers(sentinels=20), "prefix_lm", "a_", [EOS, 279, A, 299, EOS]),
        (C.BartNoise(), "encoder_decoder", "a_b", [A, 2, B, EOS]),
        (C.FillInTheMiddle(), "decoder", "a_b", [EOS, 299, A, 298, B, 297]),
        (C.FillInTheMiddle(), "decoder", "ab", [EOS, A, B]),
        (C.Pairs(), "encoder_decoder", "ab", [A, B, EOS]),
    ],
)
def test_prompts(objective, architecture, text, expected):
    assert prompt_ids(text, ids(objective), architecture, blank="_") == expected


def test_prompts_are_what_training_lays_out():
    """The inputs of a pair, as the layout of training rows has them, are the prompt of their text."""
    from lm.data.objectives import layout
    from lm.data.objectives.examples import Examples
    from lm.data.objectives.ragged import Ragged
    from lm.rows import RowShape

    body = prompt_ids("ab", ids(C.Pairs()), "encoder_decoder")
    inputs, targets = Ragged(np.asarray(body), np.asarray([3])), Ragged(np.asarray([B, EOS]), np.asarray([2]))
    examples = Examples(inputs, targets, np.asarray([0]), 1)
    prompt = prompt_ids("ab", ids(C.Pairs()), "prefix_lm")
    row = layout.causal(examples, RowShape(8, predicted=4, fields=("prefix", "predict")), EOS, 0)
    assert row.tokens[0, : len(prompt)].tolist() == prompt
    assert row.prefix[0].tolist() == [1] * len(prompt) + [0] * (8 - len(prompt))
    assert row.predict[0, 0] == len(prompt) - 1
    two = layout.encoder_decoder(examples, RowShape(4, 5), EOS, 0)
    assert two.encoder_tokens[0, : len(body)].tolist() == body
    assert two.tokens[0, 0] == EOS


def test_what_was_written_shows_its_sentinels():
    assert written([299, A, B, 298, A], ids(C.SpanCorruption())) == "<0>ab<1>a"
    assert written([], ids(C.SpanCorruption())) == ""


@pytest.mark.parametrize(
    ("objective", "text"), [(C.NextToken(), "a_"), (C.SpanCorruption(sentinels=1), "_a_"), (C.FillInTheMiddle(), "_a_")]
)
def test_blanks_without_an_id_are_refused(objective, text):
    with pytest.raises(UserError, match="--blank"):
        prompt_ids(text, ids(objective), "decoder", blank="_")
