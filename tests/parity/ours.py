"""What this project computes on the same rows with the same weights."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from cases import Rows
from reference import STATES

from lm import losses
from lm.hf import FAMILIES
from lm.hf.forms import entries
from lm.model.architectures import Model, build
from lm.model.config import ModelConfig
from lm.model.execution import Execution
from lm.model.weights import flatten
from lm.types import Batch

QUICK = {"xla_backend_optimization_level": 0}  # compiling takes nearly all the time


def batch_of(config: ModelConfig, rows: Rows) -> Batch:
    order = np.broadcast_to(np.arange(rows.tokens.shape[1], dtype=np.int32), rows.tokens.shape)
    labelled = any(output.per == "sequence" for output in config.outputs)
    return Batch(
        tokens=rows.tokens,
        targets=rows.targets,
        weights=rows.weights,
        segments=rows.mask,
        positions=order,
        token_types=rows.token_types if config.token_types else None,
        sequence_positions=np.zeros_like(rows.labels) if labelled else None,
        labels=rows.labels if labelled else None,
        label_weights=np.ones(rows.labels.shape, np.float32) if labelled else None,
        encoder_tokens=rows.encoder_tokens,
        encoder_segments=rows.encoder_mask,
    )


def run(config: ModelConfig, params: dict[str, Any], rows: Rows, dtype: str = "float32") -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """(outputs by name, gradients of the loss by path)."""
    with jax.enable_x64(dtype == "float64"):
        model = build(config, Execution(param_dtype=dtype, unroll=False, attention="xla"))
        cast = jax.tree.map(lambda x: jnp.asarray(x, dtype), params)
        batch = jax.tree.map(jnp.asarray, batch_of(config, rows))
        found, gradients = jax.jit(lambda params: _both(model, params, batch, jnp.dtype(dtype)), compiler_options=QUICK)(cast)
        named = {"logits": found.logits, "encoded": found.encoded, "pooled": found.pooled, "hidden": found.hidden, **found.heads}
        named = {name: np.asarray(value) for name, value in named.items() if value is not None}
        return named, {path: np.array(leaf) for path, leaf in flatten(gradients).items()}


def logits(config: ModelConfig, params: dict[str, Any], rows: Rows) -> np.ndarray:
    """Computes our logits in float64."""
    with jax.enable_x64(True):
        model = build(config, Execution(param_dtype="float64", unroll=False, attention="xla"))
        cast = jax.tree.map(lambda x: jnp.asarray(x, "float64"), params)
        inputs = jax.tree.map(jnp.asarray, batch_of(config, rows).inputs)
        apply = jax.jit(lambda params: model.apply(params, inputs, compute_dtype=jnp.float64).logits, compiler_options=QUICK)
        return np.asarray(apply(cast))


def _both(model: Model, params: Any, batch: Batch, dtype: Any) -> Any:
    def apply(params: Any, inputs: Any, *, compute_dtype: Any) -> Any:
        found = model.apply(params, inputs, compute_dtype=compute_dtype)
        seen.append(found)
        return found

    def loss(params: Any) -> Any:
        if model.config.vocabulary_head:
            value = losses.pretraining(apply, compute_dtype=dtype)(params, None, batch, jax.random.key(0))[0]
        else:
            found = apply(params, batch.inputs, compute_dtype=dtype)
            value = STATES * (jnp.sum(jnp.square(found.hidden) * batch.segments[..., None]) + jnp.sum(found.pooled**3))
        return value, seen.pop()

    seen: list[Any] = []
    gradients, found = jax.grad(loss, has_aux=True)(params)
    return found, gradients


def in_our_layout(family: str, config: ModelConfig, theirs: dict[str, np.ndarray], dtype: str) -> dict[str, np.ndarray]:
    """Gradients by their names as ours by path. Those of what transformers holds twice and we once are added."""
    table = FAMILIES[family]
    leaves = {path: tuple(leaf.shape) for path, leaf in flatten(build(config).abstract()).items()}
    known = entries(table.rules, leaves)
    found = {path: np.zeros(shape, dtype) for path, shape in leaves.items()}
    for name, gradient in theirs.items():
        ours = table.canonical(name, {**known, **table.tied})
        entry = known[ours if ours in known else table.tied[ours]]
        shapes = list(entry.shapes)
        # Less what the form adds to any tensor, of which the gradient has nothing.
        parts = zip(entry.ours, entry.form.load(gradient, shapes), entry.form.load(0 * gradient, shapes), strict=True)
        for path, part, added in parts:
            found[path][... if entry.layer is None else entry.layer] += part - added
    return found
