"""Small models for the tests of their laws; one compilation per (model, kind of call)."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from lm.model.architectures import Model, build
from lm.model.config import AttentionConfig, MLPConfig, ModelConfig
from lm.model.execution import Execution
from lm.types import Inputs, Params

LLAMA = ModelConfig(
    vocab_size=24, d_model=16, num_layers=2, max_length=12,
    attention=AttentionConfig(num_heads=4, num_kv_heads=2, head_dim=4, qk_norm=True),
    mlp=MLPConfig(d_ff=24, activation="silu", gated=True), logit_softcap=8.0,
)  # fmt: skip
GPT2 = ModelConfig(
    vocab_size=24, d_model=16, num_layers=2, max_length=12,
    attention=AttentionConfig(num_heads=2, head_dim=8, bias=True),
    mlp=MLPConfig(d_ff=32, activation="gelu", bias=True), norm="layernorm", positions="learned", tied_head=True,
)  # fmt: skip
WINDOW = ModelConfig(
    vocab_size=24, d_model=16, num_layers=2, max_length=12,
    attention=AttentionConfig(num_heads=2, num_kv_heads=1, head_dim=8, window=3),
    mlp=MLPConfig(d_ff=32, activation="squared_relu"),
)  # fmt: skip
FAMILIES = {"llama": LLAMA, "gpt2": GPT2, "window": WINDOW}


@functools.cache
def model_of(config: ModelConfig, execution: Execution = Execution()) -> Model:
    return build(config, execution)


@functools.cache
def params_of(config: ModelConfig) -> Params:
    """Parameters of the initial scales, in numpy; biases and norms lie off their constants, so that a forgotten one shows."""
    rng = np.random.default_rng(0)

    def draw(leaf, initial):
        return np.float32(getattr(initial, "value", 0.0) + getattr(initial, "std", 0.1) * rng.standard_normal(leaf.shape))

    return jax.tree.map(draw, model_of(config).abstract(), model_of(config).initials())


@functools.cache
def apply_of(config: ModelConfig, dtype: str = "float32"):
    """Jitted (params, tokens, segments, positions) -> logits."""
    model = model_of(config)
    return jax.jit(lambda params, *inputs: model.apply(params, Inputs(*inputs), compute_dtype=dtype).logits)


def tokens(rows: int, length: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 24, (rows, length)).astype(np.int32)


def loss(model: Model, params: Params, tokens_BT: jax.Array) -> jax.Array:
    """Mean negative log-likelihood of the next token, with every second row two packed documents."""
    length = tokens_BT.shape[1]
    column, second = np.arange(length), (np.arange(tokens_BT.shape[0]) % 2)[:, None]
    segments_BT = 1 + second * (column >= 5)
    positions_BT = column - 5 * second * (column >= 5)
    logits_BTV = model.apply(params, Inputs(tokens_BT, jnp.asarray(segments_BT, jnp.int32), jnp.asarray(positions_BT, jnp.int32))).logits
    log_p_BTV = jax.nn.log_softmax(logits_BTV[:, :-1])
    return -jnp.mean(jnp.take_along_axis(log_p_BTV, tokens_BT[:, 1:, None], axis=-1))


def close(found, expected, tolerance: float) -> None:
    """Every leaf within `tolerance` of the largest magnitude of its counterpart."""
    for (path, a), b in zip(jax.tree.leaves_with_path(found), jax.tree.leaves(expected), strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        assert np.max(np.abs(a - b)) <= tolerance * max(np.max(np.abs(b)), 1e-6), jax.tree_util.keystr(path)
