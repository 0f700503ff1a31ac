"""Collectives in optimized HLO: which mesh axes they go over and how many bytes (imports no jax).

Ids of devices in the text are indices in the mesh's own order, `mesh.devices.flat`, so that the sizes of the axes say where each is.
"""

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Optional

import numpy as np

from lm.preflight.hlo_text import Computation, Instruction

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "ragged-all-to-all", "collective-permute", "collective-broadcast")


@dataclasses.dataclass(frozen=True, order=True)
class Operation:
    """One execution of a collective. `chain` tells apart pieces that TPUs fuse with several computations, and that count once."""

    kind: str
    axes: tuple[str, ...]
    payload: int
    wire: int
    chain: Optional[int] = None


def operation(instruction: Instruction, computation: Computation, sizes: Mapping[str, int], *, fused: bool) -> Optional[Operation]:
    """Returns the collective that an instruction is or starts; None if it is none, or has no one to talk to.

    `payload` is the larger of what a device puts in and gets out: the reduced array, the gathered one, the one to be scattered. `wire` is
    what it sends in a ring of n devices: (n - 1) / n of the payload, for an all-reduce twice that, for a permutation all of it.
    """
    kind = instruction.opcode.removesuffix("-start")
    if kind not in KINDS:
        return None
    given = sum(array.bytes for array in computation.arrays(instruction))
    if kind == "collective-permute":
        pairs = np.array([int(n) for n in re.findall(r"\d+", _value(instruction, "source_target_pairs"))]).reshape(-1, 2)
        axes = _differing(pairs, sizes)
        return Operation(kind, axes, given, given) if axes else None
    groups = _groups(instruction, math.prod(sizes.values()))
    axes, n = _differing(groups, sizes), groups.shape[1]
    if not axes:
        return None
    if kind == "all-reduce" and fused and _only_sliced(instruction, computation):
        kind = "reduce-scatter"  # the form that TPUs run it in
    payload = given * n if kind == "all-gather" else given
    wire = payload * (n - 1) // n * (2 if kind == "all-reduce" else 1)
    chain = instruction.number("channel_id") if "chain_id=" in instruction.attributes else None
    return Operation(kind, axes, payload, wire, chain)


def _only_sliced(instruction: Instruction, computation: Computation) -> bool:
    """Returns whether nothing but a slice is kept of each array."""
    waiting, slices = list(computation.users[instruction.name]), 0
    while waiting:
        user = waiting.pop()
        if user.opcode in ("get-tuple-element", "bitcast", "reshape", "copy", "transpose"):
            waiting += computation.users[user.name]
        elif user.opcode in ("dynamic-slice", "fusion"):
            slices += 1
        else:
            return False
    return slices > 0


def _differing(groups: np.ndarray, sizes: Mapping[str, int]) -> tuple[str, ...]:
    """Returns the axes along which members of one group differ."""
    coordinates = np.unravel_index(groups, tuple(sizes.values()))
    return tuple(axis for axis, at in zip(sizes, coordinates, strict=True) if (at != at[:, :1]).any())


def _groups(instruction: Instruction, devices: int) -> np.ndarray:
    """Returns the ids of devices, [groups, members]."""
    text = _value(instruction, "replica_groups")
    if text.startswith("mesh"):
        return _mesh_groups(text)
    if text.startswith("["):  # [2,4]<=[4,2]T(1,0)
        shape, source = text.split("<=")
        return _iota(source).reshape([int(n) for n in re.findall(r"\d+", shape)])
    rows = [[int(n) for n in row.split(",")] for row in re.findall(r"\{([\d,]+)\}", text[1:])]
    return np.array(rows) if rows else np.arange(devices)[None]


def _mesh_groups(text: str) -> np.ndarray:
    """Parses mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'a','b':(1)2}: a mesh of XLA's own, and a group's axes, or parts of them."""
    mesh, axes = text[: text.index("]")], text[text.rindex("{") :]
    sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", mesh)}
    order = re.search(r"device_ids=\(([^{]*)\)", text)
    ids = np.arange(math.prod(sizes.values())) if order is None else _iota(order[1])
    chosen = {name: (int(before or 1), int(size or sizes[name])) for name, before, size in re.findall(r"'(\w+)'(?::\((\d+)\)(\d+))?", axes)}
    shape: list[int] = []
    inside: list[int] = []
    for name, size in sizes.items():
        before, part = chosen.get(name, (1, 1))
        inside.append(len(shape) + 1)
        shape += [before, part, size // (before * part)]
    outside = [dim for dim in range(len(shape)) if dim not in inside]
    return ids.reshape(shape).transpose(outside + inside).reshape(-1, math.prod(shape[dim] for dim in inside))


def _iota(text: str) -> np.ndarray:
    """Parses [4,2]T(1,0), the numbers from 0 in that shape, transposed; or a plain list."""
    dims = re.search(r"\[([\d,]+)\](?:T\(([\d,]+)\))?", text)
    if dims is None:
        return np.array([int(n) for n in re.findall(r"\d+", text)])
    shape = [int(n) for n in dims[1].split(",")]
    ids = np.arange(math.prod(shape)).reshape(shape)
    return ids.transpose([int(n) for n in dims[2].split(",")]).ravel() if dims[2] else ids.ravel()


def _value(instruction: Instruction, name: str) -> str:
    """Returns the text of an attribute up to the comma that ends it."""
    start = instruction.attributes.find(f"{name}=")
    if start < 0:
        return "{}"
    text, depth = instruction.attributes[start + len(name) + 1 :], 0
    for at, letter in enumerate(text):
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth == 0 and not text[at:].startswith(", device_ids"):
            return text[:at]
    return text
