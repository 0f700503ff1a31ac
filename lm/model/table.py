"""The table of parameters that is printed before the first step."""

import dataclasses
from typing import Any, Optional

import jax
from jax.sharding import Mesh

from lm.model.architectures import Model
from lm.model.weights import flatten


@dataclasses.dataclass(frozen=True)
class Row:
    """One weight."""

    path: str
    shape: tuple[int, ...]
    axes: tuple[Any, ...]
    sharding: str  # mesh axes of each dimension, as in "-,fsdp,tensor"
    initial: str

    @property
    def size(self) -> int:
        size = 1
        for dimension in self.shape:
            size *= dimension
        return size


def rows(model: Model, mesh: Optional[Mesh] = None) -> list[Row]:
    """One row per weight, in the order of the paths. Without a mesh nothing is split."""
    shapes, axes, initials = (flatten(tree) for tree in (model.abstract(), model.axes(), model.initials()))
    placed = {} if mesh is None else flatten(model.shardings(mesh))
    return [Row(path, leaf.shape, axes[path], _split(placed.get(path), leaf), str(initials[path])) for path, leaf in shapes.items()]


def text(rows: list[Row]) -> str:
    """The rows as aligned columns, with their total."""
    cells = [("parameter", "size", "shape", "axes", "sharding", "initial")]
    cells += [(r.path, f"{r.size:,}", "x".join(map(str, r.shape)), ",".join(map(str, r.axes)), r.sharding, r.initial) for r in rows]
    cells.append(("total", f"{sum(r.size for r in rows):,}", "", "", "", ""))
    widths = [max(len(row[i]) for row in cells) for i in range(6)]
    pad = lambda i, cell: cell.rjust(widths[i]) if i == 1 else cell.ljust(widths[i])
    return "\n".join("  ".join(pad(i, cell) for i, cell in enumerate(row)).rstrip() for row in cells)


def _split(sharding: Any, leaf: jax.ShapeDtypeStruct) -> str:
    if sharding is None:
        return ",".join("-" for _ in leaf.shape)
    entries = [*sharding.spec, *[None] * (len(leaf.shape) - len(sharding.spec))]
    used = lambda entry: [axis for axis in ((entry,) if isinstance(entry, str) else entry or ()) if sharding.mesh.shape[axis] > 1]
    return ",".join("+".join(used(entry)) or "-" for entry in entries)
