"""A pipeline computes what one device does: loss and gradients of every family, whatever the schedule and the other axes of the mesh."""

import dataclasses
import functools
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from model.families import LENGTH, LLAMA, SHARED, T5_11, VOCAB, positions_of
from model.small import model_of, params_of

from lm.errors import UserError
from lm.mesh import MeshConfig
from lm.model.architectures import build
from lm.model.execution import Execution, Pipeline
from lm.sharding import make_mesh
from lm.types import Inputs

EVERYTHING = os.environ.get("LAYOUTS") == "all"
ROWS = 16
QUICK = {"xla_backend_optimization_level": 0}  # most of the time goes into compiling
DEEP = {
    "llama": dataclasses.replace(LLAMA, num_layers=4, no_rope_interval=3),
    "t5": dataclasses.replace(T5_11, num_layers=4, encoder_layers=8),
    "t5_shared": dataclasses.replace(SHARED, num_layers=4),
}


def rows(config) -> tuple[Inputs, jax.Array]:
    """Rows packed each in its own way, and targets."""
    rng = np.random.default_rng(0)

    def ids():
        return rng.integers(0, VOCAB, (ROWS, LENGTH)).astype(np.int32)

    def packed():
        ends = rng.integers(2, LENGTH - 1, (ROWS, 1))
        return np.where(np.arange(LENGTH) < ends, 1, 2).astype(np.int32)

    segments, encoder_segments = packed(), packed()
    given = {"segments": segments, "positions": np.stack([positions_of(row) for row in segments])}
    if config.architecture == "encoder_decoder":
        given |= {"encoder_tokens": ids(), "encoder_segments": encoder_segments}
        given["encoder_positions"] = np.stack([positions_of(row) for row in encoder_segments])
    return Inputs(ids(), **given), ids()


def loss(model, params, inputs, targets):
    outputs = model.apply(params, inputs)
    nll = jax.nn.logsumexp(outputs.logits, axis=-1) - jnp.take_along_axis(outputs.logits, targets[..., None], axis=-1)[..., 0]
    return jnp.mean(nll) + sum(jnp.mean(jnp.square(head)) for head in outputs.heads.values()), outputs.aux


def compiled(model, *, backward):
    """Jitted loss with statistics, and gradients, which are None without `backward`."""
    value = functools.partial(loss, model)
    step = jax.value_and_grad(value, has_aux=True) if backward else lambda *arguments: (value(*arguments), None)
    return jax.jit(step, compiler_options=QUICK)


def on_one(name, *, backward):
    config = DEEP[name]
    model = model_of(config, Execution(unroll=False))
    return jax.device_get(compiled(model, backward=backward)(params_of(config), *rows(config)))


def in_form(config, execution, tree):
    """Layer order to [repeats, stages, layers]."""
    return jax.tree.map(lambda x, like: np.asarray(x).reshape(like.shape), tree, build(config, execution).abstract())


def in_stages(name, pipeline, mesh, *, backward, **options):
    config = DEEP[name]
    mesh = make_mesh(mesh, jax.devices()[: mesh.data * mesh.fsdp * mesh.stage * mesh.tensor * mesh.context])
    execution = Execution(**{"unroll": False, "pipeline": pipeline, **options})
    model = build(config, execution)
    with jax.set_mesh(mesh):
        params = jax.device_put(in_form(config, execution, params_of(config)), model.shardings(mesh))
        return compiled(model, backward=backward)(params, *rows(config))


@pytest.mark.parametrize(
    ("name", "pipeline", "mesh", "options"),
    [
        ("llama", Pipeline(2, 1, 2), MeshConfig(data=1, stage=2), {"unroll": True}),
        ("t5", Pipeline(2, 2, 2), MeshConfig(data=1, fsdp=2, stage=2, tensor=2), {"remat": "full"}),
        ("t5_shared", Pipeline(4, 1, 4), MeshConfig(data=2, stage=4), {}),
        # Gradients, prefix LMs, encoders and other schedules: tests/layouts.
    ],
)
def test_the_loss_is_that_of_one_device(name, pipeline, mesh, options):
    backward = EVERYTHING  # these are here for straight code, for stacks of two depths, and for two ways through one stack
    (value, aux), grads = in_stages(name, pipeline, mesh, backward=backward, **options)
    (expected, statistics), wanted = on_one(name, backward=backward)
    assert float(value) == pytest.approx(float(expected), rel=1e-6)
    norm = np.sqrt(sum(np.sum(np.square(leaf, dtype=np.float64)) for leaf in jax.tree.leaves(wanted)))
    for (path, a), b in zip(jax.tree.leaves_with_path(grads), jax.tree.leaves(wanted), strict=True):
        error = np.max(np.abs(np.asarray(a).reshape(b.shape) - b))
        assert error <= 1e-5 * max(norm, np.max(np.abs(b))), (jax.tree_util.keystr(path), error)
    for statistic, b in statistics.items():  # a mean of roots against a root of means
        np.testing.assert_allclose(aux[statistic], b, rtol=0.02, err_msg=statistic)


def test_a_stage_runs_once_for_every_group_of_every_micro_batch_and_idles_while_the_others_fill():
    schedule = Pipeline(2, 2, 4)
    assert (schedule.ticks, schedule.bubble) == (9, 1 / 9)
    assert Pipeline(4, 1, 4).bubble == 3 / 7
    model = build(DEEP["llama"], Execution(unroll=False, pipeline=schedule))
    with jax.set_mesh(make_mesh(MeshConfig(data=1, stage=2), jax.devices()[:2])):
        program = str(jax.make_jaxpr(lambda params: model.apply(params, rows(DEEP["llama"])[0]).hidden)(model.abstract()))
    assert program.count("length=9") == 1


def test_initial_weights_are_the_same_and_each_device_holds_its_stage():
    name = "llama"
    execution = Execution(pipeline=Pipeline(2, 2, 2))
    model, plain = build(DEEP[name], execution), build(DEEP[name])
    mesh = make_mesh(MeshConfig(data=2, stage=2), jax.devices()[:4])
    init = functools.partial(jax.jit, compiler_options=QUICK)
    found = init(model.init, out_shardings=model.shardings(mesh))(jax.random.key(3))
    expected = in_form(DEEP[name], execution, init(plain.init)(jax.random.key(3)))
    for (path, a), b in zip(jax.tree.leaves_with_path(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=jax.tree_util.keystr(path))
        parts = 2 if "block_00" in jax.tree_util.keystr(path) else 1
        assert a.addressable_shards[0].data.nbytes * parts == b.nbytes
    assert model.axes()["decoder"]["block_00"]["mlp"]["down"]["kernel"] == ("repeats", "stages", "layers", "ffn", "embed")


def test_what_does_not_fit_a_pipeline_is_refused_by_name():
    config = DEEP["llama"]
    with pytest.raises(UserError, match=r"pipeline_micro_batches=2 is fewer than mesh.stage=4"):
        Pipeline(4, 2, 2)
    with pytest.raises(UserError, match=r"4 layers cannot be split into 3 groups for each of 2 stages.* multiple of 6"):
        build(config, Execution(pipeline=Pipeline(2, 3, 2)))
    model = build(config, Execution(pipeline=Pipeline(2, 1, 3)))
    with pytest.raises(UserError, match="continues no texts"):
        model.init_cache(1, 4)
    inputs, _ = rows(config)
    with pytest.raises(UserError, match="a mesh of stage=2"):
        jax.eval_shape(model.apply, model.abstract(), inputs)
    with (
        jax.set_mesh(make_mesh(MeshConfig(data=2, stage=2), jax.devices()[:4])),
        pytest.raises(UserError, match=r"16 rows cannot be divided .* multiple of 12"),
    ):
        jax.eval_shape(model.apply, model.abstract(), inputs)
