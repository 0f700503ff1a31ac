"""The training step: `step(state, frozen, batch, hyper) -> (state, metrics)`, for every objective and every architecture."""

from collections.abc import Callable
from typing import Any, Optional

import jax
import jax.numpy as jnp
import optax

from lm.losses import LossFn
from lm.optim.adam import held
from lm.optim.descent import learning_rate
from lm.optim.schedules import Schedule
from lm.sharding import STACK_AXES
from lm.train import spikes
from lm.train.placement import Layout
from lm.types import Batch, Hyper, Params, TrainState

Metrics = dict[str, jax.Array]
Sums = tuple[jax.Array, tuple[jax.Array, dict[str, jax.Array]]]  # of the loss, and of the weights, with the model's statistics
Step = Callable[[TrainState, Any, Batch, Hyper], tuple[TrainState, Metrics]]


def make_step(
    loss_fn: LossFn,
    optimizer: optax.GradientTransformationExtraArgs,
    schedule: Schedule,
    *,
    micro_batches: int = 1,
    layer_norms: Optional[Params] = None,
    layout: Layout = Layout(),
    spike: Optional[float] = None,
) -> Step:
    """Builds the training step, which is not yet jitted: jit it with `donate_argnums=0`.

    A step whose loss or gradient is not finite, or is a spike, leaves weights and optimizer state as they are, and only the count of steps
    goes on. The choice is made leaf by leaf in the update itself, which has both values at hand: no array is read once more or copied.

    Args:
      loss_fn: the loss, as sums over weighted targets.
      optimizer: the optimizer, whose updates take `step` and `hyper`.
      schedule: the learning-rate schedule, for the metrics.
      micro_batches: gradient-accumulation micro-batches per step.
      layer_norms: the logical axes of the parameters, to measure norms per layer; None measures none.
      layout: the shardings and memories in which the update is made.
      spike: the deviations above the median that make a spike (lm.train.spikes); None: none is one.

    Returns:
      step(state, frozen, batch, hyper) -> (state, metrics). Metrics are scalars of this step: `loss` (nats per weighted target), `weight`
      (sum of target weights), `grad_norm` (before clipping), `learning_rate`, `skipped` (1 or 0), and `label_loss`, the labels' part of the
      loss, where the objective has labels. With `layer_norms` also the model's statistics as `activations/..` and Euclidean norms as
      `gradients/..` and `updates/..`: a vector over layers where a weight is stacked. A batch without targets has loss 0 and gradient 0.
    """

    def step(state: TrainState, frozen: Any, batch: Batch, hyper: Hyper) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(jax.random.key(hyper.seed), state.step)
        weights = layout.gather(state.params)  # stated at both ends of a step, or the compiler spreads the split over the forward pass
        (loss_sum, (weight_sum, aux)), grad_sums = accumulate(loss_fn, weights, frozen, batch, key, micro_batches)
        inverse = jnp.where(weight_sum > 0, 1.0 / jnp.maximum(weight_sum, 1e-30), 0.0)
        grads = layout.split(jax.tree.map(lambda g: g * inverse, grad_sums))
        loss, grad_norm = loss_sum * inverse, optax.tree.norm(grads)
        is_sound, window = judged(state.spikes, loss, grad_norm, weight_sum, spike)
        params, moments = layout.split(weights), layout.to_device(state.opt_state)
        updates, moments = optimizer.update(grads, moments, params, step=state.step, hyper=hyper, is_sound=is_sound)
        # Chosen after the gathering, where the old weights are whole: chosen before it, XLA would gather both (tests/preflight).
        params = held(is_sound, layout.gather(optax.apply_updates(params, updates)), weights)
        opt_state = layout.to_host(moments)
        metrics = {
            "loss": loss,
            "weight": weight_sum,
            "grad_norm": grad_norm,
            "learning_rate": learning_rate(schedule, state.step, hyper),
            "skipped": 1.0 - is_sound,
        }
        if "label_loss_sum" in aux:
            metrics["label_loss"] = aux["label_loss_sum"] * inverse
        if layer_norms is not None:
            metrics |= {f"activations/{name}": value for name, value in named(aux) if not name.endswith("_sum")}
            metrics |= {f"gradients/{name}": norm for name, norm in norms(grads, layer_norms)}
            metrics |= {f"updates/{name}": norm for name, norm in norms(updates, layer_norms)}
        return TrainState(step=state.step + 1, params=params, opt_state=opt_state, spikes=window), metrics

    return step


def judged(
    window: Optional[spikes.Window], loss: jax.Array, grad_norm: jax.Array, weight: jax.Array, factor: Optional[float]
) -> tuple[jax.Array, Optional[spikes.Window]]:
    """Returns whether a step may change the weights, and the window of sound steps after it."""
    is_sound = jnp.isfinite(loss) & jnp.isfinite(grad_norm)  # one entry of the gradient that is not finite makes the norm so
    if window is None or factor is None:
        return is_sound, window
    values = spikes.seen(loss, grad_norm)
    is_sound &= ~spikes.is_spike(window, values, factor)
    return is_sound, spikes.with_step(window, values, is_sound & (weight > 0))  # without targets there is no loss


def accumulate(loss_fn: LossFn, params: Params, frozen: Any, batch: Batch, key: jax.Array, micro_batches: int) -> tuple[Sums, Params]:
    """Computes loss, weight and gradients, added up over micro-batches.

    Row r goes to micro-batch r mod micro_batches, so that rows stay on the device that holds them when the batch is sharded.

    Returns:
      ((loss_sum, (weight_sum, aux)), grad_sums). Entries of `aux` whose name ends in `_sum` are sums too; others are statistics, and their
      mean over micro-batches is returned.
    """

    def loss(params: Params, micro: Batch, key: jax.Array):
        loss_sum, weight_sum, aux = loss_fn(params, frozen, micro, key)
        return loss_sum, (weight_sum, aux)

    value_and_grad = jax.jit(
        jax.value_and_grad(loss, has_aux=True), inline=True
    )  # traced once: for its shapes, and as the body of the scan
    if micro_batches == 1:
        return value_and_grad(params, batch, key)

    def split(x: jax.Array) -> jax.Array:
        return x.reshape(x.shape[0] // micro_batches, micro_batches, *x.shape[1:]).swapaxes(0, 1)

    def body(total, inputs):
        micro, index = inputs
        return jax.tree.map(jnp.add, total, value_and_grad(params, micro, jax.random.fold_in(key, index))), None

    micros = jax.tree.map(split, batch)
    zeros = jax.tree.map(jnp.zeros_like, jax.eval_shape(value_and_grad, params, jax.tree.map(lambda x: x[0], micros), key))
    ((loss_sum, (weight_sum, aux)), grads), _ = jax.lax.scan(body, zeros, (micros, jnp.arange(micro_batches)))
    aux = {name: value if name.endswith("_sum") else value / micro_batches for name, value in aux.items()}
    return (loss_sum, (weight_sum, aux)), grads


def named(tree: Any) -> list[tuple[str, Any]]:
    """Returns (path, leaf) pairs, with paths written a/b/c."""
    return [(jax.tree_util.keystr(path, simple=True, separator="/"), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]


def norms(tree: Params, axes: Params) -> list[tuple[str, jax.Array]]:
    """Returns the Euclidean norm of every leaf by path, per layer where the leaf is stacked."""

    def norm(x: jax.Array, names: tuple) -> jax.Array:
        own = tuple(dim for dim, name in enumerate(names) if name not in STACK_AXES)
        squares = jnp.sum(jnp.square(x), axis=own)
        return jnp.sqrt(squares).ravel() if squares.ndim else jnp.sqrt(squares)

    return named(jax.tree.map(norm, tree, axes))
