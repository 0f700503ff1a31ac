"""The ledger: parameters by group and training FLOPs per document token under each convention, for every family (imports no jax).

A multiply-add is two FLOPs, and training costs three times the forward pass (Kaplan et al. 2020, section 2.1): the backward pass repeats
every product for the gradient of each factor. Elementwise work, lookups in tables (a relative position bias is one), the optimizer and
rematerialisation are left out.
"""

import dataclasses
from typing import Union

from lm.model import counts
from lm.model.config import ModelConfig
from lm.model.parts.heads import heads
from lm.model.parts.stacks import Member, Stream, members, streams
from lm.rows import RowShape

TRAINING = 3  # forward passes' worth of products in a training step


@dataclasses.dataclass(frozen=True)
class Ledger:
    """A model's counts of parameters and FLOPs. `params` are by group, as `lm.model.counts.parameters` has them.

    `flops_per_token`: training FLOPs of a row over the tokens of text that it consumes, by convention:

        6nd            6 x total parameters x positions. An encoder_decoder's weights count on the stream that they read: 6 (N_enc S +
                       N_dec T + cross-attention's K and V x S + head x P), with N of the blocks and norms, and no table but the head
        6nd_naive      of an encoder_decoder: 6 x total parameters x tokens of text
        matmul_full    every matrix product as it is computed, attention over all pairs of query and key
        matmul_causal  the same with only the pairs that the mask lets through
    """

    params: dict[str, int]
    flops_per_token: dict[str, float]


def ledger(config: ModelConfig, row: Union[RowShape, int]) -> Ledger:
    """Returns the counts for rows of a shape, each row one document; a number is the length of a row that is all text and all predicted."""
    row = RowShape(row) if isinstance(row, int) else row
    params = counts.parameters(config)
    dense = 2 * dense_products(config, row) / row.text
    flops = {"6nd": 6.0 * (params["total"] * row.length / row.text)}
    if config.architecture == "encoder_decoder":
        flops = {"6nd": 6.0 * _by_streams(config, row) / row.text, "6nd_naive": 6.0 * params["total"]}
    for name, visible in (("matmul_full", False), ("matmul_causal", True)):
        paired = sum(2 * products * (pairs / row.text) for products, pairs in _pairs(config, row, visible=visible))
        flops[name] = TRAINING * (dense + paired)
    return Ledger(params, flops)


def dense_products(config: ModelConfig, row: RowShape) -> int:
    """Returns the multiply-adds of a row's forward pass with the weights."""
    products = 0
    for stream in streams(config, row):
        for part in members(config, stream.stack.cross):
            keys = stream.memory if part.reads_memory else stream.length
            products += stream.stack.layers * part.component.products(config.d_model, stream.length, keys)
    counted = {"predicted": predicted(row), "sequences": row.sequences, "length": row.length}
    return products + sum(head.linear.kernel * counted[head.reads] for head in heads(config).values())


def predicted(row: RowShape) -> int:
    """Returns the number of positions that the vocabulary's head reads."""
    return row.length if row.predicted is None else row.predicted


def _pairs(config: ModelConfig, row: RowShape, *, visible: bool) -> list[tuple[int, float]]:
    """Returns (multiply-adds per pair in all layers, pairs in a row) of each component: all its pairs, or those that the mask shows."""
    found = []
    for stream in streams(config, row):
        for part in members(config, stream.stack.cross):
            if part.component.products_per_pair:
                found.append((stream.stack.layers * part.component.products_per_pair, _pairs_of(part, stream, visible)))
    return found


def _pairs_of(part: Member, stream: Stream, visible: bool) -> float:
    if part.reads_memory:
        return stream.length * stream.memory
    return part.component.visible_pairs(stream.length, causal=stream.causal, prefix=stream.prefix) if visible else stream.length**2


def _by_streams(config: ModelConfig, row: RowShape) -> int:
    """Returns parameters x positions that read them, for an encoder-decoder."""
    total = sum(head.linear.kernel * predicted(row) for head in heads(config).values() if head.reads == "predicted")
    for stream in streams(config, row):
        linears = [
            linear
            for part in members(config, stream.stack.cross)
            if part.reads_memory
            for linear in part.component.linears(config.d_model).values()
        ]
        read_memory = stream.stack.layers * sum(linear.kernel for linear in linears if linear.reads == "keys")
        total += (sum(counts.stack_weights(config, stream.stack)) - read_memory) * stream.length + read_memory * stream.memory
    return total
