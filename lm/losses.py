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
    """Sums over the weighted positions: the loss to minimise, its weight, and its likelihood part alone (nats)."""

    loss_sum: Float[Array, ""]
    weight_sum: Float[Array, ""]
    nll_sum: Float[Array, ""]


def negative_log_likelihood(logits_BTV: jax.Array, targets_BT: AnyArray) -> tuple[jax.Array, jax.Array]:
    """-log p(target) in nats and log Z, both [B, T], float32 or wider, from logits of any float type."""
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
    """Cross-entropy in nats against targets smoothed towards the uniform distribution, plus `z_loss` x (log Z)^2.

    z-loss: Chowdhery et al. 2022 (PaLM), section 5. Label smoothing: Szegedy et al. 2016, eq. 3: the target's mass is 1 - s + s/V.
    Targets at positions of weight 0 may hold any id of the vocabulary.
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
    """The training loss of every objective: `apply` is Model.apply, (params, Inputs) -> Outputs.

    Cross-entropy of the targets, and where a batch has labels of whole sequences that of the model's head for them. Targets alone count
    in the weight by which the step divides; the objective scales `label_weights` to suit (Batch). The model's aux travels on under its
    own names, with `nll_sum` (nats of the targets, without z-loss and smoothing) added, and `label_loss_sum` where there are labels.
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
    """Weighted cross-entropy in nats, summed, of the labels of whole sequences; 0 where a batch has none. UserError without a head."""
    if batch.labels is None or batch.label_weights is None:
        return 0.0
    return cross_entropy(label_logits(heads, batch.labels), batch.labels, batch.label_weights).loss_sum


def label_logits(heads: dict[str, jax.Array], labels_BM: AnyArray) -> jax.Array:
    """[B, M, classes]: what the model's one head per sequence says of the labels. UserError unless it has one such head."""
    fitting = [logits for logits in heads.values() if logits.shape[:-1] == labels_BM.shape]
    if len(fitting) != 1:
        raise UserError(
            f"the objective has labels of whole sequences and {len(fitting)} of the model's outputs ({', '.join(heads) or 'none'})"
            " give them: set model.outputs to one head per sequence"
        )
    return fitting[0]
