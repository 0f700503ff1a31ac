"""Each architecture learns a task that only it can. What cannot know the answer has a gradient of zero (test_families).

A prefix LM with an empty prefix is a decoder, and one whose prefix is everything is an encoder, bit for bit (test_families): one compiled
training serves all three.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lm.model.architectures import build
from lm.model.config import AttentionConfig, MLPConfig, ModelConfig
from lm.model.execution import Execution
from lm.types import Inputs

SYMBOLS, START, MASK = 8, 8, 9
LENGTH, BATCH, CHUNK = 15, 32, 50  # tokens of a row, rows of a step, steps of a call


def model_of(architecture, length, layers):
    """Layers of width 32; rows are short, so learned positions are learned soon."""
    return ModelConfig(
        architecture=architecture, vocab_size=10, d_model=32, num_layers=layers, max_length=length, positions="learned",
        attention=AttentionConfig(num_heads=2, head_dim=16), mlp=MLPConfig(d_ff=64), norm="layernorm",
    )  # fmt: skip


@functools.cache
def trainer(config):
    """(initial state, jitted (state, (inputs [CHUNK, ...], targets, weights)) -> (state, nats summed over rows, [CHUNK, T])), by Adam."""
    model, optimizer = build(config, Execution(unroll=config.num_layers == 1)), optax.adam(4e-3)

    def loss(params, inputs, targets, weights):
        nll = optax.softmax_cross_entropy_with_integer_labels(model.apply(params, inputs).logits, targets)
        return jnp.sum(nll * weights) / jnp.sum(weights), jnp.sum(nll * weights, axis=0)

    def step(carry, batch):
        params, state = carry
        (_, nats), gradient = jax.value_and_grad(loss, has_aux=True)(params, *batch)
        updates, state = optimizer.update(gradient, state)
        return (optax.apply_updates(params, updates), state), nats

    def start(key):
        params = model.init(key)
        return params, optimizer.init(params)

    # Of hundreds of steps, the optimiser of code saves more than it takes.
    options = {"xla_backend_optimization_level": int(config.num_layers > 1)}
    return jax.jit(start)(jax.random.key(0)), jax.jit(lambda state, batches: jax.lax.scan(step, state, batches), compiler_options=options)


def learn(config, inputs, targets, weights):
    """Nats at each position over the last chunk of steps; no row is seen twice."""
    state, train = trainer(config)
    for first in range(0, len(targets), CHUNK):
        batches = jax.tree.map(lambda x: x[first : first + CHUNK], (inputs, targets, weights))  # noqa: B023 used at once
        state, nats = train(state, batches)
    return np.asarray(nats).sum(axis=0) / np.maximum(weights[-CHUNK:].sum(axis=(0, 1)), 1.0)


def learn_with_prefix(tokens, targets, weights, prefix):
    """The same of a prefix LM whose prefix is the first `prefix` tokens."""
    inputs = Inputs(tokens, prefix=np.broadcast_to((np.arange(LENGTH) < prefix).astype(np.int32), tokens.shape))
    return learn(model_of("prefix_lm", LENGTH, 2), inputs, targets.astype(np.int32), np.broadcast_to(weights, tokens.shape))


def symbols(steps, length):
    return np.random.default_rng(0).integers(0, SYMBOLS, (steps, BATCH, length)).astype(np.int32)


def test_an_encoder_decoder_reverses_a_text():
    text, config = symbols(150, 5), model_of("encoder_decoder", 5, 1)
    targets = text[..., ::-1].copy()
    tokens = np.concatenate([np.full_like(targets[..., :1], START), targets[..., :-1]], axis=-1)
    assert learn(config, Inputs(tokens, encoder_tokens=text), targets, np.ones(targets.shape, np.float32)).mean() < 0.2


def test_an_encoder_fills_a_mask_from_its_right_context():
    """A masked symbol equals the one two positions after it."""
    tokens = symbols(150, LENGTH)
    position = np.random.default_rng(1).integers(0, LENGTH - 2, (150, BATCH, 1))
    weights = (np.arange(LENGTH) == position).astype(np.float32)
    masked = np.where(weights > 0, MASK, tokens).astype(np.int32)
    assert learn_with_prefix(masked, np.roll(tokens, -2, axis=-1), weights, LENGTH)[: LENGTH - 2].mean() < 0.2


def test_a_prefix_lm_knows_the_continuation_at_the_first_position_of_its_prefix():
    """The symbol after the prefix's last one follows the prefix; it is asked at position 0, which no causal query has read past."""
    tokens = symbols(100, LENGTH)
    targets = np.repeat((tokens[..., 5:6] + 1) % SYMBOLS, LENGTH, axis=-1)
    assert learn_with_prefix(tokens, targets, (np.arange(LENGTH) == 0).astype(np.float32), 6)[0] < 0.2


def test_a_decoder_continues_by_induction_and_knows_nothing_of_what_is_new():
    """A row is a permutation, then the same again from some position of it. New symbols cost the logarithm of how many are left."""
    rng, steps = np.random.default_rng(0), 300
    first = rng.permuted(np.tile(np.arange(SYMBOLS), (steps, BATCH, 1)), axis=-1)
    turned = (np.arange(SYMBOLS) + rng.integers(0, SYMBOLS, (steps, BATCH, 1))) % SYMBOLS
    row = np.concatenate([first, np.take_along_axis(first, turned, axis=-1)], axis=-1).astype(np.int32)
    loss = learn_with_prefix(row[..., :-1], row[..., 1:], np.ones(LENGTH, np.float32), 0)
    new, again = loss[: SYMBOLS - 2], loss[SYMBOLS:-1]
    expected = np.log(np.arange(SYMBOLS - 1, 1, -1))
    assert (new > expected - 0.05).all()
    assert again.mean() < 0.3
