"""Adafactor of stacked weights against optax's on separate matrices; where its state lies."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from lm.config import apply_overrides, to_dict
from lm.errors import UserError
from lm.mesh import MeshConfig
from lm.optim.adafactor import factored_dims
from lm.optim.config import Adafactor, OptimConfig, t5
from lm.optim.optimizer import make_optimizer, state_shardings
from lm.optim.schedules import rate_ratio
from lm.sharding import make_mesh, shardings
from lm.types import Hyper

AXES = {
    "embed": {"embedding": ("vocab", "embed")},
    "block": {
        "query": {"kernel": ("layers", "embed", "heads", "head_dim"), "bias": ("layers", "heads", "head_dim")},
        "out": {"kernel": ("layers", "heads", "head_dim", "embed")},
        "norm": {"scale": ("layers", "norm")},
    },
    "small": {"kernel": ("embed", "labels")},
}
SHAPES = {
    "embed": {"embedding": (24, 8)},
    "block": {
        "query": {"kernel": (2, 8, 4, 3), "bias": (2, 4, 3)},
        "out": {"kernel": (2, 4, 3, 8)},
        "norm": {"scale": (2, 8)},
    },
    "small": {"kernel": (8, 2)},
}
CONFIG = OptimConfig(clip_norm=None, optimizer=Adafactor(smallest_factored=8))
STEPS, WARMUP, PEAK = 20, 3, 0.1


def drawn(seed, scale=1.0):
    rng = np.random.default_rng(seed)
    sizes = iter((1.0, 3e-5, 30.0, 0.1, 2.0, 1e-4))  # some below the smallest scale, some updates above the limit
    return jax.tree.map(
        lambda shape: (scale * next(sizes) * rng.normal(size=shape)).astype(np.float32), SHAPES, is_leaf=lambda x: isinstance(x, tuple)
    )


def hyper(weight_decay=0.0):
    return Hyper(np.float32(PEAK), np.float32(weight_decay), np.int32(WARMUP), np.int32(STEPS), np.uint32(0))


def matrices(tree):
    """Every layer's weight on its own, kernels as matrices of ins x outs."""
    found = {}
    for path, leaf in jax.tree.leaves_with_path(tree):
        leaf, name = np.asarray(leaf), jax.tree_util.keystr(path)
        names = jax.tree_util.tree_leaves_with_path(AXES, is_leaf=lambda x: isinstance(x, tuple))
        axes = dict(names)[path]
        for layer, one in enumerate(leaf) if axes[0] == "layers" else [(0, leaf)]:
            own = [n for n in axes if n != "layers"]
            rows = own.index("head_dim") + 1 if own[0] == "heads" else 1
            if own in (["heads", "head_dim"], ["norm"]):
                found[name, layer] = one.ravel()
            else:
                found[name, layer] = one.reshape(int(np.prod(one.shape[:rows])), -1)
    return found


def test_each_layer_is_updated_as_a_matrix_of_its_own():
    """20 updates of weights of many scales, by gradients whose size jumps so that the limit is reached and left."""
    schedule = lambda step: PEAK * rate_ratio(CONFIG.schedule, step, WARMUP, STEPS, xp=jnp)  # noqa: E731
    ours, theirs = make_optimizer(CONFIG, drawn(0), AXES), optax.adafactor(schedule, min_dim_size_to_factor=8)

    @jax.jit
    def both(a, state_a, b, state_b, step, grads, others):
        updates, state_a = ours.update(grads, state_a, a, step=step, hyper=hyper())
        others, state_b = theirs.update(others, state_b, b)
        return optax.apply_updates(a, updates), state_a, optax.apply_updates(b, others), state_b

    a, b = drawn(0), matrices(drawn(0))
    state = (a, jax.jit(ours.init)(a), b, jax.jit(theirs.init)(b))
    for step in range(STEPS):
        grads = drawn(step + 1, scale=100.0 if step % 5 == 4 else 1.0)
        state = both(*state, np.int32(step), grads, matrices(grads))
    for key, found in matrices(state[0]).items():
        other = state[2][key]
        np.testing.assert_allclose(found, other, rtol=2e-5, atol=2e-6 * np.abs(other).max(), err_msg=str(key))


def test_matrices_and_only_these_are_factored():
    moments = jax.eval_shape(make_optimizer(CONFIG, drawn(0), AXES).init, drawn(0))[0].moments
    shapes = {
        path: (m.row is not None and m.row.shape, m.column is not None and m.column.shape)
        for path, m in [(p, m) for p, m in jax.tree.leaves_with_path(moments, is_leaf=lambda x: hasattr(x, "_fields"))]
    }
    found = {jax.tree_util.keystr(path, simple=True, separator="/"): each for path, each in shapes.items()}
    assert found == {
        "embed/embedding": ((24,), (8,)),
        "block/query/kernel": ((2, 8), (2, 4, 3)),
        "block/query/bias": (False, False),
        "block/out/kernel": ((2, 4, 3), (2, 8)),
        "block/norm/scale": (False, False),
        "small/kernel": (False, False),
    }
    assert factored_dims((2, 127, 4, 64), ("layers", "embed", "heads", "head_dim"), 128) is None
    assert factored_dims((2, 128, 2, 64), ("layers", "embed", "heads", "head_dim"), 128) == ((1,), (2, 3))


def test_moments_lie_with_their_weights():
    """8 devices: what fsdp and tensor split of a weight, they split of its means, where those have that dimension."""
    mesh = make_mesh(MeshConfig(data=1, fsdp=4, tensor=2))
    params = drawn(0)
    optimizer = make_optimizer(CONFIG, params, AXES)
    state, nowhere = jax.eval_shape(optimizer.init, params), NamedSharding(mesh, PartitionSpec())
    placed = state_shardings(CONFIG, state, params, AXES, shardings(AXES, mesh, abstract=params), nowhere)
    moments = placed[0].moments["block"]
    assert moments["query"]["kernel"].row.spec == PartitionSpec(None, "fsdp")
    assert moments["query"]["kernel"].column.spec == PartitionSpec(None, "tensor", None)
    assert moments["out"]["kernel"].row.spec == PartitionSpec(None, "tensor", None)
    assert moments["out"]["kernel"].column.spec == PartitionSpec(None, "fsdp")
    assert moments["query"]["bias"].whole.spec == PartitionSpec(None, "tensor", None)

    def update(grads):
        return optimizer.update(grads, optimizer.init(params), params, step=jnp.int32(4), hyper=hyper())

    with jax.set_mesh(mesh):
        split = jax.jit(update, out_shardings=(None, placed))(drawn(1))
    alone = jax.jit(update)(drawn(1))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-9), split, alone)


def test_adam_moments_lie_with_their_weights():
    config, params = OptimConfig(), drawn(0)
    mesh = make_mesh(MeshConfig(data=1, fsdp=4, tensor=2))
    where, nowhere = shardings(AXES, mesh), NamedSharding(mesh, PartitionSpec())
    state = jax.eval_shape(make_optimizer(config, params, AXES).init, params)
    placed = state_shardings(config, state, params, AXES, where, nowhere)
    assert placed[1].mu == placed[1].nu == where
    assert placed[1].count == nowhere


def test_settings_of_the_other_optimizer_are_refused():
    with pytest.raises(UserError, match=r"optim\.beta2"):
        make_optimizer(dataclasses.replace(CONFIG, beta2=0.9), drawn(0), AXES)
    with pytest.raises(UserError, match="adamw"):
        apply_overrides(OptimConfig(), ["optimizer.clipping=2"])
    chosen = apply_overrides(OptimConfig(), ["optimizer=adafactor", "optimizer.clipping=none"])
    assert to_dict(chosen)["optimizer"]["clipping"] is None
    assert t5(100, 10).optimizer == Adafactor()


def test_a_limit_that_leaves_no_update_is_refused():
    config = OptimConfig(optimizer=Adafactor(clipping=0.0))
    with pytest.raises(UserError, match="clipping=0"):
        make_optimizer(config, drawn(0), AXES)
