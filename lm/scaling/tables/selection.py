"""Chooses rows of a table before it is read: by a condition on a column, and by the state of runs in a tracker's export."""

import operator
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from lm.errors import UserError, counted
from lm.scaling.tables import columns, numbers
from lm.scaling.tables.formats import RawTable

OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    ">=": operator.ge, "<=": operator.le, "!=": operator.ne, "==": operator.eq, ">": operator.gt, "<": operator.lt, "=": operator.eq,
}  # fmt: skip
_CONDITION = re.compile(r"(.+?)\s*(>=|<=|!=|==|>|<|=)\s*(.*)")
_FINISHED = ("finished", "completed", "success", "done")
_STATES = (*_FINISHED, "crashed", "failed", "killed", "cancelled", "running", "preempted", "preempting", "pending", "queued", "diverged")


def where(table: RawTable, condition: str) -> RawTable:
    """Keeps the rows whose column fulfils a condition, such as `lr>1e-4` or `corpus==c4`. Empty cells fulfil none.

    Raises:
      UserError: the condition is none, its column is not there, or it orders a column that is no number.
    """
    match = _CONDITION.fullmatch(condition.strip())
    if match is None or not match[3].strip():
        raise UserError(f"--where {condition!r}: write COLUMN, one of {' '.join(OPERATORS)}, and a value, such as 'loss<4'")
    name, sign, text = columns.named(table, match[1].strip()), match[2], match[3].strip().strip("'\"")
    cells = table.columns[name]
    present = [not numbers.is_empty(cell) for cell in cells]
    wanted = numbers.plain([text])
    values = numbers.plain([cell if there else np.nan for cell, there in zip(cells, present, strict=True)])
    if wanted is not None and values is None:
        values = _numbers(table, name)
    if wanted is not None and values is not None:
        with np.errstate(invalid="ignore"):
            kept = OPERATORS[sign](values, wanted[0]) & np.isfinite(values)
    elif sign in ("==", "=", "!="):
        kept = np.array([OPERATORS[sign](str(cell).strip(), text) for cell in cells]) & np.array(present)
    else:
        raise UserError(f"--where {condition!r}: {name} holds text or {text!r} is no number; compare text with == or !=")
    index = np.flatnonzero(kept)
    if not len(index):
        raise UserError(f"--where {condition!r} leaves no row of {table.source}: widen it")
    return table.take(index.tolist(), f"{len(table) - len(index)} of {counted(len(table), 'row')} left out by --where {condition!r}")


def _numbers(table: RawTable, name: str) -> np.ndarray | None:
    """Returns a column as numbers, None where it is text."""
    try:
        return numbers.column(table, name)
    except UserError:
        return None


def finished(table: RawTable) -> RawTable:
    """Leaves out runs that did not finish, where a column `State` says so, as in an export of Weights & Biases; they are counted."""
    names = [name for name in table.names if columns.spelled(name) in ("state", "status")]
    states = [[str(cell).strip().lower() for cell in table.columns[name]] for name in names]
    for cells in states:
        if cells and set(cells) <= set(_STATES):
            kept = [i for i, cell in enumerate(cells) if cell in _FINISHED]
            if not kept:
                raise UserError(f"{table.source}: no run is finished ({_counts(cells)}); a table of finished runs is needed")
            left_out = Counter(cell for cell in cells if cell not in _FINISHED)
            return table.take(kept, f"left out: {_counts(left_out.elements())} runs") if left_out else table
    return table


def _counts(cells: Any) -> str:
    return ", ".join(f"{count} {cell}" for cell, count in sorted(Counter(cells).items()))
