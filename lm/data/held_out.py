"""Fixed rows of the validation split, made as training rows are."""

import dataclasses

from lm.data.config import DataConfig
from lm.data.mixture import Mixture, Source
from lm.data.pipeline import Data
from lm.data.stream import TrainStream
from lm.errors import UserError, counted
from lm.types import Batch


def held_out(data: Data, config: DataConfig, architecture: str, vocab_size: int, rows: int, seed: int = 0) -> Batch:
    """Returns `rows` fixed rows of the validation split: the same for every run of the same text, objective and seed.

    Under one `vocab_size` the pairs do not depend on the architecture; `loss_on_inputs` is taken off, so that only targets weigh.
    Raises UserError if the split holds fewer rows (`held_out_rows`).
    """
    held, config = _validation(data, config)
    available = held.mixture.rows_per_epoch
    if rows > available:
        raise UserError(
            f"the validation split has {counted(available, 'row')} of {config.sequence_length} tokens, not {rows:,}; ask for fewer"
        )
    return TrainStream(held, config, rows, seed, architecture=architecture, vocab_size=vocab_size)[0]


def held_out_rows(data: Data, config: DataConfig) -> int:
    """Returns how many rows `held_out` can give."""
    return _validation(data, config)[0].mixture.rows_per_epoch


def _validation(data: Data, config: DataConfig) -> tuple[Data, DataConfig]:
    """Returns a data set whose training documents are the validation split, and the configuration that reads all of it."""
    strict = tuple(dataclasses.replace(component, unusable="refuse") for component in config.components)  # what is measured is all of it
    config = dataclasses.replace(config, components=strict, objective=config.objective.targets_only(), unique_tokens=None)
    caches = data.validation.caches
    sources = [Source(cache, each.fingerprint, each.share) for cache, each in zip(caches, data.mixture.sources, strict=True)]
    try:
        mixture = Mixture(sources, config)
    except UserError as error:
        raise UserError(f"validation split: {error}") from error
    return dataclasses.replace(data, fingerprint=data.fingerprint + " held out", mixture=mixture), config
