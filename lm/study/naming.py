"""What the cells of a study are called, from their entries in study.json (imports no jax)."""

from typing import Any

from lm.study.comparison import ROLE

Entry = dict[str, Any]


def words(cell: Entry) -> str:
    """Which run of its study a cell is."""
    if cell["role"] == ROLE:
        return f"{cell['group']}, {cell['variant']}, seed {cell['seed']}"
    return f"C {cell['budget']:.3g}, d_model {cell['shape']['d_model']}, {cell['role']}, seed {cell['seed']}"


def short(cell: Entry) -> str:
    """The same for a line of progress."""
    if cell["role"] == ROLE:
        return words(cell)
    role = {"grid": "", "seed": f" seed {cell['seed']}", "bracket": f" learning rate x{cell['learning_rate_factor']:g}"}[cell["role"]]
    return f"C {cell['budget']:.3g} d_model {cell['shape']['d_model']}{role}"


def group(cell: Entry) -> str:
    """What the cells that are counted together have in common."""
    if cell["role"] == ROLE:
        return f"{cell['group']}: {cell['variant']}"
    return f"stage {cell['stage']}  C {cell['budget']:.3g}  {cell['role']:8s}"
