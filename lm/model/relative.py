"""T5's bias of relative positions as a table. Each kernel decides how much of the array [N, T, S] it holds at a time."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from lm.model.positions import bucket
from lm.types import AnyArray


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Relative:
    """A bias per bucket of distance and head, added to logits (Raffel et al. 2019, section 2.1); R buckets, N heads."""

    table_RN: Float[Array, "R N"]
    buckets: int = dataclasses.field(metadata={"static": True})
    furthest: int = dataclasses.field(metadata={"static": True})
    both_ways: bool = dataclasses.field(metadata={"static": True})

    def bucket_BTS(self, q_original_index_BT: Int[AnyArray, "B T"], k_original_index_BS: Int[AnyArray, "B S"]) -> Int[Array, "B T S"]:
        return bucket(
            q_original_index_BT[:, :, None] - k_original_index_BS[:, None, :], self.buckets, self.furthest, both_ways=self.both_ways
        )

    def bias_BNTS(self, q_original_index_BT: Int[AnyArray, "B T"], k_original_index_BS: Int[AnyArray, "B S"]) -> Float[Array, "B N T S"]:
        """Returns the bias of each logit; an original index, the same for all rows, gives one table for all of them."""
        rows_BTSN = self.table_RN.at[self.bucket_BTS(q_original_index_BT, k_original_index_BS)].get(mode="promise_in_bounds")
        return jnp.moveaxis(rows_BTSN, -1, 1)
