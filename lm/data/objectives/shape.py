"""The rows of a data configuration: their shape, and the function that makes them (imports no jax)."""

import contextlib
import typing
from typing import Optional

from lm.data.config import DataConfig
from lm.data.objectives.base import RowMaker, SpecialIds
from lm.data.objectives.config import Objective
from lm.data.tokenizer import Tokenizer
from lm.errors import UserError
from lm.rows import RowShape


def row_shape(config: DataConfig, architecture: str) -> RowShape:
    """Returns the shape of one row. Raises UserError as `require` does."""
    require(config, architecture)
    return config.objective.row_shape(config.sequence_length, architecture)


def longest_that_fits(config: DataConfig, architecture: str, positions: int) -> Optional[int]:
    """Returns the longest data.sequence_length, the configured one at most, whose rows have no more positions; None if none has."""
    objective = config.objective
    for length in range(min(config.sequence_length, 4 * positions), 1, -1):
        with contextlib.suppress(UserError):
            objective.require(length, architecture, config.packing)
            row = objective.row_shape(length, architecture)
            if max(row.length, row.encoder_length) <= positions:
                return length
    return None


def row_maker(config: DataConfig, architecture: str, tokenizer: Tokenizer, vocab_size: int) -> RowMaker:
    """Returns the function that makes a Batch of some rows of a plan. Raises UserError as `require` does."""
    require(config, architecture)
    objective = config.objective
    return objective.row_maker(config.sequence_length, architecture, SpecialIds(tokenizer, objective, vocab_size))


def require(config: DataConfig, architecture: str) -> None:
    """Raises UserError unless the objective can train the architecture on rows of this length, and its options are in range."""
    objective = config.objective
    if architecture not in objective.architectures:
        others = ", ".join(each.name for each in typing.get_args(Objective) if architecture in each.architectures)
        raise UserError(
            f"objective {objective.name} trains {' or '.join(objective.architectures)}, not {architecture};"
            f" set --config.data.objective to one of {others or 'none'}"
        )
    objective.require(config.sequence_length, architecture, config.packing)
