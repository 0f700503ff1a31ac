"""Dimension letters, and the values that pass between data, model and training.

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
    """The inputs of a model: rows of tokens, on the host or on the device. Every field but `tokens` may be None.

    segments            the number of each token's document in its row (None: the row is one document)
    positions           the position of each token in its document (None: counted from 0)
    prefix              1 at tokens that every query of their segment may see, in a prefix LM
    original_index      each token's index before the loader permuted the sequence axis, the same for all rows (None: not permuted)
    predict             indices in the row whose outputs predict a target (None: all)
    sequence_positions  indices that stand for whole sequences (None: one per row, its first or last token as the head says)
    encoder_*           the stream of an encoder-decoder's encoder; a decoder's segment reads the encoder's segment of the same number
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
    """A batch of packed sequences, as numpy arrays on the host or jax arrays on the device: a model's inputs and its targets.

    `positions` restart at 0 with each document. `segments` number the documents of a row from 1; 0 is padding. Target p of a row is
    predicted at index predict[p], or at index p where `predict` is None (then P = T). `weights` are the weights of the targets in the loss:
    0 at padding, and at the last position of a segment if it has no target. `labels` are classes of whole sequences, one for each of
    `sequence_positions`, weighted by `label_weights`. Fields that an objective does not need are None. Inputs describes the others.
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
        """The fields that the model reads."""
        return Inputs(**{field.name: getattr(self, field.name) for field in dataclasses.fields(Inputs)})


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Outputs:
    """The outputs of a model. Under jit, outputs that nothing reads are not computed.

    logits   float32 logits over the vocabulary at the indices of `predict`; None without a vocabulary head
    hidden   states of the last stack after its final norm
    aux      statistics by name
    heads    float32 outputs of further heads by name: [B, M, labels] per sequence or [B, T, labels] per token
    pooled   tanh(dense(state)) at `sequence_positions`, if the model has a pooler
    encoded  states of the encoder of an encoder-decoder after its final norm
    factors  states [B, P, D] and a kernel [D, V] whose product the logits are, where a CPU does best to take the loss of them without the
             logits (lm.losses); None elsewhere
    """

    logits: Optional[Float[Array, "B P V"]]
    hidden: Float[Array, "B T D"]
    aux: dict[str, Any]
    heads: dict[str, Any]
    pooled: Optional[Float[Array, "B M D"]] = None
    encoded: Optional[Float[Array, "B S D"]] = None
    factors: Optional[tuple[Float[Array, "B P D"], Float[Array, "D V"]]] = None


class Hyper(NamedTuple):
    """Hyperparameters that are arguments of the compiled step, so that runs of one shape share one executable.

    All are 0-d arrays on the device: float32 for the first two, int32 for the steps, uint32 for the seed.
    """

    learning_rate: Any  # peak learning rate
    weight_decay: Any
    warmup_steps: Any
    total_steps: Any
    seed: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """The state that a training step takes, donated, and returns.

    `spikes` holds what spikes stand out from (lm.train.spikes); None where no step counts as one.
    """

    step: Int[Array, ""]
    params: Params
    opt_state: Any
    spikes: Any = None
