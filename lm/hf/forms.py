"""Maps tensors of a Hugging Face checkpoint to our parameters: reversible forms, and the rules that name both sides.

A form works on the arrays of one layer. `theirs(shapes)` is the shape of their tensor, given the shapes of our arrays. `load` converts
their tensor to our arrays and `save` converts back. Each undoes the other, except that `Offset` drops the first rows, which nothing reads.
"""

import dataclasses
import math
from collections.abc import Set
from typing import Optional, Protocol

import numpy as np

Shape = tuple[int, ...]
Arrays = list[np.ndarray]


class Form(Protocol):
    """A reversible map between a tensor of a checkpoint and our arrays of one layer."""

    def theirs(self, shapes: list[Shape]) -> Shape: ...
    def load(self, tensor: np.ndarray, shapes: list[Shape]) -> Arrays: ...
    def save(self, arrays: Arrays) -> np.ndarray: ...


@dataclasses.dataclass(frozen=True)
class Same:
    """The array itself, unchanged: embeddings, norms."""

    def theirs(self, shapes: list[Shape]) -> Shape:
        return shapes[0]

    def load(self, tensor: np.ndarray, shapes: list[Shape]) -> Arrays:
        return [tensor]

    def save(self, arrays: Arrays) -> np.ndarray:
        return arrays[0]


@dataclasses.dataclass(frozen=True)
class Flat:
    """The array flattened to one axis, after `lead` axes of size 1: biases of heads."""

    lead: int = 0

    def theirs(self, shapes: list[Shape]) -> Shape:
        return (*(1,) * self.lead, math.prod(shapes[0]))

    def load(self, tensor: np.ndarray, shapes: list[Shape]) -> Arrays:
        return [tensor.reshape(shapes[0])]

    def save(self, arrays: Arrays) -> np.ndarray:
        return arrays[0].reshape(self.theirs([arrays[0].shape]))


@dataclasses.dataclass(frozen=True)
class Dense:
    """A kernel [*ins, *outs] here, [outs, ins] there as in torch.nn.Linear, or [ins, outs] (`swapped` False) as in GPT-2's Conv1D.

    The first `ins` axes of our kernel are contracted.
    """

    ins: int = 1
    swapped: bool = True

    def theirs(self, shapes: list[Shape]) -> Shape:
        rows, columns = math.prod(shapes[0][: self.ins]), math.prod(shapes[0][self.ins :])
        return (columns, rows) if self.swapped else (rows, columns)

    def load(self, tensor: np.ndarray, shapes: list[Shape]) -> Arrays:
        return [(tensor.T if self.swapped else tensor).reshape(shapes[0])]

    def save(self, arrays: Arrays) -> np.ndarray:
        flat = arrays[0].reshape(math.prod(arrays[0].shape[: self.ins]), -1)
        return flat.T if self.swapped else flat


@dataclasses.dataclass(frozen=True)
class Fused:
    """Query, key and value, each [*ins, N, H] here, joined in one tensor there: one after the other, or `by_head` (q, k, v of head 0, ...).

    `ins` is 1 for kernels and 0 for biases. GPT-2 joins them the first way, without swapping; GPT-NeoX the second way.
    """

    ins: int = 1
    swapped: bool = True
    by_head: bool = False

    def theirs(self, shapes: list[Shape]) -> Shape:
        *ins, heads, size = shapes[0]
        fused = 3 * heads * size
        if not self.ins:
            return (fused,)
        return (fused, *ins) if self.swapped else (*ins, fused)

    def load(self, tensor: np.ndarray, shapes: list[Shape]) -> Arrays:
        *ins, heads, size = shapes[0]
        rows = tensor.T if self.swapped else tensor
        parts = rows.reshape(*ins, heads, 3, size) if self.by_head else rows.reshape(*ins, 3, heads, size)
        return list(np.moveaxis(parts, -2 if self.by_head else -3, 0))

    def save(self, arrays: Arrays) -> np.ndarray:
        parts = np.stack(arrays, axis=-2 if self.by_head else -3)
        rows = parts.reshape(*arrays[0].shape[: self.ins], -1)
        return rows.T if self.swapped else rows


@dataclasses.dataclass(frozen=True)
class Offset:
    """A table of positions whose row p + `rows` is our row p. Nothing reads its first rows; `save` sets them to 0."""

    rows: int

    def theirs(self, shapes: list[Shape]) -> Shape:
        length, width = shapes[0]
        return (length + self.rows, width)

    def load(self, tensor: np.ndarray, shapes: list[Shape]) -> Arrays:
        return [tensor[self.rows :]]

    def save(self, arrays: Arrays) -> np.ndarray:
        return np.concatenate([np.zeros((self.rows, arrays[0].shape[1]), arrays[0].dtype), arrays[0]])


@dataclasses.dataclass(frozen=True)
class LessOne:
    """The scale of a norm, stored less 1 (Gemma). Sums are rounded to float32: none is of weights that were published in bfloat16."""

    def theirs(self, shapes: list[Shape]) -> Shape:
        return shapes[0]

    def load(self, tensor: np.ndarray, shapes: list[Shape]) -> Arrays:
        return [tensor + 1]

    def save(self, arrays: Arrays) -> np.ndarray:
        return arrays[0] - 1


@dataclasses.dataclass(frozen=True)
class Rule:
    """The name of their tensor, with {} for the layer if ours are stacked over layers, and the paths of the arrays of ours that it holds.

    A rule does not apply to a model that lacks one of these paths (biases, an untied head) or the path `given`, or that has the path
    `unless`.
    """

    theirs: str
    ours: tuple[str, ...]
    form: Form
    given: Optional[str] = None
    unless: Optional[str] = None

    def applies(self, paths: Set[str]) -> bool:
        needed = {*self.ours, *([self.given] if self.given else [])}
        return needed <= paths and self.unless not in paths


def same(theirs: str, ours: str, form: Form = Same()) -> tuple[Rule, ...]:
    return (Rule(theirs, (ours,), form),)


def norm(theirs: str, ours: str) -> tuple[Rule, ...]:
    return (Rule(f"{theirs}.weight", (f"{ours}/scale",), Same()), Rule(f"{theirs}.bias", (f"{ours}/bias",), Same()))


def dense(theirs: str, ours: str, ins: int = 1, swapped: bool = True) -> tuple[Rule, ...]:
    return (Rule(f"{theirs}.weight", (f"{ours}/kernel",), Dense(ins, swapped)), Rule(f"{theirs}.bias", (f"{ours}/bias",), Flat()))


def attention(theirs: str, ours: str, names: tuple[str, str, str, str]) -> tuple[Rule, ...]:
    """Returns the rules of four dense layers. `names` are their names of query, key, value and out."""
    parts = zip(names, ("query", "key", "value", "out"), strict=True)
    return tuple(rule for name, part in parts for rule in dense(f"{theirs}.{name}", f"{ours}/{part}", ins=2 if part == "out" else 1))


def fused(theirs: str, ours: str, swapped: bool, by_head: bool) -> tuple[Rule, ...]:
    """Returns the rules of one dense layer there that is query, key and value here."""
    kernels, biases = (tuple(f"{ours}/{part}/{leaf}" for part in ("query", "key", "value")) for leaf in ("kernel", "bias"))
    bias = Fused(0, swapped=False, by_head=by_head)
    return (Rule(f"{theirs}.weight", kernels, Fused(1, swapped, by_head)), Rule(f"{theirs}.bias", biases, bias))


def given(path: str, rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
    return tuple(dataclasses.replace(rule, given=path) for rule in rules)


def unless(path: str, rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
    return tuple(dataclasses.replace(rule, unless=path) for rule in rules)


@dataclasses.dataclass(frozen=True)
class Entry:
    """One tensor of a model: its name there, our paths, and the layer in our arrays (None if they are not stacked)."""

    theirs: str
    ours: tuple[str, ...]
    layer: Optional[int]
    form: Form
    shapes: tuple[Shape, ...]  # of our arrays of one layer

    @property
    def shape(self) -> Shape:
        return self.form.theirs(list(self.shapes))


def entries(rules: tuple[Rule, ...], leaves: dict[str, Shape]) -> dict[str, Entry]:
    """Returns every tensor of a model with these shapes of parameters, by its name there. Each of our leaves is in exactly one rule."""
    found: dict[str, Entry] = {}
    covered: list[str] = []
    for rule in rules:
        if not rule.applies(leaves.keys()):
            continue
        covered += rule.ours
        stacked = "{}" in rule.theirs
        shapes = tuple(leaves[path][1:] if stacked else leaves[path] for path in rule.ours)
        for layer in range(leaves[rule.ours[0]][0]) if stacked else (None,):
            name = rule.theirs if layer is None else rule.theirs.format(layer)
            found[name] = Entry(name, rule.ours, layer, rule.form, shapes)
    assert sorted(covered) == sorted(leaves), f"the table does not fit the model: {set(covered) ^ set(leaves)}"
    return found
