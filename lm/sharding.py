"""Where arrays live: logical axis names of weights and activations, and the mesh axes they are split over.

Weights and activations have separate names (`embed` and `act_embed`): fully sharded data parallelism splits a weight's
`embed` over the devices that also split the batch, and one name for both would collide.
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

Names = tuple[Optional[str], ...]  # logical axes of one array; None is a dimension that is never split
MeshAxes = Union[None, str, tuple[str, ...]]


@dataclasses.dataclass(frozen=True)
class Rules:
    """The mesh axes that split each logical axis. One field per logical axis, so that a wrong name is an error."""

    # weights
    repeats: MeshAxes = None  # of a pipeline's stages: its stacked weights are [repeats, stages, layers, ...]
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
    features: MeshAxes = None  # of dense layers between the last state and a head
    labels: MeshAxes = None
    token_types: MeshAxes = None
    buckets: MeshAxes = None  # of relative distance
    # activations
    act_batch: MeshAxes = ("data", "fsdp", "stage")
    act_length: MeshAxes = "context"
    act_stream: MeshAxes = "context"  # the sequence in the residual stream, between the regions that tensor parallelism splits
    act_embed: MeshAxes = None
    act_heads: MeshAxes = "tensor"
    act_kv_heads: MeshAxes = "tensor"
    act_ffn: MeshAxes = "tensor"
    act_vocab: MeshAxes = "tensor"

    def spec(self, names: Names) -> PartitionSpec:
        """The partition of an array with these logical axes; UserError if one mesh axis would split two of its dimensions."""
        entries: list[MeshAxes] = [None if name is None else getattr(self, name) for name in names]
        used = [axis for entry in entries for axis in _as_tuple(entry)]
        twice = sorted({axis for axis in used if used.count(axis) > 1})
        if twice:
            raise UserError(f"the sharding rules split two of the axes {names} over the mesh axis {twice[0]!r}: change one of the rules")
        return PartitionSpec(*entries)

    def gathered(self) -> "Rules":
        """The rules of a weight at the point where a layer reads it: tensor parallelism stays, fsdp is gathered."""
        return dataclasses.replace(self, embed=tuple(axis for axis in _as_tuple(self.embed) if axis != "fsdp") or None)

    def optimizer(self) -> "Rules":
        """The rules of optimizer state that lies split over `data` too (ZeRO-1: Rajbhandari et al. 2020, section 5.1).

        Whatever has no width (the bias of heads, the scale of a norm) stays whole: together less than a hundredth of a model.
        """
        return dataclasses.replace(self, embed=(*_as_tuple(self.embed), "data"))

    def inside(self, *manual: str) -> "Rules":
        """The rules within a `jax.shard_map` that is manual over these mesh axes, whose split has been made."""
        entries = {field.name: _as_tuple(getattr(self, field.name)) for field in dataclasses.fields(self)}
        return Rules(**{name: tuple(axis for axis in axes if axis not in manual) or None for name, axes in entries.items()})

    def batch_ways(self, mesh: Union[Mesh, AbstractMesh]) -> int:
        """Into how many parts the rows of a batch are split."""
        return math.prod(mesh.shape[axis] for axis in _as_tuple(self.act_batch))


RULES = Rules()
# Sequence parallelism (Korthikanti et al. 2022, section 4.2.2): norms and residual sums are split over `tensor` too.
SEQUENCE_RULES = Rules(act_stream=("context", "tensor"))
STACK_AXES = ("repeats", "stages", "layers")  # over which a Stack runs; no part of a weight's own shape


def make_mesh(config: MeshConfig, devices: Optional[list] = None) -> Mesh:
    """A mesh with all six named axes over `devices` (default: all). UserError if the sizes do not multiply to their number."""
    devices = jax.devices() if devices is None else list(devices)
    sizes = {axis: getattr(config, axis) for axis in AXES}
    wrong = [axis for axis, size in sizes.items() if size < 1 and (axis, size) != ("data", -1)]
    if wrong:
        raise UserError(f"mesh.{wrong[0]}={sizes[wrong[0]]} is no size: give 1 or more (only mesh.data may be -1, 'the rest')")
    if sizes["expert"] > 1:
        raise UserError(f"mesh.expert={sizes['expert']} would do the same work {sizes['expert']} times: no model has experts yet, give 1")
    others = math.prod(size for axis, size in sizes.items() if axis != "data")
    if sizes["data"] == -1:
        sizes["data"] = max(len(devices) // others, 1)
    if math.prod(sizes.values()) != len(devices):
        asked = " x ".join(f"{axis}={size}" for axis, size in sizes.items() if size > 1) or "1"
        raise UserError(f"mesh {asked} takes {math.prod(sizes.values())} devices and there are {len(devices)}: change --config.mesh.*")
    return Mesh(placed(tuple(sizes.values()), devices), AXES, axis_types=(AxisType.Auto,) * len(AXES))


def placed(sizes: tuple[int, ...], devices: list) -> np.ndarray:
    """The devices in the shape of a mesh, whose last axes get the neighbours. UserError for TPUs of several slices.

    `jax.make_mesh` refuses two things that runs need: axes that are no product of the sides of a TPU's torus, and GPUs of several nodes.
    """
    slices = {getattr(device, "slice_index", 0) for device in devices}
    if devices[0].platform == "tpu" and len(slices) > 1:
        raise UserError(f"the devices are of {len(slices)} TPU slices, and a mesh is of one: start a run on each slice")
    return mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)


def shardings(axes: Any, mesh: Mesh, rules: Rules = RULES, abstract: Any = None) -> Any:
    """NamedShardings for a tree of logical axes (a nested dict with tuples of names as leaves).

    With `abstract` (the same tree of shapes) every split is checked to divide its dimension; UserError names the array.
    """

    def is_names(leaf: Any) -> bool:
        return isinstance(leaf, tuple)

    result = jax.tree.map(lambda names: NamedSharding(mesh, rules.spec(names)), axes, is_leaf=is_names)
    if abstract is not None:
        for (path, names), leaf in zip(jax.tree.leaves_with_path(axes, is_leaf=is_names), jax.tree.leaves(abstract), strict=True):
            _check_divides(leaf.shape, names, mesh, rules, jax.tree_util.keystr(path, simple=True, separator="/"))
    return result


def constrain(x: jax.Array, *names: Optional[str], rules: Rules = RULES) -> jax.Array:
    """States how `x` is split, by one logical axis per dimension, over the mesh that `jax.set_mesh` made current.

    Without a mesh, or on one device, it is the identity. UserError if a split does not divide its dimension.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return x
    _check_divides(x.shape, names, mesh, rules, "an activation or weight")
    return jax.lax.with_sharding_constraint(x, rules.spec(names))


def resplit(x: jax.Array, before: Names, after: Names, *, rules: Rules = RULES, after_rules: Optional[Rules] = None) -> jax.Array:
    """`x`, split as `before` says, split as `after` says, and its gradient split as `before` again.

    `constrain` alone would hold the gradient in the split of `after` too: a sum over devices would be gathered only to be cut.
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
    """Whether the mesh that `jax.set_mesh` made current splits this logical axis."""
    mesh = jax.sharding.get_abstract_mesh()
    return not mesh.empty and math.prod(mesh.shape[axis] for axis in _as_tuple(getattr(rules, name))) > 1


def _check_divides(shape: tuple[int, ...], names: Names, mesh: Any, rules: Rules, what: str) -> None:
    if len(shape) != len(names):
        raise ValueError(f"{what}: shape {shape} has {len(shape)} dimensions and the axes {names} name {len(names)}")
    for size, name, entry in zip(shape, names, rules.spec(names), strict=True):
        ways = math.prod(mesh.shape[axis] for axis in _as_tuple(entry))
        if size % ways:
            raise UserError(
                f"{what}: axis {name!r} of size {size} cannot be split {ways} ways over {entry!r}: change the mesh or the model"
            )


def _as_tuple(entry: MeshAxes) -> tuple[str, ...]:
    return () if entry is None else (entry,) if isinstance(entry, str) else tuple(entry)
