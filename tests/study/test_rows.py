"""Losses of different types are never compared."""

import dataclasses
import json

import pytest
import synthetic

from lm import config as config_lib
from lm.analysis.analysis import analyse
from lm.config import apply_overrides
from lm.errors import UserError
from lm.study.rows import one_likelihood, read_rows
from lm.train.config import RunConfig

PAIRS = apply_overrides(RunConfig(), ["model.architecture=encoder_decoder", "data.objective=span_corruption"])


def test_an_analysis_of_two_classes_is_refused_in_one_line():
    mixed = synthetic.study()
    mixed[3] = dataclasses.replace(mixed[3], likelihood="pairs of denoising")
    with pytest.raises(UserError, match=r"text in \d+ runs, pairs of denoising in 1 run\b") as caught:
        analyse(mixed)
    assert "\n" not in str(caught.value)


def test_a_class_is_read_from_the_record(tmp_path):
    """A record names its class; one from before there were classes is of text. Pairs are judged by nats per target."""
    cell = {
        "role": "grid", "stage": 0, "budget": 1e9, "seed": 0, "params": {}, "flops": {}, "tokens": 1, "steps": 1, "batch_size": 1,
        "sequence_length": 8, "learning_rate": 0.1, "learning_rate_factor": 1.0, "shape": {},
    }  # fmt: skip
    (tmp_path / "study.json").write_text(json.dumps({"cells": [{**cell, "id": name} for name in ("a", "b")]}))
    final = {"nats_per_token": 2.0}
    records = {
        "a": {"status": "completed", "final": {**final, "nats_per_byte": 1.0}},
        "b": {"status": "completed", "final": final, "likelihood": PAIRS.likelihood, "experiment": config_lib.experiment_part(PAIRS)},
    }
    for name, record in records.items():
        (tmp_path / "cells" / name).mkdir(parents=True)
        (tmp_path / "cells" / name / "run.json").write_text(json.dumps(record))
    text, pairs = read_rows(tmp_path)
    assert (text.likelihood, text.measure, text.loss) == ("text", "nats_per_byte", 1.0)
    assert (pairs.likelihood, pairs.measure, pairs.loss) == ("pairs of span_corruption", "nats_per_token", 2.0)
    assert one_likelihood([pairs]) == "pairs of span_corruption"
    with pytest.raises(UserError, match="pairs of span_corruption"):
        one_likelihood([text, pairs])
