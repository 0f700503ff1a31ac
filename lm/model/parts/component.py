"""The questions that ledger, memory estimate, mesh check and preflight put to every component of a block (imports no jax).

They add up the answers and know no component by name. A new kind of feed-forward layer is one file with a subclass of `FeedForward` and
an entry in the union `lm.model.config.MLP` (docs/models.md, "Add a feed-forward layer").
"""

import abc
import dataclasses
import math
from typing import Any, ClassVar, Literal, Self

Refusals = list[tuple[bool, str]]  # (whether it is so, what is wrong and what to do)


@dataclasses.dataclass(frozen=True)
class LinearSpec:
    """A linear layer before it has weights: a kernel that contracts `ins` to `outs`, and perhaps a bias.

    Attributes:
        ins, outs: sizes by logical axis, in the kernel's order.
        bias_init: first value of every bias.
        gain: the kernel starts with standard deviation gain x fan_in^-1/2.
        reads: which positions pass through it: those of the queries or those of the keys, which differ in cross-attention.
    """

    ins: dict[str, int]
    outs: dict[str, int]
    bias: bool = False
    bias_init: float = 0.0
    gain: float = 1.0
    reads: Literal["queries", "keys"] = "queries"

    @property
    def kernel(self) -> int:
        """Number of weights of the kernel, which are also its multiply-adds per position."""
        return math.prod(self.ins.values()) * math.prod(self.outs.values())

    @property
    def biases(self) -> int:
        """Number of biases."""
        return math.prod(self.outs.values()) if self.bias else 0


class Component(abc.ABC):
    """A component of a block: a kind of attention or of feed-forward layer. Subclasses are frozen dataclasses of its options.

    `width` is the model's d_model. `queries` positions pass through the component. `keys` positions are read for them: the same ones, but
    for cross-attention those of the encoder; a feed-forward layer has no use for them.
    """

    @abc.abstractmethod
    def linears(self, width: int, out_gain: float = 1.0) -> dict[str, LinearSpec]:
        """Returns its linear layers by name. The gain of those that write to the residual stream is multiplied by `out_gain`."""

    def scales(self) -> int:
        """Returns the number of parameters of its own norms."""
        return 0

    def products(self, width: int, queries: int, keys: int) -> int:
        """Returns multiply-adds with its weights in a forward pass."""
        return sum(linear.kernel * (keys if linear.reads == "keys" else queries) for linear in self.linears(width).values())

    @property
    def products_per_pair(self) -> int:
        """Multiply-adds for each pair of a query and a key in a forward pass, in all heads."""
        return 0

    def visible_pairs(self, length: int, *, causal: bool, prefix: float) -> float:
        """Returns how many pairs of a query and a key of one document of `length` tokens it computes, if it skips hidden ones."""
        return length**2

    @abc.abstractmethod
    def kept(self, width: int, queries: int, keys: int, *, rotated: bool) -> tuple[int, int]:
        """Returns how many numbers of the compute dtype the backward pass keeps.

        Args:
            rotated: whether rotary positions turn queries and keys.

        Returns:
            (everything, the results of matrix products only). Everything includes the norm and the residual sum around the component.
        """

    def scores(self, queries: int, keys: int) -> int:
        """Returns how many float32 logits it computes for pairs of a query and a key."""
        return 0

    @property
    def key_numbers(self) -> int:
        """Numbers of each position that every query needs: its key and its value."""
        return 0

    @abc.abstractmethod
    def tensor_sizes(self) -> dict[str, int]:
        """Returns the sizes that the mesh axis `tensor` must divide, by option."""

    @abc.abstractmethod
    def split(self, ways: int) -> Self:
        """Returns the options of the part that one of `ways` devices of the mesh axis `tensor` computes."""

    @abc.abstractmethod
    def refusals(self, path: str) -> Refusals:
        """Returns the reasons to refuse its options, each with whether it holds; `path` is that of the options in a ModelConfig."""


class FeedForward(Component):
    """A kind of feed-forward layer. Each kind has a width `d_ff`, by which shape rules set it, and the `name` by which it is chosen."""

    name: ClassVar[str]
    d_ff: int

    @abc.abstractmethod
    def apply(self, layer: Any, x_BTD: Any) -> Any:
        """Returns y_BTD. `layer` (lm.model.mlp.MLP) has each linear layer as an attribute under the name that `linears` gives it."""


def sizes_of(path: str, sizes: dict[str, int]) -> Refusals:
    """Returns a refusal for each size below 1."""
    return [(size < 1, f"{path}.{name}={size}: give 1 or more") for name, size in sizes.items()]
