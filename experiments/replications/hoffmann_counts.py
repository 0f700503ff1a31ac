"""Counts parameters and FLOPs as Hoffmann et al. 2022 do, to set their tables beside our ledger (imports no jax).

Their model is Gopher's (Rae et al. 2021): relative positions as in Transformer-XL, with a d_model x d_model projection of distances in each
layer; biases; LayerNorms with scale and bias; one table of 32,000 pieces at both ends. Their counts differ from `lm.model.flops.ledger`:

    parameters  + the projection of distances with its two biases, layers x (d_model^2 + 2 d_model); our positions have no such kernel
    FLOPs       + a softmax of 3 operations per pair and head; - the head. Both leave out the projection of distances

(`ledger` says what it counts itself). The functions read widths, heads, layers and vocabulary of a configuration, and nothing else.
"""

from lm.model.config import ModelConfig


def chinchilla_parameters(config: ModelConfig) -> int:
    """Returns parameters as in table A9, which its rows follow within 0.2% on average and 1.5% at most."""
    width, hidden, attended = config.d_model, config.mlp.d_ff, config.attention.num_heads * config.attention.head_dim
    projections = 3 * width * attended + 3 * attended  # query, key, value
    distances = width**2 + 2 * width
    out = attended * width + width
    feed_forward = 2 * width * hidden + hidden + width
    norms = 4 * width
    return config.num_layers * (projections + distances + out + feed_forward + norms) + 2 * width + width * config.vocab_size


def chinchilla_flops_per_token(config: ModelConfig, sequence_length: int, *, tables: bool = False) -> float:
    """Returns training FLOPs per token by the formulas of appendix F, three times the forward pass of a row over its length.

    Appendix F counts the input table (as the product with one-hot vectors that it is not) and the head: `tables`. The ratios of table A4
    come out only without both.
    """
    length, width, hidden = sequence_length, config.d_model, config.mlp.d_ff
    heads, attended = config.attention.num_heads, config.attention.num_heads * config.attention.head_dim
    projections = 2 * 3 * length * width * attended
    scores, softmax, reduction = 2 * length**2 * attended, 3 * heads * length**2, 2 * length**2 * attended
    out = 2 * length * attended * width
    feed_forward = 2 * length * 2 * width * hidden
    forward = config.num_layers * (projections + scores + softmax + reduction + out + feed_forward)
    forward += 2 * 2 * length * width * config.vocab_size * tables
    return 3 * forward / length


def chinchilla_ratio(config: ModelConfig, sequence_length: int = 2048) -> float:
    """Returns FLOPs over 6 N D as in table A4: N with the table, FLOPs without it."""
    return chinchilla_flops_per_token(config, sequence_length) / (6 * chinchilla_parameters(config))
