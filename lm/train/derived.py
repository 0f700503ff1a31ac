"""Values derived from a run's configuration: rows, steps, scalars, and the shape by which programs are shared (imports no jax)."""

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from lm.data.config import DataConfig
from lm.data.objectives.shape import row_shape
from lm.errors import UserError
from lm.optim.schedules import warmup_steps
from lm.rows import RowShape
from lm.train.config import BadStepsConfig, CheckpointConfig, EvalConfig, IntegrityConfig, LogConfig, RunConfig

if TYPE_CHECKING:
    from lm.types import Hyper


def row_of(config: RunConfig) -> RowShape:
    """Returns the shape of the run's rows; UserError for an objective that cannot train the architecture."""
    return row_shape(config.data, config.model.architecture)


def tokens_per_step(config: RunConfig) -> int:
    """Returns the tokens of text that a step consumes, the padding of padded rows included. D counts these."""
    return config.batch_size * row_of(config).text


def total_steps(config: RunConfig) -> int:
    """Returns the number of whole steps in the token budget; UserError when there is none."""
    if config.batch_size < 1:
        raise UserError(f"batch_size={config.batch_size}: give 1 or more")
    steps = config.train_tokens // tokens_per_step(config)
    if steps < 1:
        per_step = tokens_per_step(config)
        raise UserError(
            f"train_tokens={config.train_tokens:,} holds no step of {per_step:,} tokens:"
            f" set --config.train_tokens={per_step} or more, or lower --config.batch_size"
        )
    return steps


def hyper_of(config: RunConfig) -> "Hyper":
    """Returns the run's scalars, as numpy values of the types that the step takes."""
    from lm.types import Hyper  # imports jax

    steps = total_steps(config)
    warmup = warmup_steps(config.optim.warmup_fraction, config.optim.warmup_tokens, steps, tokens_per_step(config))
    return Hyper(
        learning_rate=np.float32(config.optim.learning_rate),
        weight_decay=np.float32(config.optim.weight_decay),
        warmup_steps=np.int32(warmup),
        total_steps=np.int32(steps),
        seed=np.uint32(config.seed),
    )


def shape_of(config: RunConfig, *, evaluation: EvalConfig = EvalConfig()) -> RunConfig:
    """Returns the shape of a run: its configuration, with defaults for all that compiled code does not depend on.

    Two configurations of equal shape share a Program. Evaluators share theirs where `evaluation` is equal too.
    """
    spike = config.bad_steps.spike
    return dataclasses.replace(
        config,
        optim=dataclasses.replace(config.optim, learning_rate=0.0, weight_decay=0.0, warmup_fraction=0.0, warmup_tokens=None),
        evaluation=evaluation,
        log=LogConfig(layer_norms=config.log.layer_norms),
        checkpoint=CheckpointConfig(),
        integrity=IntegrityConfig(),
        bad_steps=BadStepsConfig() if spike is None else BadStepsConfig(spike=spike, window=config.bad_steps.window),
        data=layout_of(config.data),
        train_tokens=0,
        seed=0,
        data_dir="",
    )


def layout_of(data: DataConfig) -> DataConfig:
    """Returns the part of a data configuration that decides the shape of its rows. Packed and padded rows of documents have one shape."""
    objective = data.objective
    return DataConfig(sequence_length=data.sequence_length, packing=objective.packing or "concatenate", objective=objective)
