"""Weighted cross-entropy, as sums: the training step divides once, after all micro-batches and devices are added."""

from collections.abc import Callable
from typing import Any, NamedTuple, Optional

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from lm.errors import UserError
from lm.types import AnyArray, Batch, Params

CHUNK = 512  # tokens whose logits are made at once (`cross_entropy_of_factors`): 256 and 1,024 took 3-5% longer
LossFn = Callable[[Params, Any, Batch, jax.Array], tuple[jax.Array, jax.Array, dict[str, jax.Array]]]


class CrossEntropy(NamedTuple):
    """Sums over weighted targets: the loss to minimise, the weights, and the loss without smoothing and z-loss (nats)."""

    loss_sum: Float[Array, ""]
    weight_sum: Float[Array, ""]
    nll_sum: Float[Array, ""]


def negative_log_likelihood(logits_BTV: jax.Array, targets_BT: AnyArray) -> tuple[jax.Array, jax.Array]:
    """Returns -log p(target) in nats and log Z, both [B, T], float32 or wider, from logits of any float type."""
    logits_BTV = logits_BTV.astype(jnp.promote_types(logits_BTV.dtype, jnp.float32))
    log_z_BT = jax.nn.logsumexp(logits_BTV, axis=-1)
    # Where the mesh splits the vocabulary each device looks through its own part, here and above: nothing but [B, T] is sent.
    target_logit_BT = jnp.take_along_axis(logits_BTV, targets_BT[..., None], axis=-1)[..., 0]
    return log_z_BT - target_logit_BT, log_z_BT


def cross_entropy(
    logits_BTV: Float[Array, "B T V"],
    targets_BT: Int[AnyArray, "B T"],
    weights_BT: Float[AnyArray, "B T"],
    *,
    z_loss: float = 0.0,
    label_smoothing: float = 0.0,
) -> CrossEntropy:
    """Returns the cross-entropy in nats against smoothed targets, plus `z_loss` x (log Z)^2, as sums.

    Args:
      logits_BTV: the logits.
      targets_BT: the target ids. Those of weight 0 may be any id of the vocabulary.
      weights_BT: the weights of the targets.
      z_loss: factor of (log Z)^2 (Chowdhery et al. 2022, section 5).
      label_smoothing: s; the target's mass is 1 - s + s/V, that of other ids s/V (Szegedy et al. 2016, eq. 3).
    """
    nll_BT, log_z_BT = negative_log_likelihood(logits_BTV, targets_BT)
    loss_BT = nll_BT
    if label_smoothing:
        uniform_BT = log_z_BT - logits_BTV.astype(log_z_BT.dtype).mean(axis=-1)
        loss_BT = (1.0 - label_smoothing) * nll_BT + label_smoothing * uniform_BT
    if z_loss:
        loss_BT = loss_BT + z_loss * jnp.square(log_z_BT)
    weights_BT = weights_BT.astype(nll_BT.dtype)
    return CrossEntropy(jnp.sum(weights_BT * loss_BT), jnp.sum(weights_BT), jnp.sum(weights_BT * nll_BT))


def chunk_of(tokens: int) -> Optional[int]:
    """Returns the tokens of a chunk of `cross_entropy_of_factors`, which divides all; None where no good size does."""
    most = max(size for size in range(1, min(tokens, CHUNK) + 1) if tokens % size == 0)
    return most if 4 * most >= CHUNK else None


def cross_entropy_of_factors(
    states_BTD: Float[Array, "B T D"], kernel_DV: Float[Array, "D V"], targets_BT: AnyArray, weights_BT: AnyArray, chunk: int
) -> CrossEntropy:
    """Returns the cross-entropy of the logits states x kernel, a chunk of tokens at a time, whose logits stay in a CPU's cache.

    The forward pass makes the gradients: that of a sum of losses is known but for one factor, and no logits are kept or made again (Hsu et
    al. 2024, section 3.2). Differentiable once, in reverse.
    """
    targets_CX = jnp.asarray(targets_BT).reshape(-1, chunk)
    weights_CX = jnp.asarray(weights_BT, states_BTD.dtype).reshape(-1, chunk)
    loss = _in_chunks(states_BTD.reshape(-1, chunk, states_BTD.shape[-1]), kernel_DV, targets_CX, weights_CX)
    return CrossEntropy(loss, jnp.sum(weights_CX), loss)


@jax.custom_vjp
def _in_chunks(states_CXD: jax.Array, kernel_DV: jax.Array, targets_CX: jax.Array, weights_CX: jax.Array) -> jax.Array:
    def one(of_chunk: Any) -> jax.Array:
        states_XD, targets_X, weights_X = of_chunk
        return jnp.sum(weights_X * negative_log_likelihood(states_XD @ kernel_DV, targets_X)[0])

    return jnp.sum(jax.lax.map(one, (states_CXD, targets_CX, weights_CX)))


def _with_gradients(states_CXD: jax.Array, kernel_DV: jax.Array, targets_CX: jax.Array, weights_CX: jax.Array) -> Any:
    def add(d_kernel_DV: jax.Array, of_chunk: Any) -> Any:
        states_XD, targets_X, weights_X = of_chunk
        logits_XV = states_XD @ kernel_DV
        nll_X, log_z_X = negative_log_likelihood(logits_XV, targets_X)
        is_target_XV = jax.lax.broadcasted_iota(targets_X.dtype, logits_XV.shape, 1) == targets_X[:, None]
        d_logits_XV = (jnp.exp(logits_XV - log_z_X[:, None]) - is_target_XV) * weights_X[:, None]
        return d_kernel_DV + states_XD.T @ d_logits_XV, (jnp.sum(weights_X * nll_X), d_logits_XV @ kernel_DV.T)

    d_kernel_DV, (losses_C, d_states_CXD) = jax.lax.scan(add, jnp.zeros_like(kernel_DV), (states_CXD, targets_CX, weights_CX))
    return jnp.sum(losses_C), (d_states_CXD, d_kernel_DV)


def _scaled(gradients: tuple[jax.Array, jax.Array], by: jax.Array) -> Any:
    return gradients[0] * by, gradients[1] * by, None, None


_in_chunks.defvjp(_with_gradients, _scaled)


def pretraining(apply: Callable, *, compute_dtype: Any = jnp.float32, z_loss: float = 0.0, label_smoothing: float = 0.0) -> LossFn:
    """Returns the training loss of every objective.

    It is the cross-entropy of the targets, plus that of the model's head for labels where a batch labels whole sequences. Only targets
    count in the weight by which the step divides; the objective scales `label_weights` to suit (Batch).

    Args:
      apply: Model.apply, (params, Inputs) -> Outputs.
      compute_dtype: the dtype in which the model computes.
      z_loss: factor of (log Z)^2.
      label_smoothing: share of each target's mass that is spread over the vocabulary.

    Returns:
      loss_fn(params, frozen, batch, key) -> (loss_sum, weight_sum, aux). `aux` holds the model's statistics under their own names,
      `nll_sum` (nats of the targets, without z-loss and smoothing), and `label_loss_sum` where there are labels.
    """

    def loss_fn(params: Params, frozen: Any, batch: Batch, key: jax.Array):
        del frozen, key  # pre-training has no reference model and no dropout
        outputs = apply(params, batch.inputs, compute_dtype=compute_dtype)
        chunk = None if outputs.factors is None or z_loss or label_smoothing else chunk_of(batch.targets.size)
        if chunk is None:
            sums = cross_entropy(outputs.logits, batch.targets, batch.weights, z_loss=z_loss, label_smoothing=label_smoothing)
        else:
            states_BPD, kernel_DV = outputs.factors
            sums = cross_entropy_of_factors(states_BPD, kernel_DV, batch.targets, batch.weights, chunk)
        labels = label_loss(outputs.heads, batch)
        aux = {**outputs.aux, "nll_sum": sums.nll_sum} | ({} if batch.labels is None else {"label_loss_sum": labels})
        return sums.loss_sum + labels, sums.weight_sum, aux

    return loss_fn


def label_loss(heads: dict[str, jax.Array], batch: Batch) -> Any:
    """Sums the weighted cross-entropy in nats of the labels of whole sequences; 0 where a batch has none. UserError without a head."""
    if batch.labels is None or batch.label_weights is None:
        return 0.0
    return cross_entropy(label_logits(heads, batch.labels), batch.labels, batch.label_weights).loss_sum


def label_logits(heads: dict[str, jax.Array], labels_BM: AnyArray) -> jax.Array:
    """Returns the logits [B, M, classes] of the model's one head per sequence. UserError unless it has one such head."""
    fitting = [logits for logits in heads.values() if logits.shape[:-1] == labels_BM.shape]
    if len(fitting) != 1:
        raise UserError(
            f"the objective labels whole sequences, and {len(fitting)} of the model's outputs ({', '.join(heads) or 'none'})"
            " predict such labels: set --config.model.outputs to one head per sequence"
        )
    return fitting[0]
