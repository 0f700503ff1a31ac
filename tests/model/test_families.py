"""Outputs depend on what they may and on nothing else, for every family: frontiers, packing, padding, predictions and precision."""

import dataclasses
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from model.families import (
    ENCODER_PACKED,
    FAMILIES,
    GPT2,
    LENGTH,
    LLAMA,
    ONE,
    PACKED,
    PREFIX,
    PREFIXES,
    VOCAB,
    influence,
    packed,
    rows,
    run,
)
from model.small import close, model_of, params_of

from lm.model.architectures import build
from lm.model.execution import Execution
from lm.model.weights import flatten
from lm.types import Inputs

EVERYTHING = os.environ.get("LAYOUTS") == "all"
DISTINCT = ["gpt2", "llama", "neox", "t5_1.0", "original", "bert"]  # in what their layers compute
HEADS = ["prefix", "reward", "bart_classes"]  # in what their heads do
FLOAT32 = 2e-5  # of a leaf's largest magnitude: another order of summation


def allowed(config, segments, encoder_segments):
    """Which inputs may reach each output through all layers, from the definitions: own tokens, and the encoder's."""
    distance = np.arange(LENGTH)[:, None] - np.arange(LENGTH)
    own = np.ones((LENGTH, LENGTH), bool) if config.architecture == "encoder" else distance >= 0
    if config.architecture == "prefix_lm":
        own = own | (PREFIXES[None, :] > 0)
    if config.attention.window is not None:
        own = own & (distance <= config.num_layers * (config.attention.window - 1))
    own = own & (segments[:, None] == segments[None])
    cross = (segments[:, None] == encoder_segments[None]) & (config.architecture == "encoder_decoder")
    return own, cross


@pytest.mark.parametrize("name", FAMILIES)
def test_outputs_change_with_the_tokens_before_every_frontier_and_with_none_past_it(name):
    """Bit for bit; test_execution holds the gradient to the slope."""
    config = FAMILIES[name]
    # Only a whole row is longer than what a window reaches through both layers.
    segments, encoder_segments = (ONE, ONE) if config.attention.window else (PACKED, ENCODER_PACKED)
    real = segments > 0
    found = influence(config, rows(config, segments, encoder_segments))
    for reached, expected in zip(found, allowed(config, segments, encoder_segments), strict=True):
        np.testing.assert_array_equal(reached[real], expected[real])


@pytest.mark.parametrize("name", FAMILIES if EVERYTHING else ["gpt2", "prefix"])
def test_the_gradient_is_zero_past_every_frontier_and_nowhere_before_it(name):
    """The tokens of a row differ, so that each row of the embedding gets what one position gets; states have no part of a tied head."""
    config = FAMILIES[name]
    segments, encoder_segments = (ONE, ONE) if config.attention.window else (PACKED, ENCODER_PACKED)
    inputs = jax.tree.map(lambda x: x[:1], rows(config, segments, encoder_segments))
    model, params, weights = model_of(config, Execution(unroll=False)), params_of(config), np.cos(np.arange(config.d_model))

    def state(table, position):
        hidden = model.apply({**params, "embed": {**params["embed"], "embedding": table}}, inputs).hidden
        return jnp.sum(hidden[0, position] * weights)

    gradient = jax.jit(jax.vmap(jax.grad(state), in_axes=(None, 0)))(params["embed"]["embedding"], jnp.arange(LENGTH))
    reached = np.any(np.asarray(gradient) != 0, axis=-1)
    real, (own, cross) = segments > 0, allowed(config, segments, encoder_segments)
    np.testing.assert_array_equal(reached[:, inputs.tokens[0]][real], own[real])
    if inputs.encoder_tokens is not None:
        np.testing.assert_array_equal(reached[:, inputs.encoder_tokens[0]][real], cross[real])


def parts(outputs, row, own, encoder, sequence):
    """Everything that the outputs say of one document, which lies at `own` in its row and at `encoder` in the encoder's."""
    heads = {name: value[row, sequence] if value.shape[1] == 2 else value[row, own] for name, value in outputs.heads.items()}
    found = {"hidden": outputs.hidden[row, own], **heads}
    found |= {} if outputs.logits is None else {"logits": outputs.logits[row, own]}
    found |= {} if outputs.pooled is None else {"pooled": outputs.pooled[row, sequence]}
    return found | ({} if outputs.encoded is None else {"encoded": outputs.encoded[row, encoder]})


DOCUMENTS, ENCODER_DOCUMENTS = ((0, 5), (5, 9)), ((0, 3), (3, 10))  # of PACKED and ENCODER_PACKED


def unpacked(inputs):
    """Row 0's documents, each alone at the start of a row with other padding behind it."""

    def alone(x, spans, fill):
        moved = np.full_like(x, fill)
        for row, (start, stop) in zip(moved, spans, strict=True):
            row[: stop - start] = x[0, start:stop]
        return moved

    made = {}
    for field in dataclasses.fields(Inputs):
        value = getattr(inputs, field.name)
        spans = ENCODER_DOCUMENTS if field.name.startswith("encoder_") else DOCUMENTS
        fill = 9 if field.name.endswith("tokens") else 0
        made[field.name] = value if value is None or field.name == "sequence_positions" else alone(value, spans, fill)
    made["sequence_positions"] = np.zeros_like(inputs.sequence_positions)
    return Inputs(**made)


@pytest.mark.parametrize("name", FAMILIES)
def test_packed_is_unpacked_in_both_streams_and_every_head(name):
    config, inputs, together = FAMILIES[name], rows(FAMILIES[name]), packed(name)
    (apart,) = run(config, unpacked(inputs))
    for sequence, (own, other) in enumerate(zip(DOCUMENTS, ENCODER_DOCUMENTS, strict=True)):
        expected = parts(together, 0, slice(*own), slice(*other), sequence)
        close(parts(apart, sequence, slice(0, own[1] - own[0]), slice(0, other[1] - other[0]), 0), expected, FLOAT32)


@pytest.mark.parametrize("name", FAMILIES)
def test_padding_changes_nothing_and_a_row_does_not_know_its_place(name):
    config, inputs, plain = FAMILIES[name], rows(FAMILIES[name]), packed(name)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(plain))
    changed = {"tokens": np.where(PACKED > 0, inputs.tokens, 31)}
    if inputs.encoder_tokens is not None:
        changed["encoder_tokens"] = np.where(ENCODER_PACKED > 0, inputs.encoder_tokens, 31)
    other, turned = run(config, dataclasses.replace(inputs, **changed), jax.tree.map(lambda x: x[::-1], inputs))
    for row in range(2):
        real = (np.flatnonzero(PACKED), np.flatnonzero(ENCODER_PACKED), slice(0, 2))
        expected = parts(plain, row, *real)
        jax.tree.map(np.testing.assert_array_equal, parts(other, row, *real), expected)
        close(parts(turned, 1 - row, *real), expected, FLOAT32)


@pytest.mark.parametrize("name", [name for name in FAMILIES if FAMILIES[name].vocabulary_head])
def test_predictions_are_those_of_all_positions(name):
    predict = np.array([[3, 0, 8, 8, 10, 2, 9, 1, 7, 5, 11, 6], [11, 4, 4, 0, 0, 0, 9, 8, 7, 6, 5, 3]], np.int32)
    (found,) = run(FAMILIES[name], dataclasses.replace(rows(FAMILIES[name]), predict=predict))
    close(found.logits, np.take_along_axis(packed(name).logits, predict[..., None], axis=1), FLOAT32)


@pytest.mark.parametrize("name", FAMILIES if EVERYTHING else DISTINCT)
def test_bfloat16_is_near_float32(name):
    """bfloat16 keeps 8 bits (relative error 2^-9); through both stacks the states' root-mean-square error stays under 4% of their own."""
    exact, (rounded,) = packed(name), run(FAMILIES[name], rows(FAMILIES[name]), dtype="bfloat16")
    assert rounded.hidden.dtype == jnp.bfloat16
    for leaf in (rounded.logits, *rounded.heads.values()):
        assert leaf is None or leaf.dtype == jnp.float32
    pairs = [(exact.hidden, rounded.hidden)] + ([] if exact.logits is None else [(exact.logits, rounded.logits)])
    for one, other in pairs:
        one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
        assert 0 < np.sqrt(np.mean((one - other) ** 2) / np.mean(one**2)) < 0.04


@pytest.mark.parametrize("name", FAMILIES)
def test_parameters_do_not_depend_on_the_length(name):
    config = FAMILIES[name]
    short, long = (flatten(build(dataclasses.replace(config, max_length=length)).abstract()) for length in (LENGTH, 4096))
    differ = {path for path in short if short[path].shape != long[path].shape}
    assert short.keys() == long.keys()
    stacks = {"encoder": ["encoder"], "encoder_decoder": ["decoder", "encoder"]}.get(config.architecture, ["decoder"])
    assert differ == ({f"{stack}/position/embedding" for stack in stacks} if config.positions == "learned" else set())
    assert all(long[path].shape[0] == 4096 for path in differ)


def initial_values(config, rng):
    """As `init` draws them, without a compilation for each model (tests of `init` itself are in test_architectures)."""
    model = model_of(config)

    def draw(leaf, initial):
        return np.float32(getattr(initial, "value", 0.0) + getattr(initial, "std", 0.0) * rng.standard_normal(leaf.shape))

    return jax.tree.map(draw, model.abstract(), model.initials())


@pytest.mark.parametrize("name", ["gpt2", "llama", "t5_1.0", "original", "bert"])  # each scales its embeddings or states in its own way
def test_first_logits_have_a_variance_near_one(name):
    config, rng = FAMILIES[name], np.random.default_rng(0)
    drawn = [run(config, rows(config), params=initial_values(config, rng))[0].logits[:, :9] for _ in range(12)]
    assert 0.7 < np.var(drawn) < 1.4


def test_a_prefix_lm_is_a_decoder_without_prefix_and_sees_both_ways_with_nothing_else():
    inputs, params = rows(PREFIX), params_of(PREFIX)
    empty, full = run(PREFIX, *(dataclasses.replace(inputs, prefix=np.full_like(inputs.prefix, value)) for value in (0, 1)))
    (decoder,) = run(dataclasses.replace(PREFIX, architecture="decoder"), inputs, params=params)
    np.testing.assert_array_equal(empty.logits, decoder.logits)
    renamed = {"encoder" if name == "decoder" else name: value for name, value in params.items()}
    (encoder,) = run(dataclasses.replace(PREFIX, architecture="encoder"), inputs, params=renamed)
    np.testing.assert_array_equal(full.logits, encoder.logits)


def test_a_cap_is_the_tanh_of_the_logits():
    (raw,) = run(dataclasses.replace(PREFIX, logit_softcap=None), rows(PREFIX))
    close(packed("prefix").logits, 8.0 * np.tanh(raw.logits / 8.0), FLOAT32)


def test_segments_positions_and_predictions_have_the_defaults_that_inputs_states():
    plain = rows(LLAMA, ONE)
    default = jax.jit(model_of(LLAMA).apply)(params_of(LLAMA), Inputs(plain.tokens))
    close(default.logits, run(LLAMA, plain)[0].logits, FLOAT32)
    config = FAMILIES["reward"]
    inputs = rows(config, np.where(np.arange(LENGTH) < 7, 1, 0).astype(np.int32))
    (default,) = run(config, dataclasses.replace(inputs, sequence_positions=None))
    (given,) = run(config, dataclasses.replace(inputs, sequence_positions=np.array([[6, 0], [6, 0]], np.int32)))
    np.testing.assert_array_equal(default.heads["reward"], given.heads["reward"][:, :1])
    assert default.heads["reward"].shape == (2, 1, 1)
    bert = FAMILIES["bert"]
    (first,) = run(bert, dataclasses.replace(rows(bert), sequence_positions=None))
    np.testing.assert_array_equal(first.pooled, packed("bert").pooled[:, :1])


def test_a_row_of_padding_alone_is_finite_in_both_streams():
    for name in ("t5_1.0", "bert"):
        config = FAMILIES[name]
        (outputs,) = run(config, rows(config, 0 * ONE, 0 * ONE))
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(outputs)), name


def unshared(params):
    decoder = params["decoder"]
    block = {name: part for name, part in decoder["block_00"].items() if not name.startswith("cross")}
    return {**params, "encoder": {**decoder, "block_00": block}}


def test_shared_stacks_are_two_of_the_same_weights_and_their_gradient_is_the_sum():
    shared = dataclasses.replace(FAMILIES["t5_shared"], num_layers=1)
    two, inputs, params = dataclasses.replace(shared, shared_stacks=False), rows(shared), params_of(shared)

    def gradient(config, params):
        def loss(params):
            logits = model_of(config).apply(params, inputs).logits
            return jnp.mean(jnp.square(logits)), logits

        return jax.jit(jax.grad(loss, has_aux=True))(params)

    (found, logits), (apart, expected) = gradient(shared, params), gradient(two, unshared(params))
    np.testing.assert_array_equal(logits, expected)
    encoder = flatten(apart["encoder"])
    for path, leaf in flatten(found["decoder"]).items():
        close(leaf, flatten(apart["decoder"])[path] + encoder.get(path, 0.0), FLOAT32)
    assert any(np.abs(leaf).max() > 0 for leaf in encoder.values())


def test_joined_documents_are_one_text():
    joined = dataclasses.replace(GPT2, attention=dataclasses.replace(GPT2.attention, documents="joined"))
    np.testing.assert_array_equal(run(joined, rows(GPT2))[0].logits, run(GPT2, rows(GPT2, ONE))[0].logits)


def floats(jaxpr, found):
    """(primitive, dtype, size) of every floating intermediate, in inner programs too."""
    for equation in jaxpr.eqns:
        for out in equation.outvars:
            if jnp.issubdtype(out.aval.dtype, jnp.floating):
                found.append((equation.primitive.name, str(out.aval.dtype), out.aval.shape))
        for value in equation.params.values():
            for inner in value if isinstance(value, (tuple, list)) else [value]:
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    floats(inner, found)
    return found


@pytest.mark.parametrize("name", FAMILIES if EVERYTHING else [*DISTINCT, "qwen3", *HEADS])
def test_float64_is_float64_inside(name):
    """Apart from statistics of activations, which travel beside the outputs, the mask's two constants, and T5's float32 buckets."""
    config = FAMILIES[name]
    with jax.enable_x64(True):
        model = build(config, Execution(param_dtype="float64", unroll=False))

        def told(params):
            outputs = model.apply(params, rows(config), compute_dtype=jnp.float64)
            return outputs.logits, outputs.hidden, outputs.heads, outputs.pooled, outputs.encoded

        closed = jax.make_jaxpr(told)(model.abstract())
        assert {str(out.dtype) for out in closed.out_avals} == {"float64"}
        narrow = {(primitive, shape) for primitive, dtype, shape in floats(closed.jaxpr, []) if dtype != "float64"}
    harmless = {"convert_element_type", "square", "reduce_sum", "div", "sqrt", "scan", "jit", "broadcast_in_dim", "select_n"}
    buckets = {"log", "mul", "max", "min"} if config.positions == "relative" else set()
    assert {primitive for primitive, _ in narrow} <= harmless | buckets
    products = {"dot_general", "exp", "tanh", "logistic", "erf", "rsqrt", "cos", "sin"}
    assert not products & {primitive for primitive, _ in narrow}
    assert VOCAB not in {shape[-1] for _, shape in narrow if shape}
