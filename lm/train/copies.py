"""Compares the copies that devices hold of the arrays of a run's state, bit by bit, by checksums that every device computes of its part."""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from lm.train import checksum

WORDS = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32, 8: jnp.uint32}


class Sums(NamedTuple):
    """The checksums of all arrays on all devices: `of[leaf, device]` has two numbers; a device's place is that in its mesh."""

    leaves: tuple[Any, ...]  # abstract arrays with shardings
    of: np.ndarray


class Difference(NamedTuple):
    """An array whose copies differ: its number, devices that hold one value, and devices that hold others."""

    leaf: int
    most: tuple[jax.Device, ...]
    others: tuple[jax.Device, ...]


def sums(state: Any) -> Sums:
    """Returns the checksums of a state, the same on every process. All processes have to call it."""
    leaves = jax.tree.leaves(state)
    abstract = tuple(jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding) for leaf in leaves)
    is_here = leaves[0].sharding.mesh.devices.flat[0].platform == "cpu" and all(leaf.is_fully_addressable for leaf in leaves)
    return Sums(abstract, np.stack([_by_host(leaf) for leaf in leaves]) if is_here else by_devices(leaves))


def _by_host(leaf: jax.Array) -> np.ndarray:
    """Returns the sums [devices, 2] of an array on CPU devices, whose memory is the host's: nothing has to be compiled."""
    parts = {part.device: part for part in leaf.addressable_shards}
    devices: Any = leaf.sharding.mesh.devices  # type: ignore[attr-defined]
    starts = {device: tuple(one.start or 0 for one in part.index) for device, part in parts.items()}
    return np.array([checksum.of_part(np.asarray(parts[device].data), leaf.shape, starts[device]) for device in devices.flat])


def by_devices(leaves: list[Any]) -> np.ndarray:
    """Returns the sums [leaves, devices, 2] of arrays, each computed by the device that holds the part."""
    found: list[Any] = [None] * len(leaves)
    own = [i for i, leaf in enumerate(leaves) if _is_on_device(leaf.sharding)]
    for group in [own, *([i] for i in range(len(leaves)) if i not in own)]:  # those of the host's memory one at a time
        if group:
            arrays = [leaves[i] if i in own else jax.device_put(leaves[i], _on_device(leaves[i].sharding)) for i in group]
            table = np.asarray(_compiled(tuple((x.shape, x.dtype, x.sharding) for x in arrays))(arrays))
            for at, i in enumerate(group):
                found[i] = table[at]
    return np.stack(found)


def difference(found: Sums) -> list[Difference]:
    """Returns the arrays whose copies differ."""
    differing = []
    for number, (leaf, table) in enumerate(zip(found.leaves, found.of, strict=True)):
        for devices in _holders(leaf.sharding, leaf.shape):
            values = [tuple(map(int, table[place])) for place, _ in devices]
            usual = max(values, key=values.count)
            if len(set(values)) > 1:
                parts = [
                    tuple(device for (_, device), value in zip(devices, values, strict=True) if (value == usual) == is_usual)
                    for is_usual in (True, False)
                ]
                differing.append(Difference(number, *parts))
    return differing


def changed(found: Sums, other: Sums) -> list[int]:
    """Returns the numbers of arrays that differ between two states."""
    return [number for number, (a, b) in enumerate(zip(found.of, other.of, strict=True)) if not np.array_equal(a, b)]


def share(state: Any) -> float:
    """Returns the share of a state's bytes of which several devices hold a copy."""
    leaves = jax.tree.leaves(state)
    sizes = [math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in leaves]
    return sum(size for size, leaf in zip(sizes, leaves, strict=True) if _copies(leaf.sharding) > 1) / max(sum(sizes), 1)


def _copies(sharding: NamedSharding) -> int:
    split = [axis for entry in sharding.spec for axis in _axes(entry)]
    return math.prod(size for axis, size in sharding.mesh.shape.items() if axis not in split)


def _holders(sharding: NamedSharding, shape: tuple[int, ...]) -> list[list[tuple[int, jax.Device]]]:
    """Returns the devices, with their places in the mesh, that hold the same part of an array, for every part."""
    parts: dict[str, list[tuple[int, jax.Device]]] = {}
    index = sharding.devices_indices_map(shape)
    for place, device in enumerate(sharding.mesh.devices.flat):
        parts.setdefault(str(index[device]), []).append((place, device))
    return list(parts.values())


def _axes(entry: Any) -> tuple[str, ...]:
    return () if entry is None else entry if isinstance(entry, tuple) else (entry,)


def _is_on_device(sharding: NamedSharding) -> bool:
    return sharding.memory_kind in (None, sharding.mesh.devices.flat[0].default_memory().kind)


def _on_device(sharding: NamedSharding) -> NamedSharding:
    return NamedSharding(sharding.mesh, sharding.spec)


@functools.lru_cache(maxsize=64)
def _compiled(kinds: tuple[tuple[tuple[int, ...], Any, NamedSharding], ...]) -> Any:
    """Compiles the function that returns the sums [leaves, devices, 2] of arrays of these shapes, dtypes and shardings."""
    mesh: Any = kinds[0][2].mesh

    def local(parts: list[jax.Array]) -> jax.Array:
        rows = [_local(part, shape, sharding.spec) for part, (shape, _, sharding) in zip(parts, kinds, strict=True)]
        return jnp.stack(rows)[:, None]

    specs = [sharding.spec for *_, sharding in kinds]
    out = PartitionSpec(None, mesh.axis_names, None)
    mapped = jax.shard_map(local, mesh=mesh, in_specs=(specs,), out_specs=out, check_vma=False)
    with jax.set_mesh(mesh):
        return jax.jit(mapped, out_shardings=NamedSharding(mesh, PartitionSpec()))


def _local(part: jax.Array, shape: tuple[int, ...], spec: PartitionSpec) -> jax.Array:
    """Returns both sums of a device's part of an array, as lm.train.checksum defines them."""
    per = max(part.dtype.itemsize // 4, 1)
    words = part.astype(jnp.uint8) if part.dtype == jnp.bool_ else jax.lax.bitcast_convert_type(part, WORDS[part.dtype.itemsize])
    index = jnp.zeros(words.shape, jnp.uint32)
    entries = (*spec, *(None,) * len(shape))[: len(shape)]
    for dim, entry in enumerate(entries):
        begin = jax.lax.axis_index(_axes(entry)) * part.shape[dim] if entry else 0
        stride = per * math.prod(shape[dim + 1 :]) % 2**32
        index += (jax.lax.broadcasted_iota(jnp.uint32, words.shape, dim) + jnp.uint32(begin)) * np.uint32(stride)
    if per > 1:
        index += jax.lax.broadcasted_iota(jnp.uint32, words.shape, len(shape))
    terms = checksum.mixed(words.astype(jnp.uint32), index)
    return jnp.stack([jnp.sum(each, dtype=jnp.uint32) for each in terms])
