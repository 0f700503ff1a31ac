"""Laws of the step: accumulation, batches without targets, meshes, metrics, one executable for many runs."""

import dataclasses

import jax
import numpy as np
import pytest

from lm.data.config import DataConfig
from lm.errors import UserError
from lm.losses import pretraining
from lm.mesh import MeshConfig
from lm.sharding import make_mesh
from lm.train.derived import hyper_of, shape_of, total_steps
from lm.train.feed import to_device
from lm.train.mesh_fit import check_mesh_fit
from lm.train.program import compile_program
from lm.train.step import accumulate
from tests.train.conftest import CONFIG
from tests.train.stub import StubModel, StubStream

MODEL = StubModel()


def uneven_batch():
    """Rows of very different weight, so that a mean of means would be wrong."""
    batch = StubStream(batch_size=8)[0]
    weights = batch.weights.copy()
    weights[:5, 1:] = 0.0
    weights[0] = 0.0
    return dataclasses.replace(batch, weights=weights)


def test_accumulated_sums_are_those_of_the_whole_batch():
    params, batch = jax.jit(MODEL.init)(jax.random.key(0)), uneven_batch()
    key = jax.random.key(1)
    found = {m: jax.jit(lambda p, b, m=m: accumulate(pretraining(MODEL.apply), p, None, b, key, m))(params, batch) for m in (1, 4)}
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5), found[4], found[1])


def test_without_targets_the_gradient_is_zero(program, stream):
    empty = dataclasses.replace(stream[0], weights=np.zeros((4, 16), np.float32))
    block, hyper = to_device([empty], 4, program.batch_shardings), hyper_of(CONFIG)._replace(weight_decay=np.float32(0.0))
    before = jax.device_get(program.init(np.uint32(0)).params)
    state, scalars, _ = program.run(program.init(np.uint32(0)), None, block, hyper, np.int32(1))
    metrics = dict(zip(program.scalars, np.asarray(scalars)[0], strict=True))
    assert metrics["loss"] == metrics["grad_norm"] == metrics["weight"] == 0.0
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(state.params), before)


def run_steps(program, stream, config, count):
    state = program.init(np.uint32(config.seed))
    most = program.config.execution.steps_per_dispatch
    rows = []
    for start in range(0, count, most):
        n = min(most, count - start)
        block = to_device([stream[k] for k in range(start, start + n)], most, program.batch_shardings)
        state, scalars, _ = program.run(state, None, block, hyper_of(config), np.int32(n))
        rows.append(np.asarray(scalars)[:n])
    return jax.device_get(state), np.concatenate(rows)


def test_steps_per_dispatch_and_micro_batches_change_rounding_only(mesh, program, stream):
    expected, losses = run_steps(program, stream, CONFIG, 9)
    config = dataclasses.replace(CONFIG, execution=dataclasses.replace(CONFIG.execution, steps_per_dispatch=3, micro_batches=2))
    state, others = run_steps(compile_program(config, MODEL, mesh), stream, config, 9)
    np.testing.assert_allclose(others, losses, rtol=1e-4, atol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), state, expected)


def test_runs_of_one_shape_share_an_executable_and_differ(program, stream):
    change = {"learning_rate": 1e-3, "weight_decay": 0.0, "warmup_fraction": 0.0}
    other = dataclasses.replace(CONFIG, seed=7, train_tokens=64 * 100, optim=dataclasses.replace(CONFIG.optim, **change))
    assert shape_of(other) == shape_of(CONFIG)
    assert hash(shape_of(other)) == hash(shape_of(CONFIG))
    assert shape_of(dataclasses.replace(CONFIG, batch_size=8)) != shape_of(CONFIG)
    _, losses = run_steps(program, stream, CONFIG, 4)
    _, others = run_steps(program, stream, other, 4)
    rate = program.scalars.index("learning_rate")
    assert losses[-1, rate] == pytest.approx(0.02)
    assert others[-1, rate] == pytest.approx(1e-3)
    assert not np.allclose(losses[0], others[0])  # another seed, other initial weights


def test_layer_norms_are_one_number_per_layer(mesh, stream):
    config = dataclasses.replace(CONFIG, log=dataclasses.replace(CONFIG.log, layer_norms=True))
    program = compile_program(config, MODEL, mesh)
    block = to_device([stream[0]], 4, program.batch_shardings)
    _, scalars, vectors = program.run(program.init(np.uint32(0)), None, block, hyper_of(config), np.int32(1))
    named = {name: np.asarray(scalars)[0, i] for i, name in enumerate(program.scalars)}
    assert vectors["gradients/blocks/up"].shape == (4, 2)
    squares = sum(float((np.asarray(v[0]) ** 2).sum()) for k, v in vectors.items() if k.startswith("gradients/"))
    squares += sum(float(v) ** 2 for k, v in named.items() if k.startswith("gradients/"))
    assert np.sqrt(squares) == pytest.approx(named["grad_norm"], rel=1e-4)
    assert {"updates/norm/scale", "updates/embed/table"} <= set(named)


def test_impossible_batches_are_refused(mesh):
    with pytest.raises(UserError, match="train_tokens"):
        total_steps(dataclasses.replace(CONFIG, train_tokens=63))
    with pytest.raises(UserError, match="batch_size=0"):
        total_steps(dataclasses.replace(CONFIG, batch_size=0))
    wrong = dataclasses.replace(CONFIG, execution=dataclasses.replace(CONFIG.execution, micro_batches=3))
    with pytest.raises(UserError, match="multiple of 3"):
        check_mesh_fit(wrong, mesh)
    with pytest.raises(UserError, match=r"12 positions.* 2 x mesh\.context=16"):
        check_mesh_fit(dataclasses.replace(CONFIG, data=DataConfig(sequence_length=12)), make_mesh(MeshConfig(context=8)))
