"""What a model tells of texts without writing any: log-probabilities, candidates at masks, states. One program for a bucket of lengths."""

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
        raise UserError("the first token of a text follows nothing: give a prompt")
    row = _rows(model, [ids], inputs=[inputs] if model.config.architecture == "encoder_decoder" else None, prefix=prefix)
    log_p_TV = np.asarray(_log_probs(model, dtype)(params, row))[0, begin - 1 : len(ids) - 1]
    return _of_targets(log_p_TV, np.asarray(ids[begin:]))


def masked(model: Model, params: Params, ids: Sequence[int], at: Sequence[int], mask: int, dtype: Any) -> Likelihood:
    """Returns the likelihood under an encoder of each id of the indices `at`, masked alone."""
    found = []
    for first in range(0, len(at), ROWS):
        part = list(at[first : first + ROWS])
        rows = [[*ids[:i], mask, *ids[i + 1 :]] for i in part]
        rows += [list(ids)] * (bucket(len(rows)) - len(rows))
        log_p_BTV = np.asarray(_log_probs(model, dtype)(params, _rows(model, rows)))
        found.append(log_p_BTV[np.arange(len(part)), part])
    return _of_targets(np.concatenate(found), np.asarray([ids[i] for i in at]))


def at_masks(model: Model, params: Params, ids: Sequence[int], at: Sequence[int], dtype: Any) -> np.ndarray:
    """Returns the probabilities [M, V] of an encoder at the indices `at`."""
    return np.exp(np.asarray(_log_probs(model, dtype)(params, _rows(model, [ids])))[0, list(at)])


def pooled(model: Model, params: Params, rows: Sequence[Sequence[int]], pooling: str, dtype: Any, starts: Sequence[int]) -> np.ndarray:
    """Returns pooled states [rows, D] in float32; an encoder-decoder's are those of its encoder."""
    pair, found = model.config.architecture == "encoder_decoder", []
    for first in range(0, len(rows), ROWS):
        part = list(rows[first : first + ROWS])
        inputs = _rows(model, [starts] * len(part), inputs=part) if pair else _rows(model, part)
        lengths_B = np.array([len(row) for row in part], np.int32)
        found.append(np.asarray(_pooled(model, dtype, pooling)(params, inputs, lengths_B)))
    return np.concatenate(found)


def _of_targets(log_p_TV: np.ndarray, targets_T: np.ndarray) -> Likelihood:
    return Likelihood(log_p_TV[np.arange(len(targets_T)), targets_T], np.argmax(log_p_TV, axis=-1) == targets_T)


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
