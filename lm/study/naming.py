"""Names of a study's cells for people, made from the cells' entries in study.json (imports no jax)."""

import re
from typing import Any

from lm.errors import UserError
from lm.scaling import words as words_lib
from lm.study.comparison import ROLE

Entry = dict[str, Any]
SAFE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")  # a name that is a folder's, inside the one it is put in


def require_safe(name: Any, what: str) -> None:
    """Raises UserError for a name that is no folder's inside the one it is put in, such as ../x."""
    if not isinstance(name, str) or not SAFE.fullmatch(name):
        raise UserError(f"{what} {name!r} has to be a folder's name: letters, digits and _ . -, with no . or - at its start")


def words(cell: Entry) -> str:
    """Returns a cell's place in its study: "C 2e11, d_model 32, grid, seed 0", or "Denoising, shared, seed 1"."""
    if cell["role"] == ROLE:
        return f"{cell['group']}, {cell['variant']}, seed {cell['seed']}"
    return f"C {_flops(cell)}, d_model {cell['shape']['d_model']}, {cell['role']}, seed {cell['seed']}"


def short(cell: Entry) -> str:
    """Returns a cell's place in its study for a line of progress: "C 2e11 d_model 32 seed 1"."""
    if cell["role"] == ROLE:
        return words(cell)
    role = {"grid": "", "seed": f" seed {cell['seed']}", "bracket": f" learning rate x{cell['learning_rate_factor']:g}"}[cell["role"]]
    return f"C {_flops(cell)} d_model {cell['shape']['d_model']}{role}"


def group(cell: Entry) -> str:
    """Returns the name of the group that `status` counts a cell in: its budget and role, or its variant."""
    if cell["role"] == ROLE:
        return f"{cell['group']}: {cell['variant']}"
    return f"stage {cell['stage']}  C {_flops(cell):8s}  {cell['role']}"


def _flops(cell: Entry) -> str:
    return words_lib.short(f"{cell['budget']:.3g}")
