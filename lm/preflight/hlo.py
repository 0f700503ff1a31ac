"""FLOPs, memory traffic and collectives of a compiled step per device, read off its optimized HLO (imports no jax).

XLA's own analysis counts the body of a loop once and knows no mesh; this one multiplies by the loops' trip counts and names mesh axes.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from lm.preflight.hlo_collectives import Operation, operation
from lm.preflight.hlo_flops import products
from lm.preflight.hlo_text import Array, Computation, Instruction, Module, parse

# Nothing is read or written by these themselves.
_FREE = frozenset(("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional", "call", "after-all",
                   "partition-id", "replica-id", "opt-barrier", "async-start", "async-update", "add-dependency"))  # fmt: skip
_SCRATCH = ("s8", "u8")  # what libraries call the memory that they work in
_PARTS = frozenset(("dynamic-slice", "slice", "gather"))  # what reads no more than it gives


@dataclasses.dataclass(frozen=True)
class Collective:
    """All collectives of one kind over one set of mesh axes, in one step, per device; payload and wire: `hlo_collectives.operation`."""

    kind: str
    axes: tuple[str, ...]
    payload: int  # bytes
    wire: int  # bytes sent
    count: int
    largest: int  # payload of the largest


@dataclasses.dataclass(frozen=True)
class Analysis:
    """One step of one device. A loop whose trip count is known only at run time counts once, as that over a dispatch's steps does.

    `flops`: of matrix products, recomputed ones too. `bytes_moved`: estimated traffic of the device's main memory: what top-level
    instructions read and write of it, slices and updates in place by the part that they touch; caches are not modelled. Of the branches of
    a conditional the one with most FLOPs counts, then with most bytes on the wire; where one holds cuDNN's attention it counts, since the
    other serves rows of more documents than that takes.
    """

    flops: float
    bytes_moved: float
    collectives: tuple[Collective, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class _Totals:
    """The FLOPs, bytes and collectives of a computation, with those of the computations that it calls."""

    flops: float = 0.0
    bytes: float = 0.0
    operations: Mapping[Operation, int] = dataclasses.field(default_factory=Counter)

    def rank(self) -> tuple[float, float, float]:
        return self.flops, sum(op.wire * count for op, count in self.operations.items()), self.bytes


def analyse(hlo_text: str, mesh: Any) -> Analysis:
    """Counts a module. `mesh.shape` gives the sizes of the axes by name, in the order of `mesh.devices`."""
    walk = _Walk(parse(hlo_text), dict(mesh.shape))
    totals = walk.computation(walk.module.entry, fused=False)
    return Analysis(totals.flops, totals.bytes, collectives(totals.operations))


def collectives(operations: Mapping[Operation, int]) -> tuple[Collective, ...]:
    """Adds collectives up by kind and axes."""
    groups: dict[tuple[str, tuple[str, ...]], list[tuple[Operation, int]]] = {}
    for op, count in sorted(operations.items(), key=lambda item: dataclasses.astuple(item[0])[:4]):
        groups.setdefault((op.kind, op.axes), []).append((op, count))

    def total(values: Iterable[int]) -> int:
        return sum(values)

    return tuple(
        Collective(
            kind,
            axes,
            payload=total(op.payload * n for op, n in found),
            wire=total(op.wire * n for op, n in found),
            count=total(n for _, n in found),
            largest=max(op.payload for op, _ in found),
        )
        for (kind, axes), found in groups.items()
    )


class _Walk:
    """Adds up a module from its entry; computations that several places call are counted once each and remembered."""

    def __init__(self, module: Module, sizes: Mapping[str, int]):
        self.module, self.sizes = module, sizes
        self.known: dict[tuple[str, bool], _Totals] = {}

    def computation(self, name: str, *, fused: bool) -> _Totals:
        if (name, fused) not in self.known:
            self.known[name, fused] = self._add_up(self.module.computations[name], fused)
        return self.known[name, fused]

    def _add_up(self, computation: Computation, fused: bool) -> _Totals:
        flops, moved, operations = 0.0, 0.0, Counter[Operation]()
        for instruction in computation.instructions.values():
            flops += products(instruction, computation)
            op = operation(instruction, computation, self.sizes, fused=fused)
            if op is not None:
                operations[op] = 1 if op.chain is not None else operations[op] + 1
            if not fused:
                moved += self._traffic(instruction, computation)
            inner, times = self._inner(instruction, computation, fused)
            flops, moved = flops + times * inner.flops, moved + times * inner.bytes
            for op, count in inner.operations.items():
                operations[op] = 1 if op.chain is not None else operations[op] + times * count
        if not fused:
            whole = Counter[Operation]()
            for op, count in operations.items():
                whole[dataclasses.replace(op, chain=None)] += count
            operations = whole
        return _Totals(flops, moved, operations)

    def _inner(self, instruction: Instruction, computation: Computation, fused: bool) -> tuple[_Totals, int]:
        """Returns the totals of what an instruction calls, and how often it does."""
        if instruction.opcode == "while":
            name, times = instruction.called("body"), self.module.trips(instruction, computation)
            return self.computation(name, fused=fused) if name else _Totals(), times
        if instruction.opcode == "conditional":
            names = instruction.branches()
            names = [name for name in names if self._has_fused_attention(name)] or names
            return max((self.computation(name, fused=fused) for name in names), key=_Totals.rank, default=_Totals()), 1
        role = {"fusion": "calls", "async-start": "calls", "call": "to_apply"}.get(instruction.opcode)
        name = (instruction.called(role) or instruction.called("calls")) if role else None
        return (self.computation(name, fused=fused or instruction.opcode == "fusion") if name in self.module.computations else _Totals()), 1

    def _has_fused_attention(self, name: str) -> bool:
        return any('"__cudnn$fmha' in instruction.attributes for instruction in self.module.computations[name].instructions.values())

    def _traffic(self, instruction: Instruction, computation: Computation) -> int:
        """Returns the bytes of main memory that a top-level instruction reads and writes."""
        opcode, result = instruction.opcode, _memory(instruction.result)
        if opcode in _FREE or opcode.endswith("-done") or '"AllocateBuffer"' in instruction.attributes:
            return 0
        if opcode == "fusion":
            inner = self.module.computations[instruction.called("calls") or ""]
            reads = sum(
                min(_memory(operand.result), self._read(inner, number)) for number, operand in enumerate(computation.operands(instruction))
            )
            return reads + min(result, self._written(inner, inner.root))
        if opcode == "copy-start":
            return instruction.result[0].memory + _memory(computation.arrays(instruction))
        if opcode.endswith("-start") and len(instruction.result) > len(computation.arrays(instruction)):
            return result  # which names the operands too
        if opcode in _PARTS:
            return 2 * result
        if opcode == "dynamic-update-slice":
            return 2 * _memory(computation.operands(instruction)[1].result)
        if opcode == "custom-call":
            result = _memory(array for array in instruction.result if array.dtype not in _SCRATCH)
        if opcode == "scatter":
            return 3 * _memory(computation.operands(instruction)[-1].result)
        return result + _memory(computation.arrays(instruction))

    def _read(self, computation: Computation, number: int) -> int:
        """Returns the bytes that a fused computation reads of a parameter: the parts only, where it takes parts."""
        parameter = computation.parameters.get(number)
        if parameter is None:
            return 0
        waiting, total, whole = [parameter], 0, sum(array.bytes for array in parameter.result)
        while waiting:
            value = waiting.pop()
            for user in computation.users[value.name]:
                if user.opcode == "bitcast":
                    waiting.append(user)
                elif user.opcode in _PARTS and user.operands[0] == value.name:
                    total += sum(array.bytes for array in user.result)
                elif user.opcode == "fusion":
                    inner = self.module.computations[user.called("calls") or ""]
                    total += sum(self._read(inner, at) for at, name in enumerate(user.operands) if name == value.name)
                elif user.opcode != "dynamic-update-slice" or user.operands[0] != value.name:
                    return whole
        return min(total, whole)

    def _written(self, computation: Computation, root: Instruction) -> int:
        """Returns the bytes that a fused computation writes: the updates only, where it updates in place."""
        operands = computation.operands(root)
        if root.opcode == "tuple":
            return sum(self._written(computation, operand) for operand in operands)
        if root.opcode == "dynamic-update-slice":
            return sum(array.bytes for array in operands[1].result)
        if root.opcode == "bitcast" and operands:
            return self._written(computation, operands[0])
        if root.opcode == "fusion":
            inner = self.module.computations[root.called("calls") or ""]
            return self._written(inner, inner.root)
        return sum(array.bytes for array in root.result)


def _memory(arrays: Iterable[Array]) -> int:
    return sum(array.memory for array in arrays)
