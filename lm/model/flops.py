"""Parameters and training FLOPs of a model, from its configuration alone and by named convention (imports no jax)."""

import dataclasses
from typing import Optional

from lm.errors import UserError
from lm.model.config import ModelConfig


@dataclasses.dataclass(frozen=True)
class Ledger:
    """What one model costs at one sequence length.

    `parameters` holds the disjoint groups

        embedding  the token table (a tied head is this table)    position  learned positions
        head       the untied head                                blocks    matrices and biases of the blocks
        norms      scales and biases of all norms, those of queries and keys included

    and three sums:

        total          all groups (Hoffmann et al. 2022 and this project's 6ND)
        non_embedding  blocks + norms: without embedding, positions and head (Kaplan et al. 2020)
        matmul         what multiplies activations: the blocks' matrices and the head, tied or not

    `flops` holds training FLOPs per token of a full row (forward x 3: each product has two of its size in the backward pass):

        6nd            6 x total
        matmul_full    6 x matmul + 12 H N T per layer for attention over all T x T pairs: what dense kernels compute
        matmul_causal  the same with the visible pairs only: (T + 1) / 2 keys a query, fewer with a window

    Left out: norms, softmax, activation functions, rotary positions, the lookup, the loss, the optimizer, and rematerialisation.
    Visible pairs are those of one document as long as the row; packed isolated documents see fewer.
    """

    parameters: dict[str, int]
    flops: dict[str, float]
    head_share: float  # of matmul_causal


def ledger(config: ModelConfig, sequence_length: int) -> Ledger:
    """The ledger of a decoder-only model. UserError for a length that is no length."""
    if sequence_length < 1:
        raise UserError(f"sequence_length={sequence_length} is no length: give 1 or more")
    matrices, biases, norms = _block(config)
    layers, table = config.num_layers, config.vocab_size * config.d_model
    norm = config.d_model * (2 if config.norm == "layernorm" else 1)
    groups = {
        "embedding": table,
        "position": config.max_length * config.d_model if config.positions == "learned" else 0,
        "head": 0 if config.tied_head else table,
        "blocks": layers * (matrices + biases),
        "norms": layers * (norms + 2 * norm) + norm,
    }
    total, matmul = sum(groups.values()), layers * matrices + table
    sums = {"total": total, "non_embedding": groups["blocks"] + groups["norms"], "matmul": matmul}
    heads = layers * config.attention.num_heads * config.attention.head_dim
    keys = visible_pairs(sequence_length, config.attention.window) / sequence_length
    flops = {
        "6nd": 6.0 * total,
        "matmul_full": 6.0 * matmul + 12.0 * heads * sequence_length,
        "matmul_causal": 6.0 * matmul + 12.0 * heads * keys,
    }
    return Ledger({**groups, **sums}, flops, 6.0 * table / flops["matmul_causal"])


def visible_pairs(length: int, window: Optional[int] = None) -> int:
    """Pairs (query, key) of a causal row: sum over queries t = 1..length of min(t, window)."""
    window = length if window is None else min(window, length)
    return window * (window + 1) // 2 + (length - window) * window


def _block(config: ModelConfig) -> tuple[int, int, int]:
    """(elements of matrices, of biases, of query and key norms) in one block."""
    attention, mlp, width = config.attention, config.mlp, config.d_model
    query = attention.num_heads * attention.head_dim
    shared = (attention.num_kv_heads or attention.num_heads) * attention.head_dim
    inputs = 2 if mlp.gated else 1
    matrices = width * (2 * query + 2 * shared) + (inputs + 1) * width * mlp.d_ff
    biases = (query + 2 * shared + width) * attention.bias + (inputs * mlp.d_ff + width) * mlp.bias
    return matrices, biases, 2 * attention.head_dim * attention.qk_norm
