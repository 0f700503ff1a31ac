"""What a model is: frozen dataclasses without jax, so that plans and `--help` need no accelerator library."""

import dataclasses
from typing import Literal, Optional

Norm = Literal["rmsnorm", "layernorm"]
Positions = Literal["rope", "learned", "none"]
Activation = Literal["gelu", "silu", "relu", "squared_relu"]


@dataclasses.dataclass(frozen=True)
class AttentionConfig:
    """Grouped-query attention: `num_heads` query heads share `num_kv_heads` key/value heads of size `head_dim`."""

    num_heads: int = 4
    num_kv_heads: Optional[int] = None  # None: as many as query heads
    head_dim: int = 16
    qk_norm: bool = False
    bias: bool = False
    qk_bias_init: float = 0.0  # first value of query and key biases; above 0, fresh heads with rotary positions look at near keys
    window: Optional[int] = None  # a query sees this many keys at most, its own included
    documents: Literal["isolated", "joined"] = "isolated"  # whether packed documents see each other


@dataclasses.dataclass(frozen=True)
class MLPConfig:
    """Feed-forward layer of width `d_ff`; `gated` multiplies by a second projection (GLU)."""

    d_ff: int = 256
    activation: Activation = "gelu"
    gated: bool = False
    bias: bool = False


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """A decoder-only Transformer (pre-norm)."""

    vocab_size: int = 256
    d_model: int = 64
    num_layers: int = 2
    max_length: int = 128  # sequence length of training; a hard limit with learned positions only
    attention: AttentionConfig = dataclasses.field(default_factory=AttentionConfig)
    mlp: MLPConfig = dataclasses.field(default_factory=MLPConfig)
    norm: Norm = "rmsnorm"
    norm_epsilon: float = 1e-6
    positions: Positions = "rope"
    rope_theta: float = 10_000.0
    tied_head: bool = False
    embedding_std: Optional[float] = None  # None: 1, or d_model^-1/2 where the table is also the head
    zero_init_outputs: bool = False  # projections that write to the residual stream start at zero
    logit_softcap: Optional[float] = None
