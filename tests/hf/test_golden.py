"""Checkpoints that transformers wrote: its outputs, and both directions of the tables. tests/parity/write_golden.py writes the files."""

import json

import jax
import ml_dtypes
import numpy as np
import pytest
from hf.checkpoints import GOLDEN, NAMES, edited
from safetensors import safe_open
from safetensors.numpy import load_file

from lm import hf
from lm.model.architectures import build
from lm.model.counts import parameters
from lm.model.execution import Execution
from lm.model.weights import flatten
from lm.types import Inputs

goldens = pytest.mark.parametrize("name", NAMES)


def same(params, others):
    params, others = flatten(params), flatten(others)
    return params.keys() == others.keys() and all(np.array_equal(params[path], others[path]) for path in params)


@goldens
def test_outputs_are_those_of_transformers(name):
    config, params = hf.load(GOLDEN / name)
    expected = np.load(GOLDEN / name / "expected.npz")
    mask = expected["mask"]
    inputs = Inputs(tokens=expected["tokens"], segments=mask, token_types=expected["token_types"] if config.token_types else None)
    if "encoder_tokens" in expected:
        inputs = Inputs(inputs.tokens, mask, encoder_tokens=expected["encoder_tokens"], encoder_segments=expected["encoder_mask"])
    model = build(config, Execution(unroll=False))
    found = jax.jit(model.apply)(params, inputs)
    by_name = {"logits": found.logits, "encoded": found.encoded, "pooled": found.pooled, **found.heads}
    names = [key.removeprefix("expected_") for key in expected if key.startswith("expected_")]
    assert "logits" in names
    for key in names:
        theirs, ours = expected[f"expected_{key}"], np.asarray(by_name[key])
        if key in ("pooled", "next_sentence"):
            ours = ours[:, 0]
        else:
            real = expected["encoder_mask"] if key == "encoded" else mask
            theirs, ours = theirs[real > 0], ours[real > 0]
        assert np.abs(ours - theirs).max() <= 1e-4 * np.abs(theirs).max(), key


@goldens
@pytest.mark.parametrize("max_shard_bytes", [10**9, 1_000])
def test_load_undoes_save(name, tmp_path, max_shard_bytes):
    config, params = hf.load(GOLDEN / name)
    hf.save(tmp_path / "out", config, params, family=None, max_shard_bytes=max_shard_bytes)
    sharded = (tmp_path / "out" / "model.safetensors.index.json").exists()
    assert sharded == (max_shard_bytes == 1_000)
    again, others = hf.load(tmp_path / "out")
    assert again == config
    assert same(params, others)


@goldens
def test_save_undoes_load(name, tmp_path):
    """The same tensors byte for byte, but for what the model has once and the rows of BART's and RoBERTa's positions that no one reads."""
    family = hf.FAMILIES[json.loads((GOLDEN / name / "config.json").read_text())["model_type"]]
    hf.save(tmp_path / "out", *hf.load(GOLDEN / name), family=family.name)
    before, after = load_file(GOLDEN / name / "model.safetensors"), load_file(tmp_path / "out" / "model.safetensors")
    assert after.keys() <= before.keys()
    assert before.keys() - after.keys() <= family.tied.keys()
    for key in after:
        first = 2 if "embed_positions" in key or key.startswith("roberta.embeddings.position") else 0
        np.testing.assert_array_equal(after[key][first:], before[key][first:])
        assert not after[key][:first].any()


@goldens
def test_number_of_parameters(name):
    config, params = hf.load(GOLDEN / name)
    assert sum(leaf.size for leaf in flatten(params).values()) == parameters(config)["total"]


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_weights_of_16_bits_become_float32(tmp_path, dtype):
    tensors = {key: value.astype(dtype) for key, value in load_file(GOLDEN / "llama" / "model.safetensors").items()}
    folder = edited(tmp_path, "llama", tensors=tensors)
    _, params = hf.load(folder)
    _, full = hf.load(GOLDEN / "llama")
    for path, leaf in flatten(params).items():
        assert leaf.dtype == np.float32
        np.testing.assert_array_equal(leaf, flatten(full)[path].astype(dtype).astype(np.float32))


def test_files_name_the_framework_that_transformers_asks_for(tmp_path):
    hf.save(tmp_path / "out", *hf.load(GOLDEN / "t5"))
    with safe_open(tmp_path / "out" / "model.safetensors", framework="numpy") as file:
        assert file.metadata() == {"format": "pt"}


def test_names_of_older_releases(tmp_path):
    """GPT-2 without its prefix and with its masks, BERT's gamma and beta, GPT-NeoX's present name of embed_out."""
    _, params = hf.load(GOLDEN / "gpt2")
    found = load_file(GOLDEN / "gpt2" / "model.safetensors")
    old = dict.fromkeys(found) | {name.removeprefix("transformer."): value for name, value in found.items()}
    old |= {"h.0.attn.bias": np.ones((1, 1, 9, 9), np.float32), "lm_head.weight": found["transformer.wte.weight"]}
    assert same(hf.load(edited(tmp_path / "gpt2", "gpt2", tensors=old))[1], params)
    for name, pairs in {
        "bert": [("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta")],
        "gpt_neox": [("embed_out.", "lm_head.")],
    }.items():
        found, renamed = load_file(GOLDEN / name / "model.safetensors"), {}
        for key, value in found.items():
            new = key
            for present, other in pairs:
                new = new.replace(present, other)
            renamed |= {key: None, new: value} if new != key else {}
        assert renamed
        assert same(hf.load(edited(tmp_path / name, name, tensors=renamed))[1], hf.load(GOLDEN / name)[1])


def test_keys_of_transformers_4_and_5_mean_the_same(tmp_path):
    config, _ = hf.load(GOLDEN / "llama")
    scaling = json.loads((GOLDEN / "llama" / "config.json").read_text())["rope_parameters"]
    old = {"rope_theta": scaling.pop("rope_theta"), "rope_scaling": scaling}
    assert hf.load(edited(tmp_path, "llama", config=old, drop=["rope_parameters"]))[0] == config
    assert config.rope_theta == 500.0
    assert config.rope_scaling is not None
