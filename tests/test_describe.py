"""The text of `--dry_run`, for every architecture."""

import dataclasses
import importlib

import jax
import pytest

from lm import describe
from lm.model.flops import ledger
from lm.optim.config import Adafactor
from lm.scaling.words import short
from lm.train.build import build
from lm.train.derived import row_of, total_steps

FILES = ("decoder", "prefix_lm", "encoder_decoder", "encoder")


def tiny(file):
    return importlib.import_module(f"configs.{file}").get_config("tiny")


@pytest.mark.parametrize("file", FILES)
def test_a_run_is_described_by_its_ledger(file, tmp_path):
    config = dataclasses.replace(tiny(file), data_dir=str(tmp_path))
    text = describe.describe(build(config, jax.devices()[:1]))
    counts, row = ledger(config.model, row_of(config)), row_of(config)
    tokens = total_steps(config) * config.batch_size * row.text
    assert f"parameters  {counts.params['total']:,}: embedding" in text
    for name, per_token in counts.flops_per_token.items():
        assert short(f"{name} {per_token * tokens:.4g}") in text
    assert f"under {config.data.objective.name}: " in text
    assert f"{row.length:,} positions" in text
    assert ("encoder/block_00" in text) == (config.model.architecture in ("encoder", "encoder_decoder"))
    assert (f"encoder {row.encoder_length}," in text) == (config.model.architecture == "encoder_decoder")
    assert "not prepared yet" in text


def test_adafactor_needs_less_memory_than_adam_and_more_than_nothing():
    adam = tiny("decoder")
    wide = dataclasses.replace(adam.model, d_model=256, mlp=dataclasses.replace(adam.model.mlp, d_ff=512))
    adam = dataclasses.replace(adam, model=wide)
    factored = dataclasses.replace(adam, optim=dataclasses.replace(adam.optim, optimizer=Adafactor()))
    weights = 4 * ledger(wide, 128).params["total"]
    bytes_of = {}
    for name, config in (("adam", adam), ("adafactor", factored)):
        text = describe.memory(build(config, jax.devices()[:1]))
        bytes_of[name] = float(text.split(": ")[1].split(" ")[0]) * 1e6
    assert bytes_of["adam"] == pytest.approx(4 * weights, abs=0.1e6)
    assert 2 * weights < bytes_of["adafactor"] < 2.6 * weights
