"""Kernels that the compiler cannot partition, run by each device on its own rows and heads."""

from collections.abc import Callable
from typing import Optional

import jax
from jax.sharding import AxisType, PartitionSpec

from lm.sharding import Rules


def on_each_device(local: Callable[..., jax.Array], arguments: list[jax.Array], rules: Rules) -> jax.Array:
    """Returns local(q_BTNH, k_BSKH, v_BSKH, *segments) computed part by part: rows and heads stay split as they are."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return local(*arguments)
    free = {name for name, kind in zip(mesh.axis_names, mesh.axis_types, strict=True) if kind != AxisType.Manual}

    def spec(*names: Optional[str]) -> PartitionSpec:
        entries = ((entry,) if isinstance(entry, str) else tuple(entry or ()) for entry in rules.spec(names))
        return PartitionSpec(*(tuple(axis for axis in entry if axis in free) or None for entry in entries))

    q, kv, ids = spec("act_batch", None, "act_heads"), spec("act_batch", None, "act_kv_heads"), spec("act_batch")
    specs = (q, kv, kv, ids, ids)[: len(arguments)]
    return jax.shard_map(local, in_specs=specs, out_specs=q, axis_names=free, check_vma=False)(*arguments)
