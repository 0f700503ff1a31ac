"""Checks of numbers outside of which a configuration means nothing, and of whether a model can be held at all (imports no jax)."""

import operator

from lm.errors import UserError
from lm.model.config import ModelConfig
from lm.model.counts import parameters
from lm.train.config import RunConfig

MOST_PARAMETERS = 10**15  # beyond all machines: sizes that a slip of the hand or a foreign file gives
SEEDS = 1 << 32
ONE_OR_MORE = (
    *("data.sequence_length", "batch_size", "train_tokens"),
    *(f"evaluation.{name}" for name in ("documents_bytes", "curve_bytes", "stride", "window_bytes", "longest_document")),
    *("execution.micro_batches", "execution.steps_per_dispatch", "execution.pipeline_micro_batches", "execution.pipeline_repeats"),
    *("checkpoint.every_steps", "checkpoint.keep", "log.every_steps"),
)
NONE_OR_MORE = ("evaluation.points_per_decade",)


def check(config: RunConfig) -> None:
    """Raises UserError for the first number that no run can have."""
    for paths, least in ((ONE_OR_MORE, 1), (NONE_OR_MORE, 0)):
        for path in paths:
            value = operator.attrgetter(path)(config)
            if value is not None and value < least:
                raise UserError(f"{path}={value}: give {least} or more, with --config.{path}=...")
    if not 0 <= config.seed < SEEDS:
        raise UserError(f"seed={config.seed}: give a whole number of at least 0 and below {SEEDS:,}, with --config.seed=...")


def check_size(model: ModelConfig) -> None:
    """Raises UserError for a model of more parameters than any machine holds, before anything is made for each of its layers."""
    total = parameters(model)["total"]
    if total > MOST_PARAMETERS:
        sizes = f"model.num_layers={model.num_layers}, model.d_model={model.d_model}, model.vocab_size={model.vocab_size}"
        raise UserError(f"the model has {total:.3g} parameters, which no machine holds: correct its sizes ({sizes})")
