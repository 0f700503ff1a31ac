"""Keys and values of past tokens, for decoding one token at a time."""

import dataclasses
from typing import Any, Optional, Union

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

Stacked = Float[Array, "L B S K H"]
Listed = tuple[Float[Array, "B S K H"], ...]
Values = Union[Stacked, Listed]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Cache:
    """Keys and values of the tokens so far. The token at position p of a row lies in slot p % S: a ring when the window is shorter than
    the text. Every row has its own length.

    The arrays of all layers are one, carried through the scan over layers and updated in place, or a tuple with one for each layer where
    the execution is `listed`. Donate the cache to a jitted step.
    """

    k: Values
    v: Values
    position: Int[Array, "B S"]  # of the token in each slot; -1 is an empty slot
    length: Int[Array, " B"]  # tokens seen, which is also the next token's position
    memory_k: Optional[Values] = None  # of an encoder-decoder's encoder's tokens, computed once
    memory_v: Optional[Values] = None
    memory_segment: Optional[Int[Array, "B S"]] = None  # 0 is padding


def empty(
    layers: int, batch: int, slots: int, kv_heads: int, head_dim: int, dtype: Any, *, memory: Optional[int] = None, listed: bool = False
) -> Cache:
    """Returns an empty cache of `slots` tokens a row, and of `memory` tokens of an encoder where there is one."""

    def values(size: int) -> Values:
        if listed:
            return tuple(jnp.zeros((batch, size, kv_heads, head_dim), dtype) for _ in range(layers))
        return jnp.zeros((layers, batch, size, kv_heads, head_dim), dtype)

    positions_BS, length_B = jnp.full((batch, slots), -1, jnp.int32), jnp.zeros((batch,), jnp.int32)
    cache = Cache(values(slots), values(slots), positions_BS, length_B)
    if memory is None:
        return cache
    segment_BS = jnp.zeros((batch, memory), jnp.int32)
    return dataclasses.replace(cache, memory_k=values(memory), memory_v=values(memory), memory_segment=segment_BS)


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


def write(stored: Values, new_BTKH: jax.Array, layer: Any, slot_BT: Int[Array, "B T"]) -> Values:
    """Returns the stored keys or values of all layers with one layer's new ones in their slots."""
    if isinstance(stored, tuple):
        kept_BSKH = stored[layer]
        return _put(stored, kept_BSKH.at[_rows(slot_BT), slot_BT].set(new_BTKH.astype(kept_BSKH.dtype), mode="drop"), layer)
    return stored.at[layer, _rows(slot_BT), slot_BT].set(new_BTKH.astype(stored.dtype), mode="drop")


def write_all(stored: Values, new_BSKH: jax.Array, layer: Any) -> Values:
    """Returns the stored keys or values of all layers with those of one layer replaced."""
    if isinstance(stored, tuple):
        return _put(stored, new_BSKH.astype(stored[layer].dtype), layer)
    return stored.at[layer].set(new_BSKH.astype(stored.dtype))


def rows(cache: Cache, index_B: Int[Array, " B"], *, memory: bool = True) -> Cache:
    """Returns the cache whose row b is row index_B[b] of the given one. Without `memory`, an encoder's part stays where it is."""
    axis = 0 if isinstance(cache.k, tuple) else 1

    def of(values: Optional[Values]) -> Any:
        return jax.tree.map(lambda x: jnp.take(x, index_B, axis=axis), values)

    own = dataclasses.replace(cache, k=of(cache.k), v=of(cache.v), position=cache.position[index_B], length=cache.length[index_B])
    if cache.memory_segment is None or not memory:
        return own
    segment_BS = cache.memory_segment[index_B]
    return dataclasses.replace(own, memory_k=of(cache.memory_k), memory_v=of(cache.memory_v), memory_segment=segment_BS)


def cut(cache: Cache, length_B: Int[Array, " B"]) -> Cache:
    """Returns the cache without the tokens of each row from a position on. It must not have wrapped."""
    position_BS = jnp.where(cache.position >= length_B[:, None], -1, cache.position)
    return dataclasses.replace(cache, position=position_BS, length=length_B)


def _put(stored: Listed, new_BSKH: jax.Array, layer: int) -> Listed:
    return (*stored[:layer], new_BSKH, *stored[layer + 1 :])


def _rows(slot_BT: jax.Array) -> jax.Array:
    return jnp.arange(slot_BT.shape[0])[:, None]
