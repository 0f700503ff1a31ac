"""Lists the stacks of a model, the components of their blocks, and the positions of a row that pass through them (imports no jax)."""

import dataclasses
from typing import NamedTuple

from lm.model.config import ModelConfig
from lm.model.parts.component import Component, Refusals
from lm.rows import RowShape


class Member(NamedTuple):
    """A component in its place in a block."""

    component: Component
    reads_memory: bool = False  # whether its keys are the encoder's positions


def members(config: ModelConfig, cross: bool) -> tuple[Member, ...]:
    """Returns the components of a block, each with a norm of the block's; `cross` blocks attend to an encoder."""
    own, mlp = Member(config.attention), Member(config.mlp)
    return (own, Member(config.attention, reads_memory=True), mlp) if cross else (own, mlp)


class StackShape(NamedTuple):
    """One stack of blocks as the parameter tree has it."""

    layers: int
    cross: bool = False  # whether its blocks attend to an encoder


def stacks(config: ModelConfig) -> tuple[StackShape, ...]:
    """Returns the stacks that hold parameters: a shared one is there once."""
    if config.architecture != "encoder_decoder":
        return (StackShape(config.num_layers),)
    decoder = StackShape(config.num_layers, cross=True)
    return (decoder,) if config.shared_stacks else (StackShape(encoder_layers(config)), decoder)


def encoder_layers(config: ModelConfig) -> int:
    """Returns the number of blocks that the encoder's stream of an encoder-decoder passes through."""
    return config.num_layers if config.shared_stacks or config.encoder_layers is None else config.encoder_layers


@dataclasses.dataclass(frozen=True)
class Stream:
    """The positions of a row that pass through a stack."""

    stack: StackShape
    length: int
    causal: bool = False
    prefix: float = 0.0  # mean length of the part of it that every query sees
    memory: int = 0  # length of the encoder's stream that its blocks attend to


def streams(config: ModelConfig, row: RowShape) -> tuple[Stream, ...]:
    """Returns the streams of a row: the decoder's, or the only one, and then an encoder-decoder's encoder's."""
    only = StackShape(config.num_layers)
    if config.architecture == "encoder":
        return (Stream(only, row.length),)
    if config.architecture != "encoder_decoder":
        return (Stream(only, row.length, causal=True, prefix=row.prefix if config.architecture == "prefix_lm" else 0.0),)
    encoder = Stream(StackShape(encoder_layers(config)), row.encoder_length)
    return (Stream(StackShape(config.num_layers, cross=True), row.length, causal=True, memory=row.encoder_length), encoder)


def refusals(config: ModelConfig) -> Refusals:
    """Returns the reasons to refuse the options of stacks and blocks, each with whether it holds."""
    both, layers, joined = config.architecture == "encoder_decoder", config.encoder_layers, config.attention.documents == "joined"
    given = "shared_stacks" if config.shared_stacks else "encoder_layers"
    alone = not both and (config.shared_stacks or layers is not None)
    other_depth = config.shared_stacks and layers not in (None, config.num_layers)
    return [
        (config.num_layers < 1, f"model.num_layers={config.num_layers}: give 1 or more"),
        (layers is not None and layers < 1, f"model.encoder_layers={layers}: give 1 or more, or --config.model.architecture=decoder"),
        (alone, f"model.{given} belongs to architecture=encoder_decoder and this is {config.architecture}"),
        (
            other_depth,
            f"model.encoder_layers={layers}: shared_stacks have num_layers={config.num_layers}: set --config.model.encoder_layers=none",
        ),
        (
            config.shared_stacks and config.attention.window is not None,
            "model.shared_stacks and attention.window do not go together (an encoder's window is two-sided):"
            " set --config.model.shared_stacks=false",
        ),
        (
            both and joined,
            "model.attention.documents=joined is for one stream, and an encoder-decoder has two:"
            " set --config.model.attention.documents=isolated",
        ),
        (
            config.parallel_residual and both,
            "model.parallel_residual knows no cross-attention: set --config.model.parallel_residual=false, or another architecture",
        ),
        (
            config.parallel_residual and config.norm_placement != "pre",
            "model.parallel_residual goes with --config.model.norm_placement=pre",
        ),
    ]
