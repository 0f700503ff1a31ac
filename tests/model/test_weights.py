"""Merging refuses what nnx would mix up in silence; products on CPUs are the same functions."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from model.small import FAMILIES, GPT2, LLAMA, WINDOW, model_of, params_of

from lm.errors import UserError
from lm.model import transformer, weights
from lm.model.architectures import build
from lm.model.execution import Execution
from lm.model.parts.component import LinearSpec
from lm.model.transformer import Transformer
from lm.model.weights import check, flatten
from lm.sharding import RULES
from lm.types import Inputs


def changed(edit):
    params = jax.tree.map(lambda x: x, params_of(LLAMA))
    edit(params)
    return params


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda p: p["decoder"].update(block_01=p["decoder"].pop("block_00")), "block_00/attention/key/kernel is missing"),
        (lambda p: p.update(extra={"scale": jnp.ones(3)}), "extra/scale is unknown"),
        (lambda p: p["decoder"].update({0: p["decoder"].pop("block_00")}), "key 0 .* is a int"),
        (lambda p: p["head"].update(kernel=p["head"]["kernel"].T), r"head/kernel is float32\[24, 16\] but the model has float32\[16, 24\]"),
        (lambda p: p["decoder"]["norm"].update(scale=p["decoder"]["norm"]["scale"].astype(jnp.bfloat16)), "decoder/norm/scale is bfloat16"),
    ],
)
def test_other_names_shapes_and_dtypes_are_refused(edit, message):
    with pytest.raises(UserError, match=message):
        model_of(LLAMA).apply(changed(edit), Inputs(np.zeros((1, 2), np.int32)))


def test_its_own_parameters_are_accepted():
    check(params_of(LLAMA), model_of(LLAMA).abstract())


@pytest.mark.parametrize("family", FAMILIES)
def test_no_weight_is_shared_and_every_axis_has_a_rule(family):
    module = nnx.eval_shape(lambda: Transformer(FAMILIES[family], Execution(), key=jax.random.key(0)))
    assert nnx.find_duplicates(module) == []
    model = model_of(FAMILIES[family])
    for path, names in flatten(model.axes()).items():
        assert len(names) == len(flatten(model.abstract())[path].shape)
        Execution().rules.spec(names)


@pytest.mark.parametrize("wrong", [-1, 24, 2**31 - 1])
def test_an_id_beyond_the_vocabulary_gives_nan_and_no_other_ids_row(wrong):
    model, params = model_of(LLAMA), params_of(LLAMA)
    logits = np.asarray(model.apply(params, Inputs(np.asarray([[0, wrong, 3], [0, 2, 3]], np.int32))).logits)
    assert np.isnan(logits[0]).all()
    sound = np.asarray(model.apply(params, Inputs(np.asarray([[0, 2, 3], [0, 2, 3]], np.int32))).logits)
    np.testing.assert_array_equal(logits[1], sound[1])


@pytest.mark.parametrize(
    ("ins", "outs"), [({"embed": 6}, {"ffn": 8}), ({"ffn": 8}, {"embed": 6}), ({"heads": 2, "head_dim": 4}, {"embed": 6})]
)
def test_a_linear_layer_on_a_cpu_is_the_same_function(monkeypatch, ins, outs):
    """Its products are of two dimensions, and one with more inputs than outputs has its kernel transposed."""
    monkeypatch.setattr(weights, "LARGE", 1)
    monkeypatch.setattr(weights, "MANY", 1)
    x = jax.random.normal(jax.random.key(0), (2, 3, *ins.values()))

    def results(on_cpu):
        layer = weights.Linear(LinearSpec(ins, outs, bias=True), key=jax.random.key(1), rules=RULES, on_cpu=on_cpu)
        graph, params = nnx.split(layer)
        value, back = jax.vjp(lambda params, x: nnx.merge(graph, params)(x), params, x)
        return value, back(jnp.cos(value))

    for found, expected in zip(jax.tree.leaves(results(True)), jax.tree.leaves(results(False)), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_a_tied_head_on_a_cpu_is_the_same_function(monkeypatch):
    monkeypatch.setattr(weights, "LARGE", 1)
    monkeypatch.setattr(weights, "MANY", 1)
    table = weights.Embedding({"vocab": 12}, 4, 1.0, key=jax.random.key(0), rules=RULES)
    x = jax.random.normal(jax.random.key(1), (2, 3, 4))
    np.testing.assert_allclose(table.attend(x, on_cpu=True), table.attend(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("config", "has_factors"), [(LLAMA, False), (GPT2, True), (dataclasses.replace(WINDOW, num_layers=1), True)])
def test_the_factors_of_logits_are_theirs(monkeypatch, config, has_factors):
    """A cap on the logits leaves none; a tied head and one of its own have them."""
    for module, name in ((weights, "LARGE"), (weights, "MANY"), (transformer, "VOCABULARY")):
        monkeypatch.setattr(module, name, 1)
    model = build(config, Execution(platform="cpu"))
    params = jax.tree.map(lambda x: jnp.full(x.shape, 0.01).at[..., 0].set(0.5), model.abstract())
    outputs = jax.jit(model.apply)(params, Inputs(np.arange(6, dtype=np.int32)[None]))
    assert (outputs.factors is not None) == has_factors
    if outputs.factors is not None:
        states, kernel = outputs.factors
        np.testing.assert_allclose(states @ kernel, outputs.logits, rtol=1e-5, atol=1e-6)
