"""Parameters by group, added up from what a model's parts say (imports no jax). The tests hold it against the trees that models build."""

from typing import NamedTuple

from lm.model.config import ModelConfig
from lm.model.parts.heads import heads
from lm.model.parts.norm import norm_size
from lm.model.parts.positions import table_size
from lm.model.parts.stacks import StackShape, members, stacks


class Weights(NamedTuple):
    """Numbers of parameters by kind."""

    kernels: int  # of linear layers
    biases: int
    norms: int  # scales and biases

    def plus(self, other: "Weights") -> "Weights":
        return Weights(*(a + b for a, b in zip(self, other, strict=True)))


def parameters(config: ModelConfig) -> dict[str, int]:
    """Returns the number of parameters by group.

        embedding  tokens and token types            blocks  kernels and biases of attention and feed-forward layers
        position   learned rows, relative biases     norms   scales and biases of every norm
        head       the untied table, its bias and transform, the pooler and further heads

    and total; non_embedding, without the input and position tables but with an untied head; and matmul, the kernels that enter matrix
    products: those of the blocks and of the heads, a tied table among them, without biases and norms.
    """
    blocks = Weights(0, 0, 0)
    for stack in stacks(config):
        blocks = blocks.plus(stack_weights(config, stack))
    head = _head_weights(config)
    tied = config.d_model * config.vocab_size if config.tied_head and config.vocabulary_head else 0
    groups = {
        "embedding": (config.vocab_size + config.token_types) * config.d_model,
        "position": len(stacks(config)) * table_size(config),
        "head": head.kernels - tied + head.biases,
        "blocks": blocks.kernels + blocks.biases,
        "norms": blocks.norms + head.norms,
    }
    total = sum(groups.values())
    non_embedding = total - groups["embedding"] - groups["position"]
    return groups | {"total": total, "non_embedding": non_embedding, "matmul": blocks.kernels + head.kernels}


def stack_weights(config: ModelConfig, stack: StackShape) -> Weights:
    """Returns the parameters of one stack without its tables."""
    norm, parts = norm_size(config.norm, config.d_model), members(config, stack.cross)
    linears = [linear for part in parts for linear in part.component.linears(config.d_model).values()]
    scales = sum(norm + part.component.scales() for part in parts)
    ends = (config.final_norm + config.embedding_norm) * norm
    kernels, biases = sum(linear.kernel for linear in linears), sum(linear.biases for linear in linears)
    return Weights(stack.layers * kernels, stack.layers * biases, stack.layers * scales + ends)


def _head_weights(config: ModelConfig) -> Weights:
    """Returns the parameters of all heads; a tied kernel counts."""
    linears = [head.linear for head in heads(config).values()]
    norm = norm_size(config.norm, config.d_model) if config.head_transform else 0
    return Weights(sum(linear.kernel for linear in linears), sum(linear.biases for linear in linears), norm)
