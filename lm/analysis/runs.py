"""Turns a study's rows into the table of runs that every fit reads, and says which rows are left out (numpy only)."""

from collections.abc import Iterable, Sequence
from typing import Optional

import numpy as np

from lm.scaling.results import Refusal, result
from lm.scaling.runs import Runs, Size
from lm.study.rows import Row

BRACKET = "bracket"


@result
class Exclusion:
    """A run that no fit uses, and the rule that leaves it out."""

    id: str
    role: str
    reason: str


def runs_of(rows: Sequence[Row], n: str, c: str, planned_c: str) -> Runs:
    """Returns the table of usable rows, in planned order; runs of learning-rate brackets are left out.

    Args:
        n, c: the conventions in which N and C are counted, which all rows record (`missing_convention`).
        planned_c: that in which budgets are planned, and in which seed noise is a function of C.
    """
    kept = [row for row in rows if row.role != BRACKET]

    def column(values: Iterable[float]) -> np.ndarray:
        return np.array(list(values), float)

    params, tokens, flops = column(row.params[n] for row in kept), column(row.tokens for row in kept), column(row.flops[c] for row in kept)
    return Runs(
        inputs={"N": params, "D": tokens, "C": flops, "M": tokens / params},
        loss=column(row.loss for row in kept),
        run=tuple(row.id for row in kept),
        seed=tuple(str(row.seed) for row in kept),
        budget=column(row.budget for row in kept),
        decayed=np.array([decayed(row) for row in kept], bool),
        counted=True,
        source="study",
        size=tuple(size(row) for row in kept),
        planned_c=column(row.flops[planned_c] for row in kept),
    )


def size(row: Row) -> Size:
    """Returns a hashable name of a run's shape: equal for the cells of one size, whatever the budget."""
    return tuple(sorted((str(key), int(value)) for key, value in row.shape.items()))


def decayed(row: Row) -> bool:
    """Returns whether the run's last point lies in the decay of its schedule (a run without a loss curve is taken at its word)."""
    return not row.curve or bool(row.curve[-1].get("decayed", True))


def usable(rows: Iterable[Row]) -> tuple[list[Row], list[Exclusion]]:
    """Splits rows into those that fits may use, and those without a completed run, a finite loss or a decayed end."""
    used, excluded = [], []
    for row in rows:
        if row.status != "completed":
            excluded.append(Exclusion(row.id, row.role, f"{row.status}: {row.reason}" if row.reason else row.status))
        elif not (np.isfinite(row.loss) and row.loss > 0):
            excluded.append(Exclusion(row.id, row.role, f"the final loss is {row.loss}"))
        elif not decayed(row):
            excluded.append(Exclusion(row.id, row.role, "the schedule had not decayed at the end of the run"))
        else:
            used.append(row)
    return used, excluded


def missing_convention(rows: Sequence[Row], n: str, c: str) -> Optional[Refusal]:
    """Refuses conventions under which some run records no N or no C."""
    for row in rows:
        if not row.params.get(n):
            return Refusal("missing", f"run {row.id} records no parameters under {n!r}")
        if not row.flops.get(c):
            return Refusal("missing", f"run {row.id} records no FLOPs under {c!r}")
    return None
