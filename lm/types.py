"""The dimension letters and the values that travel between the parts.

Dimension letters (shape suffixes of names, and the capitals of einsum strings):

    B  batch rows          T  query positions     S  key positions
    D  model width         N  query heads         K  key/value heads
    G  query heads per key/value head             H  head size
    F  feed-forward width  V  vocabulary          L  layers
    P  predicted positions M  sequences in a row
"""

import dataclasses
from typing import Any, NamedTuple, Optional, Union

import jax
import numpy as np
from jaxtyping import Array, Float, Int

AnyArray = Union[Array, np.ndarray]  # on the device or on the host
Params = dict[str, Any]  # nested dict of arrays; outside lm/model the parameters are always this


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Inputs:
    """What a model reads: rows of tokens, on the host or on the device. Only `tokens` is always there.

    Without `segments` a row is one text; without `positions` they count from 0. `prefix` marks (1) the tokens that every query of their
    segment sees, in a prefix LM. `original_index` is each token's index in its row before the loader permuted the sequence axis, the same
    for all rows (None: not permuted). `predict` are the indices in the row whose outputs predict something (None: all).
    `sequence_positions` are the indices that stand for whole sequences (None: one sequence a row, at its first or last token as the head
    says). An encoder-decoder's `encoder_` fields are its encoder's stream, and a decoder's segment reads the encoder's segment of the
    same number.
    """

    tokens: Int[AnyArray, "B T"]
    segments: Optional[Int[AnyArray, "#B T"]] = None
    positions: Optional[Int[AnyArray, "#B T"]] = None
    prefix: Optional[Int[AnyArray, "B T"]] = None
    original_index: Optional[Int[AnyArray, "B T"]] = None
    token_types: Optional[Int[AnyArray, "B T"]] = None
    predict: Optional[Int[AnyArray, "B P"]] = None
    sequence_positions: Optional[Int[AnyArray, "B M"]] = None
    encoder_tokens: Optional[Int[AnyArray, "B S"]] = None
    encoder_segments: Optional[Int[AnyArray, "#B S"]] = None
    encoder_positions: Optional[Int[AnyArray, "#B S"]] = None
    encoder_original_index: Optional[Int[AnyArray, "#B S"]] = None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Batch:
    """One batch of packed sequences, numpy on the host or jax on the device: a model's inputs and what it shall predict.

    `positions` restart at 0 with each document; `segments` number the documents of a row from 1, and 0 is padding.
    `weights` weigh the loss of predicting `targets`; padding and the last position of a segment weigh 0 where no target exists.
    Target p of a row is predicted at index predict[p], or at index p where `predict` is None (then P = T).
    `labels` are classes of whole sequences, one for each of `sequence_positions`, weighed by `label_weights`. Fields that an objective
    does not need are None; see Inputs for the rest.
    """

    tokens: Int[AnyArray, "B T"]
    targets: Int[AnyArray, "B P"]
    weights: Float[AnyArray, "B P"]
    segments: Int[AnyArray, "B T"]
    positions: Int[AnyArray, "B T"]
    prefix: Optional[Int[AnyArray, "B T"]] = None
    original_index: Optional[Int[AnyArray, "B T"]] = None
    token_types: Optional[Int[AnyArray, "B T"]] = None
    predict: Optional[Int[AnyArray, "B P"]] = None
    sequence_positions: Optional[Int[AnyArray, "B M"]] = None
    labels: Optional[Int[AnyArray, "B M"]] = None
    label_weights: Optional[Float[AnyArray, "B M"]] = None
    encoder_tokens: Optional[Int[AnyArray, "B S"]] = None
    encoder_segments: Optional[Int[AnyArray, "B S"]] = None
    encoder_positions: Optional[Int[AnyArray, "B S"]] = None
    encoder_original_index: Optional[Int[AnyArray, "B S"]] = None

    @property
    def inputs(self) -> Inputs:
        """What the model reads of it."""
        return Inputs(**{field.name: getattr(self, field.name) for field in dataclasses.fields(Inputs)})


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Outputs:
    """What a model returns; what nobody reads is not computed under jit.

    `logits` float32 over the vocabulary, at the indices of `predict`; None without a vocabulary head. `heads` by name: [B, M, labels] per
    sequence, [B, T, labels] per token, float32. `pooled` is tanh(dense(state)) at `sequence_positions`, where the model has a pooler.
    `hidden` are the last stack's states after its final norm, `encoded` an encoder-decoder's encoder's. `aux`: statistics by name.
    """

    logits: Optional[Float[Array, "B P V"]]
    hidden: Float[Array, "B T D"]
    aux: dict[str, Any]
    heads: dict[str, Any]
    pooled: Optional[Float[Array, "B M D"]] = None
    encoded: Optional[Float[Array, "B S D"]] = None


class Hyper(NamedTuple):
    """Scalars that are arguments of the compiled step, so that runs of one shape share one executable.

    All are 0-d arrays on the device: float32 for the first two, int32 steps, uint32 seed.
    """

    learning_rate: Any  # peak
    weight_decay: Any
    warmup_steps: Any
    total_steps: Any
    seed: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """What a training step takes and returns; donated."""

    step: Int[Array, ""]
    params: Params
    opt_state: Any
