"""What a model tells of texts without writing any: log-probabilities, candidates at masks, states. One program for a bucket of lengths."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple, Optional

import jax
import jax.numpy as jnp
import numpy as np

from lm.errors import UserError
from lm.infer.decode import bucket, padded
from lm.model.architectures import Model
from lm.model.parts.positions import limit
from lm.types import Inputs, Outputs, Params

ROWS = 16  # rows of a batch at most


class Likelihood(NamedTuple):
    """Log-probabilities of tokens in nats, and whether each is the most likely one."""

    log_probs: np.ndarray
    is_best: np.ndarray


def following(
    model: Model, params: Params, ids: Sequence[int], begin: int, inputs: Sequence[int], prefix: Optional[int], dtype: Any
) -> Likelihood:
    """Returns the likelihood of ids[begin:] after what stands before them; `begin` is 1 at least.

    Args:
      model: a model that is no encoder.
      params: its parameters.
      ids: the stream of the decoder.
      begin: the index of the first id whose likelihood is asked for.
      inputs: the ids that an encoder-decoder's encoder reads.
      prefix: how many of the first ids are a prefix LM's prefix.
      dtype: the dtype of activations.
    """
    if begin < 1:
        raise UserError("the first token of a text follows nothing: give a prompt that has tokens of its own before the continuation")
    row = _rows(model, [ids], inputs=[inputs] if model.config.architecture == "encoder_decoder" else None, prefix=prefix)
    targets = list(ids[begin:])
    length = bucket(len(targets), row.tokens.shape[1])
    at_1P, _ = padded([range(begin - 1, len(ids) - 1)], length)
    targets_1P, _ = padded([targets], length)
    log_p_BP, best_BP = _of_targets(model, dtype)(params, dataclasses.replace(row, predict=at_1P), targets_1P)
    return Likelihood(np.asarray(log_p_BP)[0, : len(targets)], np.asarray(best_BP)[0, : len(targets)])


def masked(model: Model, params: Params, ids: Sequence[int], at: Sequence[int], mask: int, dtype: Any) -> Likelihood:
    """Returns the likelihood under an encoder of each id of the indices `at`, masked alone."""
    log_probs, is_best = [], []
    for first in range(0, len(at), ROWS):
        part = list(at[first : first + ROWS])
        rows = [[*ids[:i], mask, *ids[i + 1 :]] for i in part]
        rows += [list(ids)] * (bucket(len(rows)) - len(rows))
        at_B1 = np.array([*part, *[0] * (len(rows) - len(part))], np.int32)[:, None]
        inputs = dataclasses.replace(_rows(model, rows), predict=at_B1)
        log_p_B1, best_B1 = _of_targets(model, dtype)(params, inputs, np.asarray(ids, np.int32)[at_B1])
        log_probs.append(np.asarray(log_p_B1)[: len(part), 0])
        is_best.append(np.asarray(best_B1)[: len(part), 0])
    return Likelihood(np.concatenate(log_probs), np.concatenate(is_best))


def at_masks(model: Model, params: Params, ids: Sequence[int], at: Sequence[int], dtype: Any) -> np.ndarray:
    """Returns the probabilities [M, V] of an encoder at the indices `at`."""
    row = _rows(model, [ids])
    at_1P, _ = padded([at], bucket(len(at), row.tokens.shape[1]))
    return np.exp(np.asarray(_log_probs(model, dtype)(params, dataclasses.replace(row, predict=at_1P)))[0, : len(at)])


def pooled(model: Model, params: Params, rows: Sequence[Sequence[int]], pooling: str, dtype: Any, starts: Sequence[int]) -> np.ndarray:
    """Returns pooled states [rows, D] in float32; an encoder-decoder's are those of its encoder."""
    pair, found = model.config.architecture == "encoder_decoder", []
    for first in range(0, len(rows), ROWS):
        part = list(rows[first : first + ROWS])
        inputs = _rows(model, [starts] * len(part), inputs=part) if pair else _rows(model, part)
        lengths_B = np.array([len(row) for row in part], np.int32)
        found.append(np.asarray(_pooled(model, dtype, pooling)(params, inputs, lengths_B)))
    return np.concatenate(found)


def _rows(
    model: Model, rows: Sequence[Sequence[int]], *, inputs: Optional[Sequence[Sequence[int]]] = None, prefix: Optional[int] = None
) -> Inputs:
    """Returns rows as a model reads them, in arrays of a bucket's length."""
    most = limit(model.config)
    for row in (*rows, *(inputs or ())):
        if most is not None and len(row) > most:
            raise UserError(f"a text has {len(row)} tokens, and {model.config.positions} positions end at max_length={most}: shorten it")

    def stream(rows: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
        tokens_BT, lengths_B = padded(rows, bucket(max(map(len, rows)), most))
        return tokens_BT, (np.arange(tokens_BT.shape[1]) < lengths_B[:, None]).astype(np.int32)

    tokens_BT, segments_BT = stream(rows)
    column = np.arange(tokens_BT.shape[1])
    prefix_BT = None if prefix is None else np.broadcast_to((column < prefix).astype(np.int32), tokens_BT.shape)
    encoder = (None, None) if inputs is None else stream(inputs)
    return Inputs(tokens_BT, segments_BT, prefix=prefix_BT, encoder_tokens=encoder[0], encoder_segments=encoder[1])


@functools.lru_cache(maxsize=16)
def _log_probs(model: Model, dtype: Any) -> Any:
    def run(params: Params, inputs: Inputs) -> jax.Array:
        logits = model.apply(params, inputs, compute_dtype=dtype).logits
        assert logits is not None
        return jax.nn.log_softmax(logits)

    return jax.jit(run)


@functools.lru_cache(maxsize=16)
def _of_targets(model: Model, dtype: Any) -> Any:
    """Returns the program for log-probabilities of targets. The head is applied at `predict` alone, and no row of it comes to the host."""

    def run(params: Params, inputs: Inputs, targets_BP: jax.Array) -> tuple[jax.Array, jax.Array]:
        logits_BPV = model.apply(params, inputs, compute_dtype=dtype).logits
        assert logits_BPV is not None
        target_BP = jnp.take_along_axis(logits_BPV, targets_BP[..., None], axis=-1)[..., 0]
        return target_BP - jax.nn.logsumexp(logits_BPV, axis=-1), jnp.argmax(logits_BPV, axis=-1) == targets_BP

    return jax.jit(run)


@functools.lru_cache(maxsize=16)
def _pooled(model: Model, dtype: Any, pooling: str) -> Any:
    def run(params: Params, inputs: Inputs, lengths_B: jax.Array) -> jax.Array:
        found: Outputs = model.apply(params, inputs, compute_dtype=dtype)
        x_BTD = (found.hidden if found.encoded is None else found.encoded).astype(jnp.float32)
        if pooling != "mean":
            at_B = jnp.zeros_like(lengths_B) if pooling == "first" else lengths_B - 1
            return x_BTD[jnp.arange(x_BTD.shape[0]), at_B]
        real_BT1 = (jnp.arange(x_BTD.shape[1]) < lengths_B[:, None])[..., None]
        return jnp.sum(jnp.where(real_BT1, x_BTD, 0.0), axis=1) / lengths_B[:, None]

    return jax.jit(run)
