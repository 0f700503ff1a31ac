"""Rules that turn a size and a budget into a run: its shape, its learning rate, its batch (imports no jax).

A rule is a frozen dataclass with one method; a rule of your own needs that method and nothing else (the protocols are in lm.study.study).
A study has one dial: the number, such as the width, that grows from size to size. N is the matmul parameters (blocks and head), D the
document tokens, and batches are counted in sequences.
"""

import dataclasses
from typing import Optional

from lm.errors import UserError
from lm.mesh import MeshConfig
from lm.model.config import ModelConfig
from lm.train.config import ExecutionConfig


@dataclasses.dataclass(frozen=True)
class HeadsShape:
    """The dial is the number of heads, of a fixed size; d_model is `width_per_head` times as much.

    Depth is fixed, and the feed-forward width is `mlp_ratio * d_model`, so that no shape ratio changes between sizes.
    Attention is `head_dim / width_per_head` times as wide as the residual stream.
    """

    head_dim: int = 16
    width_per_head: int = 8
    num_layers: int = 2
    mlp_ratio: int = 4

    def model(self, base: ModelConfig, heads: int) -> ModelConfig:
        """Returns `base` with this number of heads and the shape that follows from it."""
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
    """The dial is d_model, and the feed-forward width grows with it; heads, their size and depth are fixed."""

    num_heads: int = 2
    head_dim: int = 16
    num_layers: int = 2
    mlp_ratio: int = 4

    def model(self, base: ModelConfig, width: int) -> ModelConfig:
        """Returns `base` with this d_model and the shape that follows from it."""
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
        """Returns the peak learning rate, to six digits, for N matmul parameters, D tokens and B sequences a batch."""
        value = self.rate * (batch / self.batch) ** self.batch_exponent
        value *= (params / self.params) ** self.params_exponent * (tokens / self.tokens) ** self.tokens_exponent
        return float(f"{value:.6g}")


@dataclasses.dataclass(frozen=True)
class ConstantBatch:
    """Every run has the same batch size."""

    sequences: int

    def batch_size(self, tokens: float, sequence_length: int, params: float) -> int:
        """Returns the sequences of a batch, whatever the size of the run."""
        return self.sequences


@dataclasses.dataclass(frozen=True)
class PowerOfTwoBatch:
    """The batch size is the power of two next below sequences (D / tokens)^exponent, between `low` and `high`.

    It is halved, not below `low`, while the run would have fewer than `min_steps` steps.
    """

    sequences: float
    tokens: float
    exponent: float
    low: int = 1
    high: int = 1 << 20
    min_steps: int = 1

    def batch_size(self, tokens: float, sequence_length: int, params: float) -> int:
        """Returns the sequences of a batch for D tokens."""
        wanted = self.sequences * (tokens / self.tokens) ** self.exponent
        size = self.high
        while size // 2 >= self.low and (size > wanted or tokens / (size * sequence_length) < self.min_steps):
            size //= 2
        return size


@dataclasses.dataclass(frozen=True)
class Tier:
    """How models of at most N = `params` matmul parameters are trained: the mesh, whose axes multiply to the devices, and the rest.

    `rows` is the most rows that a device holds at a time: larger batches are split into as many micro-batches as it takes.
    """

    params: float
    mesh: MeshConfig = MeshConfig()
    execution: ExecutionConfig = ExecutionConfig()
    rows: Optional[int] = None

    def micro_batches(self, batch: int) -> int:
        """Returns the micro-batches of a batch: the fewest that divide it, spread over the devices and keep to `rows`."""
        ways = max(1, self.mesh.data) * self.mesh.fsdp
        split = [count for count in range(1, batch + 1) if batch % (count * ways) == 0]
        return next((count for count in split if self.rows is None or batch // (count * ways) <= self.rows), max(split, default=1))


@dataclasses.dataclass(frozen=True)
class Tiers:
    """Every run has the mesh and the execution of the first tier that its model fits."""

    tiers: tuple[Tier, ...]

    def settings(self, params: float, tokens: float, batch: int) -> tuple[MeshConfig, ExecutionConfig]:
        """Returns the mesh and the execution for N matmul parameters. Raises UserError for more than the last tier has."""
        for tier in self.tiers:
            if params <= tier.params:
                execution = tier.execution
                if tier.rows is not None:
                    execution = dataclasses.replace(execution, micro_batches=tier.micro_batches(batch))
                return tier.mesh, execution
        raise UserError(f"a model of {params:,.0f} parameters is larger than every tier of the study's execution: add a tier")
