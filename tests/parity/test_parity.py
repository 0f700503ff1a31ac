"""Every family against transformers, live: outputs, gradients, files in both directions, numbers of parameters. `make parity` runs this."""

import dataclasses
import functools
import json

import numpy as np
import ours
import pytest
import reference
import transformers
from cases import BY_NAME, CASES, Case, make, rows

from lm import hf
from lm.model.counts import parameters

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
cases = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
FIRST = [case for case in CASES if case == next(other for other in CASES if other.architecture == case.architecture)]


@functools.cache
def model(case: Case):
    return make(case)


load = functools.cache(hf.load)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Directories as transformers writes them, by case."""

    @functools.cache
    def saved(case: Case):
        path = tmp_path_factory.mktemp(case.name)
        model(case).save_pretrained(path)
        return path

    return saved


def family_of(path) -> str:
    return json.loads((path / "config.json").read_text())["model_type"]


def compare_outputs(found, expected, row, tolerance):
    assert set(expected) <= set(found)
    for name, theirs in expected.items():
        mine = found[name]
        if mine.ndim == theirs.ndim + 1:  # one sequence a row
            mine = mine[:, 0]
        if name == "encoded":
            mine, theirs = mine[row.encoder_mask > 0], theirs[row.encoder_mask > 0]
        elif theirs.ndim == 3:
            mine, theirs = mine[row.mask > 0], theirs[row.mask > 0]
        assert mine.shape == theirs.shape, name
        assert np.abs(mine - theirs).max() <= tolerance * np.abs(theirs).max(), name


def compare_gradients(found, expected, tolerance):
    """Each leaf on its own scale, or on a thousandth of the largest: the gradient of a key's bias is 0 but for rounding."""
    assert set(found) == set(expected)
    largest = max(np.abs(leaf).max() for leaf in expected.values())
    for name, theirs in expected.items():
        scale = max(np.abs(theirs).max(), 1e-3 * largest)
        assert np.abs(found[name] - theirs).max() <= tolerance * scale, name


@pytest.mark.parametrize("case", FIRST, ids=lambda case: case.name)
def test_float32(case, folder):
    """One model of each class: options are compared in float64, where rounding hides nothing."""
    row = rows(case)
    config, params = load(folder(case))
    expected, gradients = reference.run(case, model(case), row)
    found, mine = ours.run(config, params, row)
    compare_outputs(found, expected, row, 1e-4)
    if config.head_bias and config.architecture == "encoder_decoder":
        mine["head/bias"] *= 0  # final_logits_bias is a buffer there
    compare_gradients(mine, ours.in_our_layout(family_of(folder(case)), config, gradients, "float32"), 1e-3)


@cases
def test_float64(case, folder):
    row = rows(case)
    config, params = load(folder(case))
    with reference.double():
        wide = make(case, dict(model(case).state_dict()))
        expected, gradients = reference.run(case, wide, row)
    assert {value.dtype for value in expected.values()} == {np.dtype(np.float64)}
    found, mine = ours.run(config, params, row, "float64")
    compare_outputs(found, expected, row, 1e-9)
    if config.head_bias and config.architecture == "encoder_decoder":
        mine["head/bias"] *= 0
    compare_gradients(mine, ours.in_our_layout(family_of(folder(case)), config, gradients, "float64"), 1e-8)


@pytest.mark.parametrize("name", ["gpt2_small", "llama_small", "gemma_small", "olmo2_small", "t5_small", "bert_small", "bart_untied_small"])
def test_the_small_models_see_a_wrong_epsilon(name, folder):
    """A tenth more epsilon moves their float64 logits far beyond the tolerance; float32 would pass some of it."""
    case, row = BY_NAME[name], rows(BY_NAME[name])
    config, params = load(folder(case))
    right = ours.logits(config, params, row)
    wrong = ours.logits(dataclasses.replace(config, norm_epsilon=1.1 * config.norm_epsilon), params, row)
    assert np.abs(right - wrong).max() > 1e-7 * np.abs(right).max()


EXPORTS = [(case, 10**9) for case in CASES] + [(case, 6_000) for case in FIRST]


@pytest.mark.parametrize(("case", "max_shard_bytes"), EXPORTS, ids=lambda value: getattr(value, "name", value))
def test_what_we_export_transformers_reads(case, folder, tmp_path, max_shard_bytes):
    row = rows(case)
    config, params = load(folder(case))
    hf.save(tmp_path / "model", config, params, family=family_of(folder(case)), max_shard_bytes=max_shard_bytes)
    assert (tmp_path / "model" / "model.safetensors.index.json").exists() == (max_shard_bytes == 6_000)
    again, notes = case.model_class.from_pretrained(tmp_path / "model", attn_implementation="eager", output_loading_info=True)
    assert not any(notes.values()), notes
    expected = reference.outputs(case, model(case), row)
    found = reference.outputs(case, again.eval(), row)
    for name in expected:
        np.testing.assert_array_equal(found[name].detach().numpy(), expected[name].detach().numpy())


@pytest.mark.parametrize("name", ["llama3", "bart_untied_small", "t5_1.1"])
def test_shards_that_transformers_writes(name, folder, tmp_path):
    case = BY_NAME[name]
    model(case).save_pretrained(tmp_path, max_shard_size=6_000)
    assert (tmp_path / "model.safetensors.index.json").exists()
    (config, params), (again, same) = load(folder(case)), hf.load(tmp_path)
    assert config == again
    for path, leaf in ours.flatten(params).items():
        np.testing.assert_array_equal(ours.flatten(same)[path], leaf)


@cases
def test_number_of_parameters(case, folder):
    config, _ = load(folder(case))
    theirs = sum(parameter.numel() for parameter in model(case).parameters())
    if case.architecture.startswith("Roberta"):
        theirs -= 2 * config.d_model  # rows of positions that stand for padding
        theirs -= config.vocab_size if config.vocabulary_head and not config.tied_head else 0  # the head's bias is there twice
    if case.architecture.startswith("Bart"):
        theirs -= 4 * config.d_model  # rows 0 and 1 of both tables of positions are read by no one
        theirs += config.vocab_size  # final_logits_bias is a buffer there
        theirs -= 0 if config.tied_head else 2 * config.vocab_size * config.d_model  # three tables where the model has one
    assert parameters(config)["total"] == theirs


@pytest.mark.parametrize("both_ways", [True, False])
@pytest.mark.parametrize(("buckets", "furthest"), [(32, 128), (32, 20), (8, 13), (16, 1000)])
def test_buckets_of_distance(both_ways, buckets, furthest):
    """Every edge between buckets, in float32 as both compute them."""
    import torch
    from transformers.models.t5.modeling_t5 import T5Attention

    from lm.model.positions import bucket

    distance = np.arange(-1500, 1500)
    theirs = T5Attention._relative_position_bucket(torch.from_numpy(-distance), both_ways, buckets, furthest)
    mine = bucket(distance.astype(np.int32), buckets, furthest, both_ways=both_ways)
    np.testing.assert_array_equal(np.asarray(mine), theirs.numpy())
