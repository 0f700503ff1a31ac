"""The dimension letters and the values that travel between the parts.

Dimension letters (shape suffixes of names, and the capitals of einsum strings):

    B  batch rows          T  query positions     S  key positions
    D  model width         N  query heads         K  key/value heads
    G  query heads per key/value head             H  head size
    F  feed-forward width  V  vocabulary          L  layers
"""

import dataclasses
from typing import Any, NamedTuple, Union

import jax
import numpy as np
from jaxtyping import Array, Float, Int

AnyArray = Union[Array, np.ndarray]  # on the device or on the host
Params = dict[str, Any]  # nested dict of arrays; outside lm/model the parameters are always this


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Batch:
    """One batch of packed sequences, numpy on the host or jax on the device.

    `positions` restart at 0 with each document; `segments` number the documents of a row from 1, and 0 is padding.
    `weights` weigh the loss of predicting `targets`; padding and the last position of a segment weigh 0 where no target exists.
    """

    tokens: Int[AnyArray, "B T"]
    targets: Int[AnyArray, "B T"]
    weights: Float[AnyArray, "B T"]
    segments: Int[AnyArray, "B T"]
    positions: Int[AnyArray, "B T"]


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
