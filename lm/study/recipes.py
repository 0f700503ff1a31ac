"""Rules that turn one dial (size) and a budget into a run: frozen dataclasses with one method each (imports no jax).

N in the rules is the matmul parameters (blocks and head), D document tokens, and batches are counted in sequences.
"""

import dataclasses

from lm.model.config import ModelConfig


@dataclasses.dataclass(frozen=True)
class HeadsShape:
    """One thing grows along the size axis: the number of heads h, of a fixed size, and with it d_model = width_per_head * h.

    Depth is fixed, and the feed-forward width is `mlp_ratio * d_model`, so that no shape ratio changes between sizes.
    Attention is `head_dim / width_per_head` times as wide as the residual stream.
    """

    head_dim: int = 16
    width_per_head: int = 8
    num_layers: int = 2
    mlp_ratio: int = 4

    def model(self, base: ModelConfig, heads: int) -> ModelConfig:
        """`base` with the shape of the dial's value `heads`."""
        width = self.width_per_head * heads
        return dataclasses.replace(
            base,
            d_model=width,
            num_layers=self.num_layers,
            attention=dataclasses.replace(base.attention, num_heads=heads, head_dim=self.head_dim),
            mlp=dataclasses.replace(base.mlp, d_ff=self.mlp_ratio * width),
        )


@dataclasses.dataclass(frozen=True)
class WidthShape:
    """One thing grows along the size axis: d_model, and with it the feed-forward width; heads, their size and depth are fixed."""

    num_heads: int = 2
    head_dim: int = 16
    num_layers: int = 2
    mlp_ratio: int = 4

    def model(self, base: ModelConfig, width: int) -> ModelConfig:
        """`base` with the shape of the dial's value `width`."""
        return dataclasses.replace(
            base,
            d_model=width,
            num_layers=self.num_layers,
            attention=dataclasses.replace(base.attention, num_heads=self.num_heads, head_dim=self.head_dim),
            mlp=dataclasses.replace(base.mlp, d_ff=self.mlp_ratio * width),
        )


@dataclasses.dataclass(frozen=True)
class PowerLawRate:
    """Peak learning rate = rate (B / batch)^b (N / params)^n (D / tokens)^d.

    The form of the step law (Li et al. 2025, "Predictable Scale I"), with the batch's square root for Adam
    (Malladi et al. 2022).
    """

    rate: float
    batch: float
    batch_exponent: float
    params: float
    params_exponent: float
    tokens: float
    tokens_exponent: float

    def peak(self, params: float, tokens: float, batch: int) -> float:
        """N matmul parameters, D tokens, B sequences a batch -> peak learning rate, to six digits."""
        value = self.rate * (batch / self.batch) ** self.batch_exponent
        value *= (params / self.params) ** self.params_exponent * (tokens / self.tokens) ** self.tokens_exponent
        return float(f"{value:.6g}")


@dataclasses.dataclass(frozen=True)
class ConstantBatch:
    """The same batch in every run."""

    sequences: int

    def batch_size(self, tokens: float, sequence_length: int) -> int:
        """D tokens -> sequences a batch."""
        return self.sequences


@dataclasses.dataclass(frozen=True)
class PowerOfTwoBatch:
    """Batch = the power of two next below sequences (D / tokens)^exponent, between `low` and `high`.

    It is halved, not below `low`, while the run would have fewer than `min_steps` steps.
    """

    sequences: float
    tokens: float
    exponent: float
    low: int = 1
    high: int = 1 << 20
    min_steps: int = 1

    def batch_size(self, tokens: float, sequence_length: int) -> int:
        """D tokens -> sequences a batch."""
        wanted = self.sequences * (tokens / self.tokens) ** self.exponent
        size = self.high
        while size // 2 >= self.low and (size > wanted or tokens / (size * sequence_length) < self.min_steps):
            size //= 2
        return size
