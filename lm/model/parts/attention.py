"""Grouped-query attention: its options and what they cost (imports no jax). lm.model.attention computes it."""

import dataclasses
import math
from typing import Literal, Optional

from lm.model.parts.component import Component, LinearSpec, Refusals, sizes_of


@dataclasses.dataclass(frozen=True)
class AttentionConfig(Component):
    """Grouped-query attention: `num_heads` query heads share `num_kv_heads` key/value heads of size `head_dim`."""

    num_heads: int = 4  # query heads
    num_kv_heads: Optional[int] = None  # key/value heads (default: num_heads)
    head_dim: int = 16  # size of a head
    qk_norm: bool = False  # RMSNorm of queries and keys (Dehghani et al. 2023, section 2.1)
    qk_norm_over: Literal["head", "heads"] = "head"  # what one such norm is over: each head, or all heads together (OLMo 2)
    bias: bool = False  # biases of all four projections
    out_bias: Optional[bool] = None  # a bias of the last one (default: as bias); Qwen2 has biases on the other three alone
    qk_bias_init: float = 0.0  # initial query and key biases; above 0, fresh heads with rotary positions look at near keys
    scale: Optional[float] = None  # factor of query-key products (default: head_dim^-1/2); T5 has 1
    window: Optional[int] = None  # number of keys that a query sees at most, its own included
    documents: Literal["isolated", "joined"] = "isolated"  # whether packed documents see each other

    @property
    def kv_heads(self) -> int:
        """Number of key/value heads."""
        return self.num_heads if self.num_kv_heads is None else self.num_kv_heads

    def linears(self, width: int, out_gain: float = 1.0) -> dict[str, LinearSpec]:
        stream, heads = {"embed": width}, {"heads": self.num_heads, "head_dim": self.head_dim}
        kv_heads = {"kv_heads": self.kv_heads, "head_dim": self.head_dim}
        # Whatever the scale, first logits vary as they do under head_dim^-1/2.
        gain = 1.0 if self.scale is None else self.head_dim**-0.5 / self.scale
        return {
            "query": LinearSpec(stream, heads, self.bias, self.qk_bias_init, gain),
            "key": LinearSpec(stream, kv_heads, self.bias, self.qk_bias_init, reads="keys"),
            "value": LinearSpec(stream, kv_heads, self.bias, reads="keys"),
            "out": LinearSpec(heads, stream, self.bias if self.out_bias is None else self.out_bias, gain=out_gain),
        }

    def scales(self) -> int:
        return sum(self.norm_sizes().values())

    def norm_sizes(self) -> dict[str, int]:
        """Returns the number of scales of each of its own norms: those of queries and of keys."""
        heads = {"query": self.num_heads, "key": self.kv_heads} if self.qk_norm_over == "heads" else {"query": 1, "key": 1}
        return {name: count * self.head_dim for name, count in heads.items()} if self.qk_norm else {}

    @property
    def products_per_pair(self) -> int:
        return 2 * self.num_heads * self.head_dim  # query x key, and weight x value

    def visible_pairs(self, length: int, *, causal: bool, prefix: float) -> float:
        """Returns the pairs that the mask shows. A `prefix` that is the mean of many lengths gives a lower bound."""
        before = _pairs_before(length, self.window)
        if not causal:
            return 2 * before - length
        return before + (_pairs_in_prefix(prefix, self.window) if prefix else 0)

    def kept(self, width: int, queries: int, keys: int, *, rotated: bool) -> tuple[int, int]:
        query, copies = self.num_heads * self.head_dim, 3 if rotated else 2 if self.qk_norm else 1
        everything = queries * (3 * width + (1 + copies) * query) + keys * copies * self.key_numbers
        return everything, queries * (2 * query + width) + keys * self.key_numbers

    def scores(self, queries: int, keys: int) -> int:
        return self.num_heads * queries * keys

    @property
    def key_numbers(self) -> int:
        return 2 * self.kv_heads * self.head_dim

    def tensor_sizes(self) -> dict[str, int]:
        return {"num_heads": self.num_heads, "num_kv_heads": self.kv_heads}

    def split(self, ways: int) -> "AttentionConfig":
        heads, kv_heads = (math.ceil(count / ways) for count in (self.num_heads, self.kv_heads))
        return dataclasses.replace(self, num_heads=heads, num_kv_heads=kv_heads)

    def refusals(self, path: str) -> Refusals:
        uneven = self.kv_heads > 0 and self.num_heads % self.kv_heads != 0
        nothing = self.qk_norm_over == "heads" and not self.qk_norm
        return [
            *sizes_of(path, {"num_heads": self.num_heads, "num_kv_heads": self.kv_heads, "head_dim": self.head_dim}),
            (uneven, f"{path}.num_heads={self.num_heads} must be a multiple of num_kv_heads={self.kv_heads}: change one of them"),
            (nothing, f"{path}.qk_norm_over=heads and no {path}.qk_norm: there is no such norm; set --config.{path}.qk_norm=true"),
            (self.window is not None and self.window < 1, f"{path}.window={self.window} hides a query's own key: give 1 or more"),
            (self.scale is not None and self.scale <= 0, f"{path}.scale={self.scale} must be more than 0: set --config.{path}.scale=none"),
        ]


def _pairs_before(length: int, window: Optional[int]) -> float:
    """Returns the pairs of each query with itself and the keys before it, within the window."""
    width = min(window or length, length)
    return width * (width + 1) / 2 + (length - width) * width


def _pairs_in_prefix(prefix: float, window: Optional[int]) -> float:
    """Returns the pairs of each query in a prefix with the keys of the prefix after it, within the window."""
    width = min(window or prefix, prefix)
    return max(width - 1, 0) * (prefix - width / 2)
