"""Nothing reads an index for a position: rows in another order say the same, and split over devices, keys gathered or passed round, too."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from model.families import BERT, FAMILIES, GPT2, LENGTH, LLAMA, PREFIX, SHARED, T5_10, rows
from model.small import close, params_of

from lm.mesh import MeshConfig
from lm.model.architectures import build
from lm.model.execution import Execution
from lm.sharding import make_mesh
from lm.train.zigzag import zigzag
from lm.types import Inputs

QUICK = {"xla_backend_optimization_level": 0}  # half the time to compile
FLOAT32 = 2e-5  # of a leaf's largest magnitude: another order of summation
JOINED = dataclasses.replace(LLAMA, attention=dataclasses.replace(LLAMA.attention, documents="joined"))
RELATIVE = dataclasses.replace(T5_10, architecture="decoder")
POOLED = ("sequence_positions", "predict")  # indices in the row


def moved(inputs: Inputs, ways: int) -> tuple[Inputs, np.ndarray]:
    """The rows as a loader lays them over `ways` devices, and the order that it chose."""
    order, values = zigzag(LENGTH, ways), vars(inputs)
    now = np.argsort(order).astype(np.int32)
    changed = {name: now[x] if name in POOLED else x[:, order] for name, x in values.items() if x is not None}
    index = np.tile(order, (len(inputs.tokens), 1))
    encoder = None if inputs.encoder_tokens is None else index
    return Inputs(**changed | {"original_index": index, "encoder_original_index": encoder}), order


def next_token(config, inputs, order=None, execution=Execution(unroll=False)):
    """A function of the parameters and its further arguments: the loss of the next token of each document, predicted where it stands, with
    every head, and the logits."""
    targets = np.roll(inputs.tokens if order is None else inputs.tokens[:, np.argsort(order)], -1, axis=1)
    segments = inputs.segments if order is None else inputs.segments[:, np.argsort(order)]
    weights = np.float32((segments > 0) & (np.roll(segments, -1, axis=1) == segments) & (np.arange(LENGTH) < LENGTH - 1))
    if order is not None:
        targets, weights = targets[:, order], weights[:, order]
    model = build(config, execution)

    def value(params, inputs, targets, weights):
        outputs = model.apply(params, inputs)
        log_p = jax.nn.log_softmax(outputs.logits)
        loss = -jnp.sum(jnp.take_along_axis(log_p, targets[..., None], axis=-1)[..., 0] * weights) / jnp.sum(weights)
        heads = [jnp.mean(jnp.square(x)) for x in outputs.heads.values() if x.shape[1] != LENGTH]
        return sum(heads, loss), outputs.logits

    return value, (inputs, jnp.asarray(targets), jnp.asarray(weights))


def in_order(logits, order):
    return np.asarray(logits) if order is None else np.asarray(logits)[:, np.argsort(order)]


def with_gradients(config, inputs, order=None, execution=Execution(unroll=False)):
    """The same and gradients, of one program on one device."""
    value, arguments = next_token(config, inputs, order, execution)
    step = jax.jit(jax.value_and_grad(value, has_aux=True), compiler_options=QUICK)
    (loss, logits), gradients = step(params_of(config), *arguments)
    return loss, in_order(logits, order), gradients


@functools.cache
def reference(name):
    """Loss, logits and gradients of plain attention to rows as they are."""
    config = GRADIENTS[name]
    return with_gradients(config, rows(config))


def same(found, expected):
    """Loss, logits, and gradients: within a share of a leaf's largest entry or of a hundredth of the largest of all."""
    close(found[0], expected[0], FLOAT32)
    close(found[1], expected[1], FLOAT32)
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(expected[2]))
    for (path, a), b in zip(jax.tree.leaves_with_path(found[2]), jax.tree.leaves(expected[2]), strict=True):
        scale = max(float(jnp.abs(b).max()), 0.01 * largest)
        np.testing.assert_allclose(a, b, atol=FLOAT32 * scale, rtol=0, err_msg=jax.tree_util.keystr(path))


# family, kernel
ORDERED = {
    "rotary": (LLAMA, "blockwise"),
    "learned": (GPT2, "xla"),
    "joined": (JOINED, "blockwise"),
    "relative": (RELATIVE, "blockwise"),
    "prefix": (PREFIX, "blockwise"),
    "t5": (SHARED, "xla"),
    "bert": (BERT, "xla"),
    "last token": (FAMILIES["reward"], "xla"),
}
GRADIENTS = {"rotary": LLAMA, "t5": T5_10}


@pytest.mark.parametrize("name", ORDERED)
def test_the_order_of_the_sequence_says_nothing(name):
    """One program reads the rows in the order of a loader and in their own."""
    config, kernel = ORDERED[name]
    inputs = rows(config)
    if name == "last token":  # which the batch does not name
        inputs = dataclasses.replace(inputs, sequence_positions=None)
    if name == "joined":
        inputs = dataclasses.replace(inputs, positions=None)
    execution = Execution(attention=kernel, unroll=False)
    program, found = jax.jit(next_token(config, inputs, None, execution)[0], compiler_options=QUICK), []
    for placed, order in (moved(inputs, 1), moved(inputs, 3)):
        loss, logits = program(params_of(config), *next_token(config, placed, order)[1])
        found.append((loss, in_order(logits, order)))
    close(*found, FLOAT32)


# Cases that tests/layouts leave out: heads split beside a ring, and blocks of gathered keys.
SPLIT = {
    "rotary": ({"data": 2, "context": 2, "tensor": 2}, "ring"),
    "t5": ({"fsdp": 2, "context": 2}, "gather"),
}


@pytest.mark.parametrize("name", SPLIT)
def test_a_sequence_over_devices_is_one_on_one(name):
    """Backward too: blocks are passed over, and distances found, by what the original index says."""
    config, (sizes, form) = GRADIENTS[name], SPLIT[name]
    mesh = make_mesh(MeshConfig(**{"data": 1, **sizes}), jax.devices()[: math.prod(sizes.values())])
    permuted, order = moved(rows(config), sizes["context"])
    execution = Execution(attention="blockwise", context=form, unroll=False)
    value, arguments = next_token(config, permuted, order, execution)

    def split(x):
        return jax.device_put(x, jax.NamedSharding(mesh, jax.P(("data", "fsdp"), "context" if x.shape[1] == LENGTH else None)))

    params = jax.device_put(params_of(config), build(config, execution).shardings(mesh))
    arguments = jax.tree.map(split, arguments)
    with jax.set_mesh(mesh):
        step = jax.jit(jax.value_and_grad(value, has_aux=True), compiler_options=QUICK).lower(params, *arguments).compile()
        (loss, logits), gradients = step(params, *arguments)
    same((loss, in_order(logits, order), gradients), reference(name))
    if form == "ring":
        passes_its_own_rows_and_heads(step.as_text())


def passes_its_own_rows_and_heads(text):
    """What travels are parts of keys, values, gradients and what the mask asks of them: of own rows and heads, and none is gathered."""
    made = [line.split(" = ", 1)[1] for line in text.splitlines() if "shard_map" in line and " = " in line]
    sent = {line.split("{")[0] for line in made if " collective-permute(" in line}
    assert sent == {"f32[1,6,1,4]", "s32[1,6]"}  # one row of two, half a sequence of 12, one head of two
    assert [line for line in made if " all-gather(" in line] == []
