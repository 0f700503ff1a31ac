"""The description of which keys a query may see. Kernels turn it into an array, or into a mask of their own."""

import dataclasses
from typing import Any, Literal, Optional

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from lm.types import AnyArray

HIDDEN = -1e30  # added to a hidden logit: the float32 softmax of it is exactly 0, and so is its gradient


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Mask:
    """A query sees a key when all of these hold; positions and segments decide, never array indices.

        causal   q_position >= k_position          window 2:  q\\k 0 1 2 3     segments 1 1 2 2:  q\\k 0 1 0 1
                 or the key is in the prefix              0 x . . .                           0 x . . .
        window   |q_position - k_position| < window       1 x x . .                           1 x x . .
        segment  q_segment  == k_segment                  2 . x x .                           0 . . x .
                                                          3 . . x x                           1 . . x x

    `full` masks lack the first condition. `window` counts the query's own position. Segments of None mean that all belong together.
    Arrays may have a leading axis of 1.

    The original index is a token's index in its row before any permutation, the same for all rows. Inside a segment two tokens' indices
    differ as their positions do, so that whole blocks of keys can be passed over at once. None where rows differ, as with cached keys.
    The arrays are in the order of the original index unless `permuted`.
    """

    q_position_BT: Int[AnyArray, "B T"]
    k_position_BS: Int[AnyArray, "B S"]
    q_segment_BT: Optional[Int[AnyArray, "B T"]] = None
    k_segment_BS: Optional[Int[AnyArray, "B S"]] = None
    k_prefix_BS: Optional[Int[AnyArray, "B S"]] = None  # 1 for keys that every query of their segment sees
    q_original_index_BT: Optional[Int[AnyArray, "1 T"]] = None
    k_original_index_BS: Optional[Int[AnyArray, "1 S"]] = None
    kind: Literal["causal", "full"] = dataclasses.field(default="causal", metadata={"static": True})
    window: Optional[int] = dataclasses.field(default=None, metadata={"static": True})
    permuted: bool = dataclasses.field(default=False, metadata={"static": True})

    @property
    def by_position(self) -> bool:
        """True where positions matter, and not segments alone."""
        return self.kind == "causal" or self.window is not None

    def distance_indices(self) -> tuple[AnyArray, AnyArray]:
        """Returns the indices whose differences are distances: the original index, the same for all rows, or else positions."""
        if self.q_original_index_BT is None or self.k_original_index_BS is None:
            return self.q_position_BT, self.k_position_BS
        return self.q_original_index_BT, self.k_original_index_BS

    def visible(self) -> Optional[Bool[Array, "B T S"]]:
        """Returns True where a query sees a key; None when it sees all of them."""
        terms: list[Any] = []
        distance = self.q_position_BT[:, :, None] - self.k_position_BS[:, None, :]
        if self.kind == "causal":
            causal = distance >= 0
            terms.append(causal if self.k_prefix_BS is None else causal | (self.k_prefix_BS[:, None, :] > 0))
        if self.window is not None:
            terms.append((distance if self.kind == "causal" and self.k_prefix_BS is None else jnp.abs(distance)) < self.window)
        if self.q_segment_BT is not None and self.k_segment_BS is not None:
            terms.append(self.q_segment_BT[:, :, None] == self.k_segment_BS[:, None, :])
        if not terms:
            return None
        visible = terms[0]
        for term in terms[1:]:
            visible = visible & term
        return visible

    def bias(self) -> Optional[Float[Array, "B T S"]]:
        """Returns the number added to each logit: 0 where visible, HIDDEN elsewhere; None when nothing is hidden."""
        visible = self.visible()
        return None if visible is None else jnp.where(visible, 0.0, HIDDEN).astype(jnp.float32)
