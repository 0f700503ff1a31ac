"""Keys and values of past tokens, for decoding one token at a time."""

import dataclasses
from typing import Any, Optional

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Cache:
    """Keys and values of the tokens so far. The token at position p of a row lies in slot p % S: a ring when the window is shorter than
    the text. Every row has its own length.

    The arrays of all layers are one, carried through the scan over layers and updated in place; donate the cache to a jitted step.
    """

    k: Float[Array, "L B S K H"]
    v: Float[Array, "L B S K H"]
    position: Int[Array, "B S"]  # of the token in each slot; -1 is an empty slot
    length: Int[Array, " B"]  # tokens seen, which is also the next token's position
    memory_k: Optional[Float[Array, "L B S K H"]] = None  # of an encoder-decoder's encoder's tokens, computed once
    memory_v: Optional[Float[Array, "L B S K H"]] = None
    memory_segment: Optional[Int[Array, "B S"]] = None  # 0 is padding


def empty(layers: int, batch: int, slots: int, kv_heads: int, head_dim: int, dtype: Any, *, memory: Optional[int] = None) -> Cache:
    """Returns an empty cache of `slots` tokens a row, and of `memory` tokens of an encoder where there is one."""
    own, other = ((layers, batch, size, kv_heads, head_dim) for size in (slots, memory or 0))
    positions_BS, length_B = jnp.full((batch, slots), -1, jnp.int32), jnp.zeros((batch,), jnp.int32)
    cache = Cache(jnp.zeros(own, dtype), jnp.zeros(own, dtype), positions_BS, length_B)
    if memory is None:
        return cache
    segment_BS = jnp.zeros((batch, memory), jnp.int32)
    return dataclasses.replace(cache, memory_k=jnp.zeros(other, dtype), memory_v=jnp.zeros(other, dtype), memory_segment=segment_BS)


def advance(cache: Cache, positions_BT: Int[Array, "B T"], real_BT: Bool[Array, "B T"]) -> tuple[Cache, Int[Array, "B T"]]:
    """Enters new tokens' positions and returns the cache and each token's slot (S, beyond the end, for one that is not kept).

    Padding is not kept, nor is a token that a later one of the same call would overwrite. Keys and values follow, layer by layer.
    """
    slots = cache.position.shape[1]
    length_B = cache.length + real_BT.sum(axis=1, dtype=jnp.int32)
    kept_BT = real_BT & (positions_BT >= length_B[:, None] - slots)
    slot_BT = jnp.where(kept_BT, positions_BT % slots, slots)
    position_BS = cache.position.at[_rows(slot_BT), slot_BT].set(positions_BT, mode="drop")
    return dataclasses.replace(cache, position=position_BS, length=length_B), slot_BT


def write(stored_LBSKH: jax.Array, new_BTKH: jax.Array, layer: jax.Array, slot_BT: Int[Array, "B T"]) -> jax.Array:
    """Returns the stored keys or values of all layers with one layer's new ones in their slots."""
    return stored_LBSKH.at[layer, _rows(slot_BT), slot_BT].set(new_BTKH.astype(stored_LBSKH.dtype), mode="drop")


def _rows(slot_BT: jax.Array) -> jax.Array:
    return jnp.arange(slot_BT.shape[0])[:, None]
