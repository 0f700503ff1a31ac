"""Weighted cross-entropy, as sums: the training step divides once, after all micro-batches and devices are added."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from lm.errors import UserError
from lm.types import AnyArray, Batch, Params

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
        sums = cross_entropy(outputs.logits, batch.targets, batch.weights, z_loss=z_loss, label_smoothing=label_smoothing)
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
