"""The time that a study still needs: the plan's estimates, corrected by how long cells really take (imports no jax).

The time since the start says little at first: workers start, programs are compiled, and small models make fewer FLOPs a second than large
ones. What is compared is therefore a cell's own time: that of cells that have ended, and what the rate of those that run makes of theirs.
"""

from collections.abc import Sequence
from typing import Optional

from lm.study import records
from lm.study.status import CellStatus


def seconds_left(cells: Sequence[CellStatus], workers: Optional[int] = None) -> Optional[float]:
    """Returns the seconds until every cell has ended; None where nothing runs.

    The cells that are left take their estimates times the ratio of real to estimated time so far (1 before any is known), shared out among
    the workers, and at least as long as the longest of them.

    Args:
        cells: the cells of the study
        workers: cells at a time (default: as many as run now)
    """
    running = sum(c.state == "running" for c in cells)
    workers = workers or running
    left = [(1 - c.progress) * c.cell["seconds"] for c in cells if c.state not in records.FINISHED]
    if not running or not left:
        return None
    return _ratio(cells) * max(sum(left) / workers, max(left))


def _ratio(cells: Sequence[CellStatus]) -> float:
    """Returns the time that cells take, over what the plan estimates."""
    real = estimated = 0.0
    for c in cells:
        if c.state == "completed" and c.seconds > 0:
            took = c.seconds
        elif c.state == "running" and c.tokens_per_second:
            took = c.cell["tokens"] / c.tokens_per_second
        else:
            continue
        real, estimated = real + took, estimated + c.cell["seconds"]
    return real / estimated if estimated > 0 else 1.0
