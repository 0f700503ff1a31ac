"""Maps the logical axes of weights and activations to the mesh axes that split them.

Weights and activations have separate names (`embed` and `act_embed`). Fully sharded data parallelism splits a weight's `embed` over the
devices that also split the batch; one name for both would split two dimensions of an activation over one mesh axis.
"""

import dataclasses
import functools
import math
from typing import Any, Optional, Union

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from lm.errors import UserError
from lm.mesh import AXES, MeshConfig

Names = tuple[Optional[str], ...]  # the logical axes of one array; None marks a dimension that is never split
MeshAxes = Union[None, str, tuple[str, ...]]


@dataclasses.dataclass(frozen=True)
class Rules:
    """The mesh axes that split each logical axis. Each logical axis is a field, so that a wrong name is an error."""

    # weights
    repeats: MeshAxes = None  # the stacked weights of a pipeline are [repeats, stages, layers, ...]
    stages: MeshAxes = "stage"
    layers: MeshAxes = None
    vocab: MeshAxes = "tensor"
    positions: MeshAxes = None
    embed: MeshAxes = "fsdp"
    heads: MeshAxes = "tensor"
    kv_heads: MeshAxes = "tensor"
    head_dim: MeshAxes = None
    ffn: MeshAxes = "tensor"
    norm: MeshAxes = None
    features: MeshAxes = None  # output width of a dense layer between the last state and a head
    labels: MeshAxes = None
    token_types: MeshAxes = None
    buckets: MeshAxes = None  # buckets of relative distance
    # activations
    act_batch: MeshAxes = ("data", "fsdp", "stage")
    act_length: MeshAxes = "context"
    act_stream: MeshAxes = "context"  # sequence axis of the residual stream, between the regions that tensor parallelism splits
    act_embed: MeshAxes = None
    act_heads: MeshAxes = "tensor"
    act_kv_heads: MeshAxes = "tensor"
    act_ffn: MeshAxes = "tensor"
    act_vocab: MeshAxes = "tensor"

    def spec(self, names: Names) -> PartitionSpec:
        """Returns the partition of an array with these logical axes.

        Raises:
          UserError: one mesh axis would split two of its dimensions.
        """
        entries: list[MeshAxes] = [None if name is None else getattr(self, name) for name in names]
        used = [axis for entry in entries for axis in _as_tuple(entry)]
        twice = sorted({axis for axis in used if used.count(axis) > 1})
        if twice:
            raise UserError(f"the sharding rules split two of the axes {names} over the mesh axis {twice[0]!r}: change one of the rules")
        return PartitionSpec(*entries)

    def gathered(self) -> "Rules":
        """Returns the rules of a weight where a layer reads it: gathered over `fsdp`, still split over `tensor`."""
        return dataclasses.replace(self, embed=tuple(axis for axis in _as_tuple(self.embed) if axis != "fsdp") or None)

    def optimizer(self) -> "Rules":
        """Returns the rules of optimizer state that is split over `data` too (ZeRO-1: Rajbhandari et al. 2020, section 5.1).

        Leaves without an `embed` axis (biases of heads, scales of norms) stay whole; together they are less than 1% of a model.
        """
        return dataclasses.replace(self, embed=(*_as_tuple(self.embed), "data"))

    def inside(self, *manual: str) -> "Rules":
        """Returns the rules inside a `jax.shard_map` that is manual over these mesh axes, which have already been split."""
        entries = {field.name: _as_tuple(getattr(self, field.name)) for field in dataclasses.fields(self)}
        return Rules(**{name: tuple(axis for axis in axes if axis not in manual) or None for name, axes in entries.items()})

    def batch_ways(self, mesh: Union[Mesh, AbstractMesh]) -> int:
        """Returns the number of parts that the rows of a batch are split into."""
        return math.prod(mesh.shape[axis] for axis in _as_tuple(self.act_batch))


RULES = Rules()
# Sequence parallelism (Korthikanti et al. 2022, section 4.2.2): norms and residual sums are split over `tensor` too.
SEQUENCE_RULES = Rules(act_stream=("context", "tensor"))
STACK_AXES = ("repeats", "stages", "layers")  # leading axes of the weights of a Stack, over which it runs


def make_mesh(config: MeshConfig, devices: Optional[list] = None) -> Mesh:
    """Returns a mesh with all six named axes.

    Args:
      config: the size of each axis.
      devices: the devices (default: all).

    Raises:
      UserError: the sizes do not multiply to the number of devices, or one of them is not allowed.
    """
    devices = jax.devices() if devices is None else list(devices)
    sizes = {axis: getattr(config, axis) for axis in AXES}
    wrong = [axis for axis, size in sizes.items() if size < 1 and (axis, size) != ("data", -1)]
    if wrong:
        raise UserError(f"mesh.{wrong[0]}={sizes[wrong[0]]} must be 1 or more (only mesh.data may be -1: the remaining devices)")
    if sizes["expert"] > 1:
        raise UserError(f"mesh.expert={sizes['expert']} must be 1, as no model has experts yet: set --config.mesh.expert=1")
    others = math.prod(size for axis, size in sizes.items() if axis != "data")
    if sizes["data"] == -1:
        sizes["data"] = max(len(devices) // others, 1)
    if math.prod(sizes.values()) != len(devices):
        asked = " x ".join(f"{axis}={size}" for axis, size in sizes.items() if size > 1) or "1"
        raise UserError(f"mesh {asked} needs {math.prod(sizes.values())} devices and there are {len(devices)}: change --config.mesh.*")
    return Mesh(placed(tuple(sizes.values()), devices), AXES, axis_types=(AxisType.Auto,) * len(AXES))


def placed(sizes: tuple[int, ...], devices: list) -> np.ndarray:
    """Returns the devices in the shape of a mesh, with neighbours along its last axes.

    `jax.make_mesh` refuses two things that runs need: axes that are not a product of the sides of a TPU's torus, and GPUs of several nodes.

    Raises:
      UserError: the devices are TPUs of several slices.
    """
    slices = {getattr(device, "slice_index", 0) for device in devices}
    if devices[0].platform == "tpu" and len(slices) > 1:
        raise UserError(f"the devices belong to {len(slices)} TPU slices and a mesh must lie on one: start a run on each slice")
    return mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)


def shardings(axes: Any, mesh: Mesh, rules: Rules = RULES, abstract: Any = None) -> Any:
    """Returns the NamedShardings of a tree of arrays.

    Args:
      axes: the logical axes of each array: a nested dict whose leaves are tuples of names.
      mesh: the mesh.
      rules: the mesh axes that split each logical axis.
      abstract: the same tree with shapes as leaves, if every split shall be checked to divide its dimension.

    Raises:
      UserError: a split does not divide a dimension of the array that the message names.
    """

    def is_names(leaf: Any) -> bool:
        return isinstance(leaf, tuple)

    result = jax.tree.map(lambda names: NamedSharding(mesh, rules.spec(names)), axes, is_leaf=is_names)
    if abstract is not None:
        for (path, names), leaf in zip(jax.tree.leaves_with_path(axes, is_leaf=is_names), jax.tree.leaves(abstract), strict=True):
            _check_divides(leaf.shape, names, mesh, rules, jax.tree_util.keystr(path, simple=True, separator="/"))
    return result


def constrain(x: jax.Array, *names: Optional[str], rules: Rules = RULES) -> jax.Array:
    """Constrains how `x` is split over the current mesh (`jax.set_mesh`), given one logical axis per dimension.

    Without a mesh, or on one device, it returns `x`.

    Raises:
      UserError: a split does not divide its dimension.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return x
    _check_divides(x.shape, names, mesh, rules, "an activation or weight")
    return jax.lax.with_sharding_constraint(x, rules.spec(names))


def resplit(x: jax.Array, before: Names, after: Names, *, rules: Rules = RULES, after_rules: Optional[Rules] = None) -> jax.Array:
    """Changes the split of `x` from that of `before` to that of `after`, and the split of its gradient back.

    `constrain` alone would hold the gradient in the split of `after` too, so that a sum over devices would be gathered only to be cut.
    """
    mesh = jax.sharding.get_abstract_mesh()
    return x if mesh.empty or mesh.size == 1 else _resplit(x, (before, rules), (after, after_rules or rules))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _resplit(x: jax.Array, before: tuple[Names, Rules], after: tuple[Names, Rules]) -> jax.Array:
    return constrain(x, *after[0], rules=after[1])


def _resplit_forward(x: jax.Array, before: tuple[Names, Rules], after: tuple[Names, Rules]) -> tuple[jax.Array, None]:
    return constrain(x, *after[0], rules=after[1]), None


def _resplit_backward(before: tuple[Names, Rules], after: tuple[Names, Rules], _: None, gradient: jax.Array) -> tuple[jax.Array]:
    return (constrain(gradient, *before[0], rules=before[1]),)


_resplit.defvjp(_resplit_forward, _resplit_backward)


def is_split(name: str, rules: Rules = RULES) -> bool:
    """Returns whether the current mesh (`jax.set_mesh`) splits this logical axis."""
    mesh = jax.sharding.get_abstract_mesh()
    return not mesh.empty and math.prod(mesh.shape[axis] for axis in _as_tuple(getattr(rules, name))) > 1


def _check_divides(shape: tuple[int, ...], names: Names, mesh: Any, rules: Rules, what: str) -> None:
    if len(shape) != len(names):
        raise ValueError(f"{what}: shape {shape} has {len(shape)} dimensions and {names} names {len(names)}")
    for size, name, entry in zip(shape, names, rules.spec(names), strict=True):
        ways = math.prod(mesh.shape[axis] for axis in _as_tuple(entry))
        if size % ways:
            raise UserError(
                f"{what}: axis {name!r} of size {size} cannot be split {ways} ways over {entry!r}: change the mesh or the model"
            )


def _as_tuple(entry: MeshAxes) -> tuple[str, ...]:
    return () if entry is None else (entry,) if isinstance(entry, str) else tuple(entry)
