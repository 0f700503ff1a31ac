"""The part that optimizers share: descent at an argument's rate, decoupled decay, and the partition of the weights."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lm.optim.config import OptimConfig
from lm.optim.descent import groups
from lm.optim.optimizer import make_optimizer
from lm.optim.schedules import WSD, rate_ratio
from lm.types import Hyper

AXES = {
    "embed": {"table": ("vocab", "embed")},
    "block": {
        "query": {"kernel": ("layers", "embed", "heads", "head_dim"), "bias": ("layers", "heads", "head_dim")},
        "norm": {"scale": ("layers", "norm")},
    },
    "norm": {"scale": ("norm",)},
}
SHAPES = {
    "embed": {"table": (7, 4)},
    "block": {"query": {"kernel": (2, 4, 2, 2), "bias": (2, 2, 2)}, "norm": {"scale": (2, 4)}},
    "norm": {"scale": (4,)},
}
PARAMS = jax.tree.map(lambda shape: np.ones(shape, np.float32), SHAPES, is_leaf=lambda x: isinstance(x, tuple))
MATRICES = {
    "embed": {"table": True},
    "block": {"query": {"kernel": True, "bias": False}, "norm": {"scale": False}},
    "norm": {"scale": False},
}


def gradients(step):
    rng = np.random.default_rng(step)
    return jax.tree.map(lambda leaf: rng.normal(scale=3.0, size=leaf.shape).astype(np.float32), PARAMS)


def hyper(total=30, learning_rate=0.1, weight_decay=0.3):
    return Hyper(np.float32(learning_rate), np.float32(weight_decay), np.int32(3), np.int32(total), np.uint32(0))


def test_adamw_is_optax_adamw_with_rate_and_decay_as_arguments():
    config = OptimConfig(clip_norm=1.0, beta1=0.8, beta2=0.95)
    ours = make_optimizer(config, PARAMS, AXES)
    schedule = lambda step: 0.1 * rate_ratio(config.schedule, step, 3, 30, xp=jnp)  # noqa: E731
    adamw = optax.adamw(schedule, b1=0.8, b2=0.95, eps=config.epsilon, weight_decay=0.3, mask=MATRICES)
    theirs = optax.chain(optax.clip_by_global_norm(1.0), adamw)

    @jax.jit
    def both(a, state_a, b, state_b, step, grads, hyper):
        updates, state_a = ours.update(grads, state_a, a, step=step, hyper=hyper)
        others, state_b = theirs.update(grads, state_b, b)
        return optax.apply_updates(a, updates), state_a, optax.apply_updates(b, others), state_b

    state = (PARAMS, jax.jit(ours.init)(PARAMS), PARAMS, jax.jit(theirs.init)(PARAMS))
    for step in range(30):
        state = both(*state, np.int32(step), gradients(step), hyper())
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-5, atol=1e-6), state[0], state[2])


def test_decay_is_decoupled_and_on_matrices_only():
    optimizer = make_optimizer(OptimConfig(schedule=WSD()), PARAMS, AXES)
    zeros = jax.tree.map(np.zeros_like, PARAMS)
    update = jax.jit(lambda grads, hyper: optimizer.update(grads, optimizer.init(PARAMS), PARAMS, step=jnp.int32(10), hyper=hyper)[0])
    updates = update(zeros, hyper(total=1000))
    expected = jax.tree.map(lambda leaf, matrix: -0.1 * 0.3 * leaf if matrix else 0 * leaf, PARAMS, MATRICES)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), updates, expected)
    half = update(gradients(0), hyper(total=1000, weight_decay=0.0, learning_rate=0.05))
    whole = update(gradients(0), hyper(total=1000, weight_decay=0.0))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(2 * x, y, rtol=1e-6), half, whole)


def test_groups_cover_the_weights_exactly():
    assert jax.tree.map(lambda group: group == "matrix", groups(PARAMS, AXES)) == MATRICES
    with pytest.raises(ValueError, match="extra"):
        groups({**PARAMS, "extra": np.ones(3)}, AXES)
    with pytest.raises(ValueError, match="norm"):
        groups({key: value for key, value in PARAMS.items() if key != "norm"}, AXES)
    with pytest.raises(ValueError, match="dimensions"):
        groups(PARAMS, {**AXES, "norm": {"scale": ("layers", "norm")}})


def test_the_real_model_has_its_kernels_and_embeddings_decayed():
    from lm.model.architectures import build
    from lm.model.config import AttentionConfig, MLPConfig, ModelConfig

    attention, mlp = AttentionConfig(2, head_dim=4, qk_norm=True, bias=True), MLPConfig(8, bias=True)
    config = ModelConfig(d_model=8, norm="layernorm", positions="learned", attention=attention, mlp=mlp)
    model = build(config)
    for path, group in jax.tree_util.tree_leaves_with_path(groups(model.abstract(), model.axes())):
        assert (group == "matrix") == (path[-1].key in ("kernel", "embedding")), path
