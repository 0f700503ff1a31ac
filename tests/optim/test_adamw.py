"""AdamW against optax's own, and the partition of the weights."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lm.optim.adamw import adamw, clip_by_global_norm, groups
from lm.optim.config import OptimConfig
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
PARAMS = {
    "embed": {"table": jnp.ones((7, 4))},
    "block": {"query": {"kernel": jnp.ones((2, 4, 2, 2)), "bias": jnp.ones((2, 2, 2))}, "norm": {"scale": jnp.ones((2, 4))}},
    "norm": {"scale": jnp.ones((4,))},
}
MATRICES = {
    "embed": {"table": True},
    "block": {"query": {"kernel": True, "bias": False}, "norm": {"scale": False}},
    "norm": {"scale": False},
}


def gradients(step):
    rng = np.random.default_rng(step)
    return jax.tree.map(lambda leaf: rng.normal(scale=3.0, size=leaf.shape).astype(np.float32), PARAMS)


def hyper(total=30, learning_rate=0.1, weight_decay=0.3):
    return Hyper(jnp.float32(learning_rate), jnp.float32(weight_decay), jnp.int32(3), jnp.int32(total), jnp.uint32(0))


@pytest.mark.parametrize("clip", [None, 1.0, 1e6])
def test_equals_optax_adamw_on_the_same_gradients(clip):
    config = OptimConfig(clip_norm=clip, beta1=0.8, beta2=0.95)
    ours = adamw(config, PARAMS, AXES)
    schedule = lambda step: 0.1 * rate_ratio(config.schedule, step, 3, 30, xp=jnp)  # noqa: E731
    theirs = optax.adamw(schedule, b1=0.8, b2=0.95, eps=config.epsilon, weight_decay=0.3, mask=MATRICES)
    if clip is not None:
        theirs = optax.chain(optax.clip_by_global_norm(clip), theirs)
    a, b = PARAMS, PARAMS
    state_a, state_b = ours.init(a), theirs.init(b)

    @jax.jit
    def both(a, state_a, b, state_b, step, grads):
        updates, state_a = ours.update(grads, state_a, a, step=step, hyper=hyper())
        others, state_b = theirs.update(grads, state_b, b)
        return optax.apply_updates(a, updates), state_a, optax.apply_updates(b, others), state_b

    for step in range(30):
        a, state_a, b, state_b = both(a, state_a, b, state_b, step, gradients(step))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-5, atol=1e-6), a, b)


def test_decay_is_decoupled_and_on_matrices_only():
    tx = adamw(OptimConfig(schedule=WSD()), PARAMS, AXES)
    zeros = jax.tree.map(jnp.zeros_like, PARAMS)
    update = jax.jit(lambda grads, state: tx.update(grads, state, PARAMS, step=jnp.int32(10), hyper=hyper(total=1000)))
    updates, _ = update(zeros, tx.init(PARAMS))
    expected = jax.tree.map(lambda leaf, matrix: -0.1 * 0.3 * leaf if matrix else 0 * leaf, PARAMS, MATRICES)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), updates, expected)


def test_groups_cover_the_weights_exactly():
    assert jax.tree.map(lambda group: group == "matrix", groups(PARAMS, AXES)) == MATRICES
    with pytest.raises(ValueError, match="extra"):
        groups({**PARAMS, "extra": jnp.ones(3)}, AXES)
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


def test_clipping_scales_to_the_norm_and_lets_infinity_show():
    clip = clip_by_global_norm(1.0)
    clipped, _ = clip.update({"a": jnp.asarray([3.0, 4.0])}, None)
    np.testing.assert_allclose(clipped["a"], [0.6, 0.8], rtol=1e-6)
    small, _ = clip.update({"a": jnp.asarray([0.3, 0.4])}, None)
    assert np.array_equal(small["a"], np.asarray([0.3, 0.4], np.float32))
    broken, _ = clip.update({"a": jnp.asarray([1.0, jnp.nan])}, None)
    assert np.isnan(broken["a"]).all()
