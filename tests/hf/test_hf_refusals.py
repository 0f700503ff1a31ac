"""Models that cannot be loaded or saved are refused by name."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from hf.checkpoints import GOLDEN, NAMES, edited
from safetensors.numpy import load_file

from lm import hf
from lm.errors import UserError
from lm.hf.convert import LAYERS
from lm.hf.options import INERT
from lm.model.architectures import build
from lm.model.config import AttentionConfig, MLPConfig, ModelConfig
from lm.types import Inputs


def refused(folder, *words):
    with pytest.raises(UserError) as error:
        hf.load(folder)
    text = str(error.value)
    assert "\n" not in text
    assert all(word in text for word in words), text


@pytest.mark.parametrize("name", NAMES)
def test_more_layers_than_tensors_are_refused_at_once(tmp_path, name):
    values = json.loads((GOLDEN / name / "config.json").read_text())
    keys = [key for key in LAYERS if key in values]
    assert keys
    for key in keys:
        folder = edited(tmp_path / key, name, config={key: 10**9})  # a list of so many takes gigabytes
        refused(folder, key, "1000000000")


@pytest.mark.parametrize("place", ["../outside.safetensors", "/outside.safetensors", "inner/outside.safetensors"])
def test_an_index_names_files_beside_it_only(tmp_path, place):
    folder = edited(tmp_path, "gpt2")
    (tmp_path / "outside.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    names = sorted(load_file(folder / "model.safetensors"))
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": dict.fromkeys(names, place)}))
    refused(folder, "model.safetensors.index.json", place)


def test_a_family_that_is_not_supported(tmp_path):
    refused(edited(tmp_path, "gpt2", config={"model_type": "mamba"}), "model_type='mamba'", ", ".join(hf.FAMILIES))


@pytest.mark.parametrize(("family", "key", "experts"), [("mixtral", "num_local_experts", 8), ("qwen3_moe", "num_experts", 128)])
def test_mixtures_of_experts(tmp_path, family, key, experts):
    refused(edited(tmp_path, "llama", config={"model_type": family, key: experts}), f"model_type='{family}'", f"{key}={experts}")


# Keys as published models have them, none of which transformers reads.
WITHOUT_EFFECT = {
    "gpt2": {"_num_labels": 1, "n_special": 0, "predict_special_tokens": True, "n_ctx": 9, "summary_activation": None},
    "bart": {"_num_labels": 3, "force_bos_token_to_be_generated": True, "output_past": True, "min_length": 56, "num_beams": 4},
    "gpt_neox": {"custom_pipelines": {"text-generation": {"impl": "a.B", "pt": "AutoModelForCausalLM"}}, "_name_or_path": "model"},
    "llama": {
        "is_llama_config": True, "rope_interleaved": False, "max_sequence_length": 2048, "auto_map": {"AutoConfig": "a.B"}, "author": "x",
        "unsloth_fixed": True, "unk_token_id": 0, "pretraining_tp": 1, "pad_token_id": -1,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", WITHOUT_EFFECT)
def test_keys_without_effect(name):
    values = json.loads((GOLDEN / name / "config.json").read_text())
    family, tensors = hf.FAMILIES[name], frozenset(load_file(GOLDEN / name / "model.safetensors"))
    given = family.config(values | WITHOUT_EFFECT[name], tensors, "config.json")
    assert given == family.config(values, tensors, "config.json")


def test_all_unknown_options_are_named_at_once(tmp_path):
    folder = edited(tmp_path, "llama", config={"an_option": 1, "other": list(range(99)), "rope_interleaved": False, "third": None})
    refused(folder, "an_option=1", "other=[0, 1", "third=None")


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("gpt2", "scale_attn_by_inverse_layer_idx", True),
        ("gpt2", "scale_attn_weights", False),
        ("gpt2", "add_cross_attention", True),
        ("gpt2", "activation_function", "quick_gelu"),
        ("gpt2", "n_head", 4),
        ("gpt2", "n_head", 0),
        ("gpt2", "model_type", []),
        ("t5", "d_model", 0),
        ("bart", "d_model", -6),
        ("gpt2", "a_new_option", None),
        ("llama", "quantization_config", {"bits": 4}),
        ("llama", "hidden_act", "mish"),
        ("llama", "rope_interleaved", True),
        ("mistral", "attention_bias", True),
        ("qwen3", "layer_types", ["full_attention", "sliding_attention"]),
        ("qwen2", "use_mrope", True),
        ("gemma", "hidden_activation", "gelu"),
        ("gemma", "use_bidirectional_attention", True),
        ("gemma", "hidden_size", -1),
        ("smollm3", "no_rope_layers", [0, 1]),
        ("smollm3", "no_rope_layers", [1]),
        ("smollm3", "layer_types", ["full_attention", "sliding_attention"]),
        ("roberta", "pad_token_id", 0),
        ("roberta", "hidden_act", "relu"),
        ("t5", "feed_forward_proj", "gated-tanh"),
        ("t5", "is_gated_act", True),
        ("bert", "position_embedding_type", "relative_key"),
        ("bert", "is_decoder", True),
        ("bart", "encoder_attention_heads", 2),
        ("bart", "encoder_ffn_dim", 12),
        ("bart", "normalize_before", True),
    ],
)
def test_an_option_that_is_not_supported(tmp_path, name, key, value):
    refused(edited(tmp_path, name, config={key: value}), f"{key}={value!r}")


def test_a_tied_mt5_of_transformers_4_whose_states_were_scaled(tmp_path):
    refused(edited(tmp_path, "mt5", config={"transformers_version": "4.10.0"}), "tie_word_embeddings=True")


@pytest.mark.parametrize("kind", ["linear", "dynamic", "yarn", "longrope"])
def test_other_rotary_scalings(tmp_path, kind):
    group = {"rope_type": kind, "rope_theta": 1e4, "factor": 2.0}
    refused(edited(tmp_path, "llama", config={"rope_parameters": group}), "rope_parameters", f"rope_type='{kind}'")


def test_an_option_inside_rotary_parameters(tmp_path):
    group = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 2]}
    refused(edited(tmp_path, "qwen3", config={"rope_parameters": group}), "rope_parameters", "mrope_section=[1, 2]")


def test_options_that_contradict_each_other(tmp_path):
    config = {"rotary_pct": 0.5, "partial_rotary_factor": 0.25}
    refused(edited(tmp_path, "gpt_neox", config=config, drop=["rope_parameters"]), "rotary_pct=0.5", "partial_rotary_factor=0.25")


IMPLIED = {  # by other keys of the same files: transformers does not look at these then
    "t5": {"dense_act_fn", "is_gated_act", "tie_word_embeddings"},
    "mt5": {"dense_act_fn", "is_gated_act", "tie_word_embeddings"},
    "qwen2": {"max_window_layers", "sliding_window", "use_sliding_window"},
    "qwen3": {"max_window_layers", "sliding_window", "use_sliding_window"},
    "smollm3": {"no_rope_layer_interval", "use_sliding_window", "sliding_window"},
}


@pytest.mark.parametrize("name", NAMES)
def test_no_key_is_ignored_in_silence(name):
    """Every key of a golden config that is not known to be without effect changes the configuration when it is changed, or is refused."""
    values = json.loads((GOLDEN / name / "config.json").read_text())
    family = hf.FAMILIES[values["model_type"]]
    tensors = frozenset(load_file(GOLDEN / name / "model.safetensors"))
    config = family.config(values, tensors, "config.json")
    mapped = values.keys() - INERT - family.inert - {"model_type"} - IMPLIED.get(family.name, set())
    assert len(mapped) > 7
    for key in mapped:
        value, other = values[key], 7
        if isinstance(value, bool):
            other = not value
        elif isinstance(value, (int, float)):
            other = 3 * value + 1
        try:
            outcome = family.config(values | {key: other}, tensors, "config.json")
        except UserError:
            continue
        assert outcome != config, key


@pytest.mark.parametrize("name", NAMES)
def test_tensors_that_are_missing_surplus_or_of_the_wrong_shape(tmp_path, name):
    found = load_file(GOLDEN / name / "model.safetensors")
    key = next(key for key in sorted(found) if "mlp" in key or "fc1" in key or "DenseReluDense" in key or "intermediate" in key)
    refused(edited(tmp_path / "missing", name, tensors={key: None}), "lacks", key)
    refused(edited(tmp_path / "surplus", name, tensors={"extra.weight": np.zeros(2, np.float32)}), "extra.weight")
    wrong = np.zeros((5, 7, 1), np.float32)
    refused(edited(tmp_path / "shape", name, tensors={key: wrong}), key, "[5, 7, 1]", str(list(found[key].shape)))


def test_a_tied_table_that_differs(tmp_path):
    head = load_file(GOLDEN / "gpt2" / "model.safetensors")["transformer.wte.weight"] + 1
    refused(edited(tmp_path, "gpt2", tensors={"lm_head.weight": head}), "lm_head.weight", "transformer.wte.weight")


def test_weights_of_other_types(tmp_path):
    tensors = {"transformer.wte.weight": np.zeros((19, 6), np.int8)}
    refused(edited(tmp_path, "gpt2", tensors=tensors), "transformer.wte.weight", "I8")


def test_directories_that_are_no_model(tmp_path):
    refused(tmp_path, "config.json")
    folder = edited(tmp_path, "gpt2")
    (folder / "model.safetensors").write_bytes(b"123")
    refused(folder, "model.safetensors", "safetensors file")
    (folder / "model.safetensors").unlink()
    refused(folder, "model.safetensors", "model.safetensors.index.json")


def test_shards_and_index_that_do_not_belong_together(tmp_path):
    hf.save(tmp_path / "out", *hf.load(GOLDEN / "gpt2"), max_shard_bytes=2_000)
    index = tmp_path / "out" / "model.safetensors.index.json"
    values = json.loads(index.read_text())
    first, second = sorted(set(values["weight_map"].values()))[:2]
    moved = next(name for name, file in values["weight_map"].items() if file == first)
    index.write_text(json.dumps({"weight_map": values["weight_map"] | {moved: second}}))
    refused(tmp_path / "out", moved, "index")
    index.write_text(json.dumps({"weight_map": {moved: [first]}}))
    refused(tmp_path / "out", "weight_map")
    index.write_text(json.dumps(values))
    (tmp_path / "out" / first).unlink()
    refused(tmp_path / "out", first)


def test_two_sets_of_weights_in_one_directory(tmp_path):
    """A fresh file beside an old index, in whichever order they came; and an adapter, which transformers adds to the weights."""
    config, params = hf.load(GOLDEN / "gpt2")
    hf.save(tmp_path / "out", config, params, max_shard_bytes=2_000)
    shutil.copy(GOLDEN / "gpt2" / "model.safetensors", tmp_path / "out")
    refused(tmp_path / "out", "model.safetensors", "model.safetensors.index.json")
    index = tmp_path / "out" / "model.safetensors.index.json"
    shards = json.loads(index.read_text())
    index.write_text(json.dumps({"weight_map": dict.fromkeys(shards["weight_map"], "model.safetensors")}))
    hf.load(tmp_path / "out")  # the index of that one file
    index.write_text(json.dumps(shards))
    (tmp_path / "out" / "model.safetensors").unlink()
    hf.load(tmp_path / "out")
    (tmp_path / "out" / "adapter_config.json").write_text("{}")
    refused(tmp_path / "out", "adapter_config.json")


def test_an_export_adds_no_weights_to_a_directory_that_has_some(tmp_path):
    """Also where an import or a crash left shards without their index, or a description without weights."""
    config, params = hf.load(GOLDEN / "gpt2")
    for name in ("model-00001-of-00002.safetensors", "pytorch_model.bin", "generation_config.json", "adapter_config.json"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_text("{}")
        with pytest.raises(UserError, match=name):
            hf.save(tmp_path / name, config, params)


def test_a_sequence_beyond_the_learned_positions():
    config, params = hf.load(GOLDEN / "gpt2")
    with pytest.raises(UserError, match="max_length=9"):
        build(config).apply(params, Inputs(tokens=np.zeros((1, 10), np.int32)))


def test_models_that_no_family_holds(tmp_path):
    config = ModelConfig(attention=AttentionConfig(qk_norm=True), mlp=MLPConfig(activation="squared_relu", gated=True), logit_softcap=30.0)
    with pytest.raises(UserError, match=r"qwen3 .*logit_softcap: 30\.0 -> null"):
        hf.save(tmp_path / "out", config, {})
    llama, params = hf.load(GOLDEN / "llama")
    with pytest.raises(UserError, match="gpt2"):
        hf.save(tmp_path / "out", llama, params, family="gpt2")
    with pytest.raises(UserError) as error:  # 3 heads do not fill a width of 8: no config.json of the family says that
        hf.save(tmp_path / "out", hf.load(GOLDEN / "t5")[0], {}, family="bert")
    assert str(error.value).count("num_attention_heads=3") == 1
    with pytest.raises(UserError, match="gpt5"):
        hf.save(tmp_path / "out", llama, params, family="gpt5")
    assert not (tmp_path / "out").exists()


def test_ids_with_which_a_family_computes_something_else(tmp_path):
    config, params = hf.load(GOLDEN / "roberta")  # whose positions are counted from the tokens that are no padding
    with pytest.raises(UserError, match=r"roberta .*pad_token_id"):
        hf.save(tmp_path / "out", config, params, family="roberta", ids=({"pad_token_id": 0}, {}))
    assert not (tmp_path / "out").exists()
    hf.save(tmp_path / "out", config, params, family="bert", ids=({"pad_token_id": 0}, {}))


def test_what_is_written_is_not_written_over(tmp_path):
    config, params = hf.load(GOLDEN / "llama")
    hf.save(tmp_path / "out", config, params)
    with pytest.raises(UserError, match=r"config\.json"):
        hf.save(tmp_path / "out", config, params)
    with pytest.raises(UserError, match="embed/embedding"):
        hf.save(tmp_path / "other", dataclasses.replace(config, vocab_size=20), params)
