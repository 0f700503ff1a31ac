"""Kinds of positions: their parameters, memory and refusals (imports no jax). lm.model.positions computes them."""

from typing import Optional

from lm.model.config import ModelConfig
from lm.model.parts.component import Refusals


def table_size(config: ModelConfig) -> int:
    """Returns the number of parameters of one stack's positions: rows of learned positions, or biases of relative ones."""
    if config.positions == "learned":
        return config.max_length * config.d_model
    return config.relative_buckets * config.attention.num_heads if config.positions == "relative" else 0


def rotates(config: ModelConfig) -> bool:
    """Returns whether queries and keys of self-attention are turned."""
    return config.positions == "rope"


def rotated_size(config: ModelConfig) -> int:
    """Returns how many of a head's first dimensions rotary positions turn, rounded down."""
    return int(config.attention.head_dim * config.rotary_fraction)


def rotated_layers(config: ModelConfig, layers: int) -> Optional[list[bool]]:
    """Returns whether each of a stack's layers turns queries and keys; None if all do, or none."""
    every = config.no_rope_interval
    return None if every is None or not rotates(config) else [(layer + 1) % every != 0 for layer in range(layers)]


def bias_numbers(config: ModelConfig, length: int) -> int:
    """Returns how many float32 numbers a stack adds to the logits of all its layers, unless a kernel makes them in blocks."""
    return config.attention.num_heads * length**2 if config.positions == "relative" else 0


def limit(config: ModelConfig) -> Optional[int]:
    """Returns the greatest length of a text; None where there is no limit."""
    return config.max_length if config.positions == "learned" else None


def refusals(config: ModelConfig) -> Refusals:
    """Returns the reasons to refuse the options of positions, each with whether it holds."""
    return [*_rotary(config), *_relative(config)]


def _rotary(config: ModelConfig) -> Refusals:
    size, scaling = rotated_size(config), config.rope_scaling
    low, high = (0.0, 1.0) if scaling is None else (scaling.low_frequency_factor, scaling.high_frequency_factor)
    head = f"model.attention.head_dim={config.attention.head_dim} x rotary_fraction={config.rotary_fraction:g}"
    odd = f"{head} is {size}, which is {'odd' if size % 2 else 'nothing'}, and rotary positions turn pairs: make it even"
    every = config.no_rope_interval
    return [
        (every is not None and every < 1, f"model.no_rope_interval={every}: give 1 or more"),
        (
            every is not None and not rotates(config),
            f"model.no_rope_interval={every} is for rotary positions and these are {config.positions}: set --config.model.positions=rope",
        ),
        (low >= high, f"model.rope_scaling: low_frequency_factor={low:g} must lie below high_frequency_factor={high:g}"),
        (rotates(config) and (size < 2 or size % 2 != 0), odd),
    ]


def _relative(config: ModelConfig) -> Refusals:
    # Two directions share the buckets of an encoder; half of a direction's hold one distance each.
    ways = 2 if config.architecture in ("encoder", "encoder_decoder") else 1
    relative, buckets, furthest = config.positions == "relative", config.relative_buckets, config.relative_max_distance
    coarse = f"model.relative_max_distance={furthest} lies inside the buckets of single distances: give more than {buckets // 2}"
    return [
        (relative and buckets < 2 * ways, f"model.relative_buckets={buckets}: give {2 * ways} or more"),
        (relative and furthest <= buckets // 2, coarse),
    ]
