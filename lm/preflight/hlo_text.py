"""Optimized HLO as XLA prints it, parsed as far as counting needs it (imports no jax)."""

import dataclasses
import math
import re
from collections.abc import Iterator
from functools import cached_property
from typing import Optional

_HEADER = re.compile(r"^(ENTRY )?%?([\w.-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.-]+) = ")
_ARRAY = re.compile(r"\b([a-z]+\d+\w*|pred|token|opaque)\[([\d,<= ]*)\](\{[^}]*\})?")
_OPCODE = re.compile(r"\s*([a-z][\w-]*)\(")
_SPACE = re.compile(r"S\((\d+)\)")
_BITS = re.compile(r"[a-z]+(\d+)")
_NAME = re.compile(r"%([\w.-]+)")


@dataclasses.dataclass(frozen=True)
class Array:
    """One array of an instruction's result. `space` 0 is the device's main memory; TPUs have others (1: VMEM, 5: the host's)."""

    dtype: str
    dims: tuple[int, ...]
    space: int = 0

    @property
    def size(self) -> int:
        return math.prod(self.dims)

    @property
    def bytes(self) -> int:
        bits = _BITS.match(self.dtype)
        return self.size * (int(bits[1]) if bits else 8 * (self.dtype == "pred")) // 8

    @property
    def memory(self) -> int:
        """Bytes in the device's main memory."""
        return self.bytes if self.space == 0 else 0


@dataclasses.dataclass(frozen=True, eq=False)
class Instruction:
    """An instruction, `name = result opcode(operands), attributes`. The arrays of a tuple stand in one row, nested ones too."""

    name: str
    opcode: str
    result: tuple[Array, ...]
    arguments: str  # what stands in the brackets: a constant's value, a parameter's number, names of operands
    attributes: str
    root: bool

    @cached_property
    def operands(self) -> tuple[str, ...]:
        return tuple(_NAME.findall(self.arguments))

    def called(self, role: str) -> Optional[str]:
        """Returns the computation that it calls as `calls`, `body`, `condition` or `to_apply`."""
        found = re.search(rf"\b{role}=%?([\w.-]+)", self.attributes)
        return found[1] if found else None

    def branches(self) -> list[str]:
        """Returns the computations of a conditional."""
        several = re.search(r"branch_computations=\{([^}]*)\}", self.attributes)
        names = several[1].split(",") if several else re.findall(r"(?:true|false)_computation=([^,]*)", self.attributes)
        return [name.strip().lstrip("%") for name in names]

    def number(self, name: str) -> Optional[int]:
        """Returns the number in `name=5` or `"name":"5"` among the attributes."""
        found = re.search(rf'\b{name}"?[=:]"?(\d+)', self.attributes)
        return int(found[1]) if found else None

    def numbers(self, name: str) -> list[int]:
        """Returns the numbers in `name={0,1}` or `"name":["0","1"]` among the attributes."""
        found = re.search(rf'\b{name}"?[=:][{{\[]([^}}\]]*)', self.attributes)
        return [int(number) for number in re.findall(r"\d+", found[1])] if found else []


@dataclasses.dataclass(frozen=True, eq=False)
class Computation:
    """A named list of instructions: the entry of a program, or the body of a loop, fusion or call."""

    name: str
    instructions: dict[str, Instruction]

    @cached_property
    def root(self) -> Instruction:
        return next(i for i in self.instructions.values() if i.root)

    @cached_property
    def parameters(self) -> dict[int, Instruction]:
        return {int(i.arguments): i for i in self.instructions.values() if i.opcode == "parameter"}

    @cached_property
    def users(self) -> dict[str, list[Instruction]]:
        found: dict[str, list[Instruction]] = {name: [] for name in self.instructions}
        for instruction in self.instructions.values():
            for operand in dict.fromkeys(instruction.operands):
                found.setdefault(operand, []).append(instruction)
        return found

    def operands(self, instruction: Instruction) -> list[Instruction]:
        return [self.instructions[name] for name in instruction.operands if name in self.instructions]

    def arrays(self, instruction: Instruction) -> list[Array]:
        """Returns the arrays of an instruction's operands."""
        return [array for operand in self.operands(instruction) for array in operand.result]


@dataclasses.dataclass(frozen=True, eq=False)
class Module:
    """A compiled program: its computations by name, and the name of the one that it enters by."""

    computations: dict[str, Computation]
    entry: str

    def trips(self, loop: Instruction, caller: Computation) -> int:
        """Returns how often a loop's body runs: as XLA says, else as its condition does; 1 where the bound is known only at run time."""
        known = re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.attributes)
        return int(known[1]) if known else _bound(self, loop, caller) or 1


def parse(text: str) -> Module:
    """Parses the computations of a module. Raises ValueError for text without an entry."""
    computations, entry, name = {}, None, None
    body: dict[str, Instruction] = {}
    for line in _lines(text):
        if name is None:
            header = _HEADER.match(line)
            if header:
                name, body = header[2], {}
                entry = name if header[1] else entry
        elif line.startswith("}"):
            computations[name], name = Computation(name, body), None
        else:
            instruction = _instruction(line)
            if instruction is not None:
                body[instruction.name] = instruction
    if entry is None:
        raise ValueError("no ENTRY computation: this is no HLO module's text")
    return Module(computations, entry)


def _lines(text: str) -> Iterator[str]:
    """Yields the lines of the text. An attribute may hold line breaks (a Pallas kernel's does); what follows them is part of its line."""
    whole = ""
    for line in text.splitlines():
        if line.startswith(('"', "}}")):
            whole += " " + line
        else:
            yield whole
            whole = line
    yield whole


def _instruction(line: str) -> Optional[Instruction]:
    start = _INSTRUCTION.match(line)
    if start is None:
        return None
    at = start.end()
    end = _closing(line, at) + 1 if line[at] == "(" else line.index(" ", at)
    opcode = _OPCODE.match(line, end)
    if opcode is None:
        return None
    close = _closing(line, opcode.end() - 1)
    result = tuple(_arrays(line[at:end]))
    return Instruction(start[2], opcode[1], result, line[opcode.end() : close], line[close + 1 :], start[1] is not None)


def _closing(line: str, at: int) -> int:
    """Returns where the bracket that opens at `at` closes."""
    depth = 0
    for found in re.compile(r"[()]").finditer(line, at):
        depth += 1 if found[0] == "(" else -1
        if depth == 0:
            return found.start()
    return len(line)


def _arrays(text: str) -> Iterator[Array]:
    for dtype, dims, layout in _ARRAY.findall(text):
        space = _SPACE.search(layout)
        yield Array(dtype, tuple(int(dim) for dim in re.findall(r"\d+", dims)), int(space[1]) if space else 0)


def _bound(module: Module, loop: Instruction, caller: Computation) -> Optional[int]:
    """Returns the trips of `for (i = start; i < end; i += step)` with three constants; the step is 1 where the body hides it."""
    condition, body = (module.computations.get(loop.called(role) or "") for role in ("condition", "body"))
    if condition is None or body is None:
        return None
    compare, sides = _comparison(module, condition)
    if compare is None or len(sides) != 2:
        return None
    first = caller.operands(loop)
    carried = caller.operands(first[0]) if first and first[0].opcode == "tuple" else []

    def value(side: Instruction) -> Optional[int]:
        side = _source(condition, side)
        if side.opcode == "get-tuple-element":
            index = side.number("index")
            return _constant(caller, carried[index]) if index is not None and index < len(carried) else None
        return _constant(condition, side)

    start, end = (value(side) for side in sides)
    index = _source(condition, sides[0]).number("index")
    direction = re.search(r"direction=(\w+)", compare.attributes)
    if start is None or end is None or index is None or direction is None or direction[1] not in ("LT", "LE"):
        return None
    return max(-(-(end + (direction[1] == "LE") - start) // _step(body, index)), 0)


def _comparison(module: Module, condition: Computation) -> tuple[Optional[Instruction], list[Instruction]]:
    """Returns the comparison that ends a loop's condition, perhaps in a fusion, and its sides as instructions of the condition."""
    root = condition.root
    if root.opcode == "compare":
        return root, condition.operands(root)
    inner = module.computations.get(root.called("calls") or "")
    if root.opcode != "fusion" or inner is None or inner.root.opcode != "compare":
        return None, []
    outer, sides = condition.operands(root), []
    for side in inner.operands(inner.root):
        sides.append(outer[int(side.arguments)] if side.opcode == "parameter" else side)
    return inner.root, sides


def _source(computation: Computation, instruction: Instruction) -> Instruction:
    """Returns the instruction behind copies and conversions."""
    while instruction.opcode in ("copy", "bitcast", "convert") and computation.operands(instruction):
        instruction = computation.operands(instruction)[0]
    return instruction


def _constant(computation: Computation, instruction: Instruction) -> Optional[int]:
    source = _source(computation, instruction)
    return int(source.arguments) if source.opcode == "constant" and re.fullmatch(r"-?\d+", source.arguments) else None


def _step(body: Computation, index: int) -> int:
    carried = body.operands(body.root)
    if index >= len(carried) or carried[index].opcode != "add":
        return 1
    steps = [step for operand in body.operands(carried[index]) if (step := _constant(body, operand))]
    return steps[0] if steps and steps[0] > 0 else 1
