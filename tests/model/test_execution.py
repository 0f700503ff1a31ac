"""How a model is carried out changes nothing: scan or unroll, any rematerialisation, one device or eight."""

import dataclasses
import functools
import math
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from model.families import FAMILIES, rows
from model.small import close, params_of

from lm.mesh import MeshConfig
from lm.model.architectures import build
from lm.model.execution import Execution
from lm.model.weights import flatten
from lm.sharding import make_mesh

FLOAT32 = 2e-5  # of a leaf's largest magnitude: another order of summation
QUICK = {"xla_backend_optimization_level": 0}  # half the time to compile


def loss(model, inputs):
    """One number that all outputs enter."""

    def value(params):
        outputs = model.apply(params, inputs)
        read = [*outputs.heads.values()] + ([] if outputs.logits is None else [outputs.logits])
        return sum(jnp.mean(jnp.square(x - 1.0)) for x in read)

    return value


# A decoder goes through every policy, and an encoder-decoder with stacks of two depths the other way; nightly every family goes every way.
EVERYTHING = os.environ.get("LAYOUTS") == "all"
WAYS = [(unroll, remat) for unroll in (False, True) for remat in ("none", "full", "dots", "dots_no_batch")]
CASES = [("t5_deep_encoder", True, "full"), ("llama", False, "full"), ("llama", True, "dots"), ("llama", False, "dots_no_batch")]
if EVERYTHING:
    CASES = [(name, *way) for name in FAMILIES for way in WAYS if way != (False, "none")]


@functools.cache
def program(name, unroll, remat):
    config = FAMILIES[name]
    model = build(config, Execution(unroll=unroll, remat=remat))
    return jax.jit(jax.value_and_grad(loss(model, rows(config))), compiler_options=QUICK)


@functools.cache
def value_and_grad(name, unroll, remat):
    return jax.device_get(program(name, unroll, remat)(params_of(FAMILIES[name])))


def same(found, expected):
    close(found[0], expected[0], FLOAT32)
    largest = max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(expected[1]))
    for path, leaf in flatten(expected[1]).items():
        # Without rotation a key's bias shifts all logits of a query alike: its gradient is rounding alone.
        scale = max(float(np.abs(leaf).max()), 0.01 * largest)
        np.testing.assert_allclose(flatten(found[1])[path], leaf, atol=FLOAT32 * scale, rtol=0, err_msg=path)


@pytest.mark.parametrize(("name", "unroll", "remat"), CASES)
def test_scan_is_unroll_and_remat_is_no_remat(name, unroll, remat):
    same(value_and_grad(name, unroll, remat), value_and_grad(name, False, "none"))


# A loss with ReLU has kinks, over which a difference is no slope.
@pytest.mark.parametrize("name", [name for name in dict.fromkeys(case[0] for case in CASES) if FAMILIES[name].mlp.activation != "relu"])
def test_the_gradient_of_every_weight_is_the_slope_of_the_loss(name):
    """The slope along the gradient is a central difference of the same program: nothing stops a gradient on its way."""
    params = params_of(FAMILIES[name])
    gradient = flatten(value_and_grad(name, False, "none")[1])
    lengths = {path: float(np.linalg.norm(leaf)) for path, leaf in gradient.items()}
    for path, length in lengths.items():
        if length < 0.01 * max(lengths.values()):  # rounding would show in the difference
            continue

        def moved(step, path=path, length=length):
            at = [step / length * leaf if name == path else 0.0 for name, leaf in gradient.items()]
            return jax.tree.map(np.add, params, jax.tree.unflatten(jax.tree.structure(params), at))

        ahead, behind = (float(program(name, False, "none")(moved(step))[0]) for step in (0.004, -0.004))
        assert (ahead - behind) / 0.008 == pytest.approx(length, rel=0.01), path


@pytest.mark.parametrize("name", FAMILIES if EVERYTHING else ["bert"])  # tests/layouts has the others, and gradients
def test_eight_devices_are_one(name):
    """Embedding and width over fsdp, heads, hidden layer and vocabulary over tensor; rows over data and fsdp."""
    config = FAMILIES[name]
    mesh, model = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2)), build(config, Execution(unroll=False))
    inputs = jax.tree.map(lambda x: np.concatenate([x, x]), rows(config))
    params = jax.device_put(params_of(config), model.shardings(mesh))
    split = jax.device_put(inputs, jax.tree.map(lambda _: jax.NamedSharding(mesh, jax.P(("data", "fsdp"))), inputs))
    kernel = params["encoder" if "encoder" in params else "decoder"]["block_00"]["mlp"]["up"]["kernel"]
    assert kernel.addressable_shards[0].data.shape == (2, 8, 12)
    with jax.set_mesh(mesh):
        found = jax.jit(model.apply, compiler_options=QUICK)(params, split)
    expected = jax.jit(model.apply, compiler_options=QUICK)(params_of(config), inputs)
    close(dataclasses.replace(found, aux={}), dataclasses.replace(expected, aux={}), FLOAT32)


@pytest.mark.parametrize("name", FAMILIES)
def test_axes_cover_the_tree_and_divide_it(name):
    """One name for each dimension; every kernel of a block or of the vocabulary's head lies on four devices in parts."""
    model = build(FAMILIES[name])
    axes, abstract = flatten(model.axes()), flatten(model.abstract())
    assert axes.keys() == abstract.keys()
    for path, names in axes.items():
        assert len(names) == len(abstract[path].shape), path
        assert ("layers" in names) == ("block_00" in path), path
    shards = flatten(model.shardings(make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))))
    assert shards["embed/embedding"].spec == jax.P("tensor", "fsdp")
    for path, leaf in abstract.items():
        split = math.prod(leaf.shape) // math.prod(shards[path].shard_shape(leaf.shape))
        kernel = path.endswith("kernel") and not path.startswith(("pooler", "head_transform", "outputs"))
        assert split == 4 if kernel else split in (1, 2, 4), path
