"""Copies of a run's arrays in the host's memory, which later steps do not change, and their way back."""

from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, SingleDeviceSharding

from lm.train.feed import put
from lm.train.placement import HOST


def held(leaf: jax.Array) -> Any:
    """Returns a copy in the host's memory. Of an array that is split over processes, it is an array of JAX with the same parts."""
    if leaf.is_fully_addressable:
        return np.array(leaf)
    kinds = [memory.kind for memory in leaf.addressable_shards[0].device.addressable_memories()]
    return _assembled(leaf, HOST if HOST in kinds else None)


def placed(copy: Any, sharding: NamedSharding) -> jax.Array:
    """Returns the array of a copy in its shards."""
    return _assembled(copy, sharding.memory_kind) if isinstance(copy, jax.Array) else put(np.array(copy), sharding)


def _assembled(array: jax.Array, kind: Any) -> jax.Array:
    """Returns a copy with the same parts in the devices' memories of this kind."""
    own: Any = array.sharding
    parts = [jax.device_put(np.array(part.data), SingleDeviceSharding(part.device, memory_kind=kind)) for part in array.addressable_shards]
    return jax.make_array_from_single_device_arrays(array.shape, NamedSharding(own.mesh, own.spec, memory_kind=kind), parts)
