"""Prefix language modelling: the second part of a chunk from its first."""

import dataclasses
import math
from typing import ClassVar

import numpy as np

from lm.data.objectives.base import Documents, Objective, SpecialIds, Spread, exactly
from lm.data.objectives.draws import Draws
from lm.data.objectives.ragged import Ragged


@dataclasses.dataclass(frozen=True)
class PrefixLM(Objective):
    """Predicts a chunk of n tokens from a prefix of uniformly drawn length 1..n-1 (Raffel et al. 2020, section 3.2). No token is added."""

    name: ClassVar[str] = "prefix"
    inputs_end: ClassVar[bool] = False
    continues_text: ClassVar[bool] = True

    examples_per_row: int = 1  # equal chunks that a row is cut into
    documents: Documents = "joined"  # whether a chunk joins documents, or is cut where one ends
    loss_on_inputs: bool = False  # whether a decoder predicts the prefix too

    def lengths(self, chunk: int) -> tuple[Spread, Spread, Spread]:
        half = Spread(chunk / 2, math.sqrt(max((chunk - 1) ** 2 - 1, 0) / 12), chunk - 1)
        return half, half, exactly(chunk)

    def pairs(self, chunks: Ragged, draws: Draws, ids: SpecialIds, rows: np.ndarray) -> tuple[Ragged, Ragged]:
        first = chunks.position < (1 + draws.integers("prefix", chunks.lengths - 1))[chunks.owner]
        return chunks.keep(first), chunks.keep(~first)
