"""Initial values of a decoder, and the names of its weights; the laws of every family are in test_families and test_execution."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from flax import nnx
from model import families
from model.small import GPT2, LLAMA, WINDOW, close, model_of, params_of, tokens

from lm.mesh import MeshConfig
from lm.model.architectures import Model
from lm.model.execution import Execution
from lm.model.weights import flatten
from lm.sharding import make_mesh
from lm.types import Inputs

WIDE = dataclasses.replace(LLAMA, d_model=64, mlp=dataclasses.replace(LLAMA.mlp, d_ff=256), vocab_size=512)


@functools.cache
def initial_of(config):
    return jax.jit(model_of(config).init)(jax.random.key(0))


def test_initial_parameters_do_not_depend_on_the_mesh():
    placed = model_of(WIDE).shardings(make_mesh(MeshConfig(data=2, fsdp=2, tensor=2)))
    close(jax.jit(model_of(WIDE).init, out_shardings=placed)(jax.random.key(0)), initial_of(WIDE), 1e-6)


def test_zero_initialised_outputs_make_every_block_the_identity_and_the_first_prediction_uniform():
    model = model_of(dataclasses.replace(WINDOW, zero_init_outputs=True))
    outputs = jax.jit(lambda key, text: model.apply(model.init(key), Inputs(text)))(jax.random.key(0), tokens(2, 6))
    logits, aux = outputs.logits, outputs.aux
    assert (np.asarray(logits) == 0).all()
    assert aux["activation_rms"].shape == (2,)
    assert aux["activation_rms"][0] == aux["activation_rms"][1]


def test_initial_scales_are_those_declared():
    params, initials = flatten(initial_of(WIDE)), flatten(model_of(WIDE).initials())
    for path, initial in initials.items():
        if path.endswith("kernel"):
            drawn = np.asarray(params[path])
            assert abs(drawn.std() / initial.std - 1) < 0.1, path
            assert np.abs(drawn).max() <= 2.28 * initial.std, path
    assert initials["decoder/block_00/mlp/down/kernel"].std == 256**-0.5
    assert initials["decoder/block_00/attention/out/kernel"].std == 16**-0.5
    first, second = params["decoder/block_00/mlp/up/kernel"]
    assert not np.allclose(first, second)


def test_a_part_less_changes_no_other():
    plain = dataclasses.replace(WIDE, mlp=dataclasses.replace(WIDE.mlp, gated=False))
    have = flatten(initial_of(WIDE))
    for path, leaf in flatten(initial_of(plain)).items():
        np.testing.assert_array_equal(leaf, have[path])


def test_names_and_axes():
    axes = flatten(model_of(LLAMA).axes())
    assert axes["decoder/block_00/attention/query/kernel"] == ("layers", "embed", "heads", "head_dim")
    assert axes["decoder/block_00/mlp/down/kernel"] == ("layers", "ffn", "embed")
    assert axes["embed/embedding"] == ("vocab", "embed")
    assert {path.rpartition("/")[2] for path in flatten(model_of(GPT2).axes())} == {"kernel", "bias", "scale", "embedding"}


@pytest.mark.parametrize("mode", [True, False])
def test_graph_mode_changes_no_operation(mode):
    """One of the two is the default, whose results the other tests look at."""

    def traced():
        model = Model(families.LLAMA, Execution())
        drawn = jax.eval_shape(model.init, jax.random.key(0))
        return jax.tree.structure(drawn), str(jax.make_jaxpr(model.apply)(params_of(families.LLAMA), families.rows(families.LLAMA)))

    with nnx.set_graph_mode(mode):
        found = traced()
    assert found == traced()
