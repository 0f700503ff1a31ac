"""Laws of the loss: sums over weighted positions, and what smoothing and z-loss add."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm import losses
from lm.types import Batch, Outputs
from tests.train.stub import StubModel, StubStream

RNG, KEY = np.random.default_rng(0), jax.random.key(0)
LOGITS = RNG.normal(size=(3, 5, 7)).astype(np.float32) * 3
TARGETS = RNG.integers(7, size=(3, 5)).astype(np.int32)
WEIGHTS = RNG.integers(0, 3, size=(3, 5)).astype(np.float32)
cross_entropy = jax.jit(losses.cross_entropy, static_argnames=("z_loss", "label_smoothing"))


def log_probabilities(logits):
    logits = logits.astype(np.float64)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def test_sums_are_those_of_the_definition():
    found = cross_entropy(LOGITS, TARGETS, WEIGHTS)
    nll = -np.take_along_axis(log_probabilities(LOGITS), TARGETS[..., None], -1)[..., 0]
    np.testing.assert_allclose(found.loss_sum, (nll * WEIGHTS).sum(), rtol=1e-5)
    np.testing.assert_allclose(found.nll_sum, found.loss_sum)
    assert found.weight_sum == WEIGHTS.sum()


def test_sums_add_over_parts():
    whole = cross_entropy(LOGITS, TARGETS, WEIGHTS, z_loss=1e-3, label_smoothing=0.1)
    parts = [cross_entropy(LOGITS[i : i + 1], TARGETS[i : i + 1], WEIGHTS[i : i + 1], z_loss=1e-3, label_smoothing=0.1) for i in range(3)]
    for name in whole._fields:
        np.testing.assert_allclose(getattr(whole, name), sum(getattr(part, name) for part in parts), rtol=1e-5)


def test_smoothing_is_a_mixture_with_the_uniform_distribution():
    smoothed = cross_entropy(LOGITS, TARGETS, WEIGHTS, label_smoothing=0.2)
    uniform = -log_probabilities(LOGITS).mean(-1)
    plain = cross_entropy(LOGITS, TARGETS, WEIGHTS)
    np.testing.assert_allclose(smoothed.loss_sum, 0.8 * plain.loss_sum + 0.2 * (uniform * WEIGHTS).sum(), rtol=1e-5)
    np.testing.assert_allclose(smoothed.nll_sum, plain.nll_sum)


def test_z_loss_alone_sees_a_shift_of_the_logits():
    shift = np.float32(2.0)
    for z_loss, same in ((0.0, True), (1e-2, False)):
        a = cross_entropy(LOGITS, TARGETS, WEIGHTS, z_loss=z_loss).loss_sum
        b = cross_entropy(LOGITS + shift, TARGETS, WEIGHTS, z_loss=z_loss).loss_sum
        assert np.allclose(a, b, rtol=1e-5) == same
    log_z = np.log(np.exp(LOGITS.astype(np.float64)).sum(-1))
    extra = cross_entropy(LOGITS, TARGETS, WEIGHTS, z_loss=1e-2).loss_sum - cross_entropy(LOGITS, TARGETS, WEIGHTS).loss_sum
    np.testing.assert_allclose(extra, 1e-2 * (log_z**2 * WEIGHTS).sum(), rtol=1e-4)


def test_without_targets_loss_and_gradient_are_zero():
    loss = lambda logits: cross_entropy(logits, TARGETS, np.zeros_like(WEIGHTS), z_loss=1e-2).loss_sum  # noqa: E731
    value, gradient = jax.jit(jax.value_and_grad(loss))(LOGITS)
    assert value == 0.0
    assert not np.any(gradient)


def test_large_logits_stay_finite():
    logits = jnp.asarray([[[1e4, -1e4, 0.0]]])
    found = cross_entropy(logits, jnp.asarray([[1]]), jnp.ones((1, 1)))
    assert found.loss_sum == pytest.approx(2e4)


def test_pretraining_is_the_cross_entropy_of_the_model():
    model, batch = StubModel(), StubStream()[0]
    params = jax.tree.map(lambda x: RNG.normal(size=x.shape).astype(np.float32), model.abstract())
    loss_sum, weight_sum, aux = jax.jit(losses.pretraining(model.apply))(params, None, batch, KEY)
    logits = jax.jit(model.apply)(params, batch.inputs).logits
    found = cross_entropy(logits, batch.targets, batch.weights)
    np.testing.assert_allclose([loss_sum, weight_sum, aux["nll_sum"]], [found.loss_sum, found.weight_sum, found.nll_sum], rtol=1e-6)


def two_parts(heads, labels, label_weights):
    """A loss whose model returns given logits, and a batch with labels of whole sequences."""
    zero = np.zeros_like(TARGETS)
    batch = Batch(zero, TARGETS, WEIGHTS, zero + 1, zero, labels=labels, label_weights=label_weights)
    return losses.pretraining(lambda params, inputs, compute_dtype: Outputs(params["logits"], params["logits"], {}, heads)), batch


def test_labels_of_sequences_add_their_weighted_cross_entropy_and_no_weight():
    scores, labels = RNG.normal(size=(3, 2, 4)).astype(np.float32), RNG.integers(4, size=(3, 2)).astype(np.int32)
    label_weights = np.array([[2.5, 0.0], [1.0, 0.5], [0.0, 3.0]], np.float32)
    loss_fn, batch = two_parts({"tags": jnp.zeros((3, 5, 4)), "classes": jnp.asarray(scores)}, labels, label_weights)
    loss_sum, weight_sum, aux = jax.jit(loss_fn)({"logits": LOGITS}, None, batch, KEY)
    nll = -np.take_along_axis(log_probabilities(np.asarray(scores)), labels[..., None], -1)[..., 0]
    np.testing.assert_allclose(aux["label_loss_sum"], (nll * label_weights).sum(), rtol=1e-5)
    np.testing.assert_allclose(loss_sum - aux["nll_sum"], (nll * label_weights).sum(), rtol=1e-4)
    assert weight_sum == WEIGHTS.sum()


def test_a_batch_without_targets_or_labels_has_zero_loss_and_zero_gradients():
    labels = np.zeros((3, 2), np.int32)

    def total(logits, scores):
        loss_fn, batch = two_parts({"classes": scores}, labels, np.zeros((3, 2), np.float32))
        loss_sum, weight_sum, aux = loss_fn({"logits": logits}, None, dataclasses.replace(batch, weights=0 * WEIGHTS), KEY)
        return loss_sum, (weight_sum, aux["nll_sum"], aux["label_loss_sum"])

    gradient = jax.jit(jax.value_and_grad(total, argnums=(0, 1), has_aux=True))
    (loss_sum, sums), gradients = gradient(LOGITS, np.ones((3, 2, 4), np.float32))
    assert loss_sum == 0.0
    assert all(value == 0.0 for value in sums)
    assert all((np.asarray(gradient) == 0).all() for gradient in gradients)


def test_gradient_of_smoothing_and_z_loss_is_that_of_the_formulas():
    """d/dlogit = (p - q) + 2 z log(Z) p, with q the target smoothed to 1 - s + s / V."""
    smoothing, z = 0.1, 1e-2
    loss = lambda logits: cross_entropy(logits, TARGETS, WEIGHTS, z_loss=z, label_smoothing=smoothing).loss_sum  # noqa: E731
    found = jax.jit(jax.grad(loss))(LOGITS)
    log_z = np.log(np.exp(LOGITS.astype(np.float64)).sum(-1, keepdims=True))
    p = np.exp(LOGITS - log_z)
    q = (1 - smoothing) * np.eye(7)[TARGETS] + smoothing / 7
    np.testing.assert_allclose(found, (p - q + 2 * z * log_z * p) * WEIGHTS[..., None], atol=2e-6)


def test_the_loss_in_chunks_is_the_loss_of_the_logits():
    """In value and gradients, whatever factor the sum gets."""
    states, kernel = RNG.normal(size=(3, 4, 6)).astype(np.float32), RNG.normal(size=(6, 7)).astype(np.float32)
    targets, weights = TARGETS[:, :4], WEIGHTS[:, :4]

    def of_logits(states, kernel):
        return 0.3 * losses.cross_entropy(states @ kernel, targets, weights).loss_sum

    def in_chunks(states, kernel):
        return 0.3 * losses.cross_entropy_of_factors(states, kernel, targets, weights, 2).loss_sum

    found, expected = (jax.jit(jax.value_and_grad(f, argnums=(0, 1)))(states, kernel) for f in (in_chunks, of_logits))
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(jax.jit(in_chunks)(states, kernel), expected[0], rtol=1e-5)


def test_chunks_divide_the_tokens_or_there_are_none():
    assert [losses.chunk_of(tokens) for tokens in (4096, 384, 3 * 5 * 64, 521)] == [512, 384, 480, None]
