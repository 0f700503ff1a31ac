"""Names of a study's cells for people, made from the cells' entries in study.json (imports no jax)."""

from typing import Any

from lm.study.comparison import ROLE

Entry = dict[str, Any]


def words(cell: Entry) -> str:
    """Returns a cell's place in its study: "C 2e+11, d_model 32, grid, seed 0", or "Denoising, shared, seed 1"."""
    if cell["role"] == ROLE:
        return f"{cell['group']}, {cell['variant']}, seed {cell['seed']}"
    return f"C {cell['budget']:.3g}, d_model {cell['shape']['d_model']}, {cell['role']}, seed {cell['seed']}"


def short(cell: Entry) -> str:
    """Returns a cell's place in its study for a line of progress: "C 2e+11 d_model 32 seed 1"."""
    if cell["role"] == ROLE:
        return words(cell)
    role = {"grid": "", "seed": f" seed {cell['seed']}", "bracket": f" learning rate x{cell['learning_rate_factor']:g}"}[cell["role"]]
    return f"C {cell['budget']:.3g} d_model {cell['shape']['d_model']}{role}"


def group(cell: Entry) -> str:
    """Returns the name of the group that `status` counts a cell in: its budget and role, or its variant."""
    if cell["role"] == ROLE:
        return f"{cell['group']}: {cell['variant']}"
    return f"stage {cell['stage']}  C {cell['budget']:<8.3g}  {cell['role']}"
