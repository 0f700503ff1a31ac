"""The ledger: parameters by group and training FLOPs per token under each convention (imports no jax).

A multiply-add is two FLOPs, and training costs three times the forward pass (Kaplan et al. 2020, section 2.1): the backward pass repeats
every product for the gradient of each factor. Elementwise work, the embedding's lookup, the optimizer and rematerialisation are left out.
"""

import dataclasses

from lm.model.config import ModelConfig

TRAINING = 3  # forward passes' worth of products in a training step


@dataclasses.dataclass(frozen=True)
class Ledger:
    """`params` by group: embedding, position, head, blocks, norms; and total, non_embedding, matmul.

    `non_embedding` leaves out the input and position tables and keeps an untied head. `matmul` are the weights that enter matrix products:
    the kernels of the blocks and the head, tied or not, without biases and norms.

    `flops_per_token` of training: "6nd" is 6 x total; "matmul_full" counts every matrix product with attention over all T x T pairs, as it
    is computed; "matmul_causal" only the pairs that the mask lets through.
    """

    params: dict[str, int]
    flops_per_token: dict[str, float]


def ledger(config: ModelConfig, sequence_length: int) -> Ledger:
    """Counts for rows of `sequence_length` tokens, each row one document."""
    params = _params(config)
    heads, size = config.attention.num_heads, config.attention.head_dim
    per_pair = config.num_layers * 2 * 2 * heads * size  # q k and weights v, two FLOPs each
    dense = 2 * params["matmul"]
    visible = _visible_keys(sequence_length, config.attention.window)
    flops = {
        "6nd": 6.0 * params["total"],
        "matmul_full": float(TRAINING * (dense + per_pair * sequence_length)),
        "matmul_causal": TRAINING * (dense + per_pair * visible),
    }
    return Ledger(params, flops)


def _visible_keys(length: int, window: int | None) -> float:
    """Mean number of keys that a query of a row sees: itself and those before it, within the window."""
    width = min(window or length, length)
    return (width * (width + 1) / 2 + (length - width) * width) / length


def _params(config: ModelConfig) -> dict[str, int]:
    attention, mlp, width, layers = config.attention, config.mlp, config.d_model, config.num_layers
    query = attention.num_heads * attention.head_dim
    shared = (attention.num_kv_heads or attention.num_heads) * attention.head_dim
    up = 2 if mlp.gated else 1
    kernels = layers * (2 * width * query + 2 * width * shared + (up + 1) * width * mlp.d_ff)
    biases = layers * ((query + 2 * shared + width) * attention.bias + (up * mlp.d_ff + width) * mlp.bias)
    per_norm = width * (2 if config.norm == "layernorm" else 1)
    groups = {
        "embedding": config.vocab_size * width,
        "position": config.max_length * width if config.positions == "learned" else 0,
        "head": 0 if config.tied_head else config.vocab_size * width,
        "blocks": kernels + biases,
        "norms": (2 * layers + 1) * per_norm + layers * 2 * attention.head_dim * attention.qk_norm,
    }
    total = sum(groups.values())
    return groups | {
        "total": total,
        "non_embedding": total - groups["embedding"] - groups["position"],
        "matmul": kernels + config.vocab_size * width,
    }
