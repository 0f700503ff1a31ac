"""Named configurations: each builds without allocating anything and has the parameters that its authors publish."""

import importlib
import math
from pathlib import Path

import jax
import pytest

from configs.shapes import decoder, encoder, encoder_decoder
from configs.shapes.encoder_decoder import T5, t5_alone
from lm import config as config_lib
from lm.data.objectives.shape import row_shape
from lm.data.own_ids import OwnIds
from lm.errors import UserError
from lm.hf import families
from lm.model.architectures import build
from lm.model.config import AttentionConfig
from lm.model.execution import Execution
from lm.model.flops import ledger
from lm.train.derived import total_steps

FILES = ("decoder", "prefix_lm", "encoder_decoder", "encoder")
MODULES = {name: importlib.import_module(f"configs.{name}") for name in FILES}
CONFIGS = {f"{file}.py:{name}": module.get_config(name) for file, module in MODULES.items() for name in module.CONFIGS}
SHAPES = decoder.SHAPES | encoder_decoder.SHAPES | encoder.SHAPES


def test_every_file_of_configs_is_here():
    assert {path.stem for path in Path("configs").glob("*.py")} == {*FILES, "__init__"}


@pytest.mark.parametrize("name", SHAPES)
def test_a_published_shape_has_the_published_parameters(name):
    shape = SHAPES[name]
    total = ledger(shape.model, 8).params["total"]
    if shape.published is not None:
        assert abs(total - shape.difference - shape.published) <= shape.within * shape.published


def test_the_tiny_decoder_can_be_exported():
    assert families.for_config(CONFIGS["decoder.py:tiny"].model).name == "qwen3"  # README exports its run


def largest_of_each_kind():
    """The largest shape of those that differ in sizes alone."""
    found = {}
    for name in sorted(SHAPES, key=lambda name: ledger(SHAPES[name].model, 8).params["total"]):
        leaves = [(leaf.path, leaf.value) for leaf in config_lib.leaves(SHAPES[name].model)]
        found[str([leaf for leaf in leaves if type(leaf[1]) not in (int, float)])] = name
    return sorted(found.values())


@pytest.mark.parametrize("name", largest_of_each_kind())
def test_a_published_shape_builds_as_it_is_counted(name):
    """The tree is abstract: 405B parameters are built without an array."""
    tree = build(SHAPES[name].model, Execution(unroll=False)).abstract()
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree)) == ledger(SHAPES[name].model, 8).params["total"]


@pytest.mark.parametrize("name", CONFIGS)
def test_a_named_config_is_a_run_that_can_be_planned(name):
    config = CONFIGS[name]
    model, row = config.model, row_shape(config.data, config.model.architecture)
    assert total_steps(config) > 100
    assert config.batch_size % config.execution.micro_batches == 0
    assert model.positions != "learned" or max(row.length, row.encoder_length) <= model.max_length
    pieces = {"bytes": 259}.get(config.data.tokenizer.name, getattr(config.data.tokenizer, "vocab_size", 0))
    assert pieces + config.data.objective.special_ids(OwnIds(mask=2)) <= model.vocab_size


def test_sizes_alone_are_llama_3_s():
    for size, name in (("1b", "llama3_2_1b"), ("8b", "llama3_8b"), ("70b", "llama3_70b")):
        assert MODULES["decoder"].get_config(size) == MODULES["decoder"].get_config(name)


def test_t5_s_table_of_architectures():
    """Parameters of the blocks in millions, as counted from the released configurations; a prefix LM has a language model's."""
    t5 = encoder_decoder.SHAPES
    models = {
        198.2: t5["t5_base"].model,
        113.2: t5["t5_base_shared"].model,
        99.1: t5["t5_base_half"].model,
        84.9: t5_alone("decoder", *T5["t5_base"][:-1]),
    }
    for millions, model in models.items():
        assert ledger(model, 512).params["blocks"] == pytest.approx(millions * 1e6, abs=0.05e6)
        assert ledger(model, 512).params["embedding"] == pytest.approx(24.7e6, abs=0.05e6)
    assert MODULES["prefix_lm"].get_config("t5_base").model.attention == models[84.9].attention
    assert ledger(t5_alone("prefix_lm", *T5["t5_base"][:-1]), 512).params == ledger(models[84.9], 512).params


def test_rotary_positions_cost_gopher_s_projection_of_distances():
    """What our shapes of Gopher and Chinchilla lack of the published counts: a kernel of d_model x d_model in each layer."""
    shape = decoder.SHAPES["gopher_280b"]
    assert shape.difference == -80 * 16_384**2
    assert ledger(shape.model, 8).params["total"] / shape.published == pytest.approx(0.92, abs=0.005)


@pytest.mark.parametrize("file", FILES)
def test_an_unknown_name_is_an_error_that_names_the_nearest(file):
    with pytest.raises(UserError, match=rf"configs/{file}\.py has no 'tinny'; the nearest is 'tiny'"):
        MODULES[file].get_config("tinny")


def test_bert_without_its_heads():
    base = encoder.bert(768, 12, 12)
    assert base.attention == AttentionConfig(num_heads=12, head_dim=64, bias=True)
    params, pooler = ledger(base, 8).params, 768**2 + 768
    heads = params["head"] - pooler + 2 * 768  # with the norm of the head's transform
    assert params["total"] - heads == 109_482_240
