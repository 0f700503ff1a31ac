"""Nothing reads an index for a position: rows in another order say the same, and split over devices, keys gathered or passed round, too."""

import dataclasses

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
POOLED = ("sequence_positions", "predict")  # places in the row


def moved(inputs: Inputs, ways: int) -> tuple[Inputs, np.ndarray]:
    """The rows as a loader lays them over `ways` devices, and the order that it chose."""
    order, values = zigzag(LENGTH, ways), vars(inputs)
    now = np.argsort(order).astype(np.int32)
    changed = {name: now[x] if name in POOLED else x[:, order] for name, x in values.items() if x is not None}
    index = np.tile(order, (len(inputs.tokens), 1))
    encoder = None if inputs.encoder_tokens is None else index
    return Inputs(**changed | {"original_index": index, "encoder_original_index": encoder}), order


def next_token(model, inputs, order):
    """Loss of the next token of each document, predicted where it stands; every head enters as well."""
    targets = np.roll(inputs.tokens if order is None else inputs.tokens[:, np.argsort(order)], -1, axis=1)
    segments = inputs.segments if order is None else inputs.segments[:, np.argsort(order)]
    weights = np.float32((segments > 0) & (np.roll(segments, -1, axis=1) == segments) & (np.arange(LENGTH) < LENGTH - 1))
    if order is not None:
        targets, weights = targets[:, order], weights[:, order]

    def value(params, inputs, targets, weights):
        outputs = model.apply(params, inputs)
        log_p = jax.nn.log_softmax(outputs.logits)
        loss = -jnp.sum(jnp.take_along_axis(log_p, targets[..., None], axis=-1)[..., 0] * weights) / jnp.sum(weights)
        heads = [jnp.mean(jnp.square(x)) for x in outputs.heads.values() if x.shape[1] != LENGTH]
        return sum(heads, loss), outputs.logits

    return value, (inputs, jnp.asarray(targets), jnp.asarray(weights))


def alone(config, inputs, order=None, execution=Execution()):
    """Loss, logits in the row's own order, and gradients, operation by operation on one device."""
    value, arguments = next_token(build(config, execution), inputs, order)
    with jax.disable_jit():
        (loss, logits), gradients = jax.value_and_grad(value, has_aux=True)(params_of(config), *arguments)
    return loss, logits if order is None else logits[:, np.argsort(order)], gradients


def same(found, expected):
    """Loss, logits, and gradients: within a share of a leaf's largest entry or of a hundredth of the largest of all."""
    close(found[0], expected[0], FLOAT32)
    close(found[1], expected[1], FLOAT32)
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(expected[2]))
    for (path, a), b in zip(jax.tree.leaves_with_path(found[2]), jax.tree.leaves(expected[2]), strict=True):
        scale = max(float(jnp.abs(b).max()), 0.01 * largest)
        np.testing.assert_allclose(a, b, atol=FLOAT32 * scale, rtol=0, err_msg=jax.tree_util.keystr(path))


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


@pytest.mark.parametrize("name", ORDERED)
def test_the_order_of_the_sequence_says_nothing(name):
    config, kernel = ORDERED[name]
    inputs = rows(config)
    if name == "last token":  # which the batch does not name
        inputs = dataclasses.replace(inputs, sequence_positions=None)
    if name == "joined":
        inputs = dataclasses.replace(inputs, positions=None)
    permuted, order = moved(inputs, 3)
    same(alone(config, permuted, order, Execution(attention=kernel)), alone(config, inputs))


# What the layouts' own tests leave out: rows and heads split beside a ring, and blocks of gathered keys.
SPLIT = {
    "rotary, ring": (LLAMA, {"data": 2, "context": 2, "tensor": 2}, "ring"),
    "t5, gathered blocks": (T5_10, {"fsdp": 4, "context": 2}, "gather"),
}


@pytest.mark.parametrize("name", SPLIT)
def test_a_sequence_over_devices_is_one_on_one(name):
    config, sizes, form = SPLIT[name]
    mesh, inputs = make_mesh(MeshConfig(**sizes)), rows(config)
    inputs = jax.tree.map(lambda x: np.concatenate([x, x]), inputs)
    permuted, order = moved(inputs, sizes["context"])
    model = build(config, Execution(attention="blockwise", context=form, unroll=False))
    value, arguments = next_token(model, permuted, order)

    def split(x):
        return jax.device_put(x, jax.NamedSharding(mesh, jax.P(("data", "fsdp"), "context" if x.shape[1] == LENGTH else None)))

    params, arguments = jax.device_put(params_of(config), model.shardings(mesh)), jax.tree.map(split, arguments)
    with jax.set_mesh(mesh):
        step = jax.jit(jax.value_and_grad(value, has_aux=True), compiler_options=QUICK).lower(params, *arguments).compile()
        (loss, logits), gradients = step(params, *arguments)
    same((loss, logits[:, np.argsort(order)], gradients), alone(config, inputs))
    if form == "ring":
        passes_its_own_rows_and_heads(step.as_text())


def passes_its_own_rows_and_heads(text):
    """What travels are parts of keys, values, gradients and what the mask asks of them: of own rows and heads, and none is gathered."""
    made = [line.split(" = ", 1)[1] for line in text.splitlines() if "shard_map" in line and " = " in line]
    sent = {line.split("{")[0] for line in made if " collective-permute(" in line}
    assert sent == {"f32[2,6,1,4]", "s32[2,6]", "s32[1,6]"}  # two rows of four, half a sequence of 12, one head of two
    assert [line for line in made if " all-gather(" in line] == []
