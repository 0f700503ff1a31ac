"""The configuration of a model: frozen dataclasses without jax, so that plans and `--help` need no accelerator library."""

import dataclasses
import math
from typing import Any, Literal, Optional, Union

from lm.model.parts.attention import AttentionConfig
from lm.model.parts.component import Component
from lm.model.parts.mlp import Activation, MLPConfig
from lm.model.parts.norm import Norm

__all__ = [
    "MLP", "Activation", "Architecture", "AttentionConfig", "AttentionKernel", "ContextForm", "MLPConfig", "ModelConfig", "Norm",
    "OutputConfig", "Positions", "RopeScaling",
]  # fmt: skip

Architecture = Literal["decoder", "prefix_lm", "encoder_decoder", "encoder"]
NormPlacement = Literal["pre", "post", "post_inside"]
Positions = Literal["rope", "learned", "sinusoidal", "relative", "none"]
AttentionKernel = Literal["auto", "xla", "blockwise", "cudnn", "splash"]
ContextForm = Literal["gather", "ring"]
MLP = Union[MLPConfig]  # kinds of feed-forward layer (lm.model.parts.component.FeedForward); the first needs no name in a configuration


@dataclasses.dataclass(frozen=True)
class RopeScaling:
    """Llama 3's stretched rotary frequencies.

    Wavelengths above `original_length / low_frequency_factor` have their frequency divided by `factor`, those below
    `original_length / high_frequency_factor` keep it, and those between are interpolated.
    """

    factor: float = 8.0
    low_frequency_factor: float = 1.0
    high_frequency_factor: float = 4.0
    original_length: int = 8192


@dataclasses.dataclass(frozen=True)
class OutputConfig:
    """A linear head beside the vocabulary's: `labels` numbers per token, or per sequence from the state of one token.

    `pooled` heads read tanh(dense(state)), as BERT's next-sentence head does. lm.model.outputs has the usual ones by name.
    """

    name: str = "classes"
    per: Literal["sequence", "token"] = "sequence"  # one prediction for each of these
    labels: int = 2  # numbers that the head gives
    token: Literal["first", "last"] = "first"  # token whose state stands for a sequence, where the batch does not say
    pooled: bool = False  # read the pooler's result
    bias: bool = True


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """A Transformer: its stacks, its masks, and what its blocks are made of.

        architecture      stacks            self-attention: a query sees a key when           cross-attention
        decoder           decoder           causal and same document                          -
        prefix_lm         decoder           (causal or key in prefix) and same document       -
        encoder_decoder   encoder, decoder  encoder: same; decoder: causal and same document  same document
        encoder           encoder           same document                                     -

    A prefix LM has a decoder's weights. All of one model's stacks have blocks of one kind and share one token embedding.
    """

    architecture: Architecture = "decoder"
    vocab_size: int = 256  # rows of the token table
    d_model: int = 64  # width of the residual stream
    num_layers: int = 2  # layers of each stack
    encoder_layers: Optional[int] = None  # layers of an encoder_decoder's encoder (default: num_layers)
    shared_stacks: bool = False  # one stack is both encoder and decoder; only cross-attention is the decoder's own
    max_length: int = 128  # sequence length of training; a hard limit with learned positions only
    attention: AttentionConfig = dataclasses.field(default_factory=AttentionConfig)
    mlp: MLP = dataclasses.field(default_factory=MLPConfig)
    norm: Norm = "rmsnorm"  # kind of every norm but those of queries and keys
    norm_epsilon: float = 1e-6  # added to a variance
    norm_placement: NormPlacement = "pre"  # layer(norm(x)) is added to x, or norm(x + layer(x)) leaves, or norm(layer(x)) is added
    parallel_residual: bool = False  # x + attention(norm_1(x)) + mlp(norm_2(x)), as in GPT-NeoX
    embedding_norm: bool = False  # a norm over the sum of all embeddings
    final_norm: bool = True  # a norm after the last block of each stack
    positions: Positions = "rope"  # rotary, learned or sinusoidal positions, T5's relative biases, or none
    rope_theta: float = 10_000.0  # base of the rotary frequencies
    rope_scaling: Optional[RopeScaling] = None  # Llama 3's stretched frequencies
    no_rope_interval: Optional[int] = None  # every so many layers one goes without rotary positions (SmolLM3: every 4th)
    rotary_fraction: float = 1.0  # share of each head's dimensions that rotary positions rotate, the first ones
    relative_buckets: int = 32  # buckets of T5's relative position bias, learned per head and shared by the layers of a stack
    relative_max_distance: int = 128  # distances beyond it share the last bucket
    token_types: int = 0  # kinds of token (BERT's two sentences), each with an embedding
    tied_head: bool = False  # the token table is the vocabulary's head too
    vocabulary_head: bool = True  # whether there are logits over the vocabulary
    head_transform: bool = False  # dense layer, activation (that of mlp) and norm before the vocabulary's head (BERT)
    head_bias: bool = False  # a bias on the logits over the vocabulary
    outputs: tuple[OutputConfig, ...] = ()  # further heads
    pooler: bool = False  # a pooler, tanh(dense(state)), although no head reads it (BERT without its heads)
    embedding_std: Optional[float] = None  # initial standard deviation (default: 1, or d_model^-1/2 / logit_scale with a tied head)
    embedding_scale: float = 1.0  # factor of token embeddings; the original Transformer has d_model^1/2
    logit_scale: float = 1.0  # factor of states before the head; T5 with a tied head has d_model^-1/2
    zero_init_outputs: bool = False  # projections that write to the residual stream start at zero
    logit_softcap: Optional[float] = None  # c in logits = c tanh(logits / c) (Gemma 2)

    @property
    def pools(self) -> bool:
        """True if the model has a pooler: it was asked for, or a head reads it."""
        return self.pooler or any(output.pooled for output in self.outputs)

    @property
    def out_gain(self) -> float:
        """The gain of projections that write to the residual stream."""
        return 0.0 if self.zero_init_outputs else 1.0

    @property
    def components(self) -> dict[str, Component]:
        """The components of its blocks, by option."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Component)}

    def tensor_sizes(self) -> dict[str, int]:
        """Returns the sizes that the mesh axis `tensor` must divide, by option."""
        inner = {f"{name}.{key}": size for name, part in self.components.items() for key, size in part.tensor_sizes().items()}
        return {**inner, "vocab_size": self.vocab_size}

    def split(self, ways: int) -> "ModelConfig":
        """Returns the configuration of the part that one of `ways` devices of the mesh axis `tensor` computes."""
        parts: dict[str, Any] = {name: part.split(ways) for name, part in self.components.items()}
        return dataclasses.replace(self, vocab_size=math.ceil(self.vocab_size / ways), **parts)
