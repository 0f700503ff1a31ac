"""From rows to arrays: which runs a fit may use, and the cells that they make (numpy only)."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, Optional

import numpy as np

from lm.scaling import results
from lm.study.rows import Row

BRACKET = "bracket"
Size = tuple[tuple[str, int], ...]


@results.result
class Exclusion:
    """A run that no fit uses, and the rule that leaves it out."""

    id: str
    role: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Cells:
    """Decayed end points, the replicas of a cell merged (mean of log loss, N, D and C are those of the runs). Arrays of one length.

    `noise_weight[i]` is the factor on the relative seed sd of cell i: 1 / sqrt(seeds).
    """

    ids: tuple[tuple[str, ...], ...]
    sizes: tuple[Size, ...]
    budget: np.ndarray  # planned FLOPs, the label of the cell
    log_n: np.ndarray
    log_d: np.ndarray
    log_c: np.ndarray
    log_loss: np.ndarray  # of nats per byte
    seeds: np.ndarray  # runs in the cell

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def noise_weight(self) -> np.ndarray:
        return 1 / np.sqrt(self.seeds)

    @property
    def x(self) -> np.ndarray:
        """[n, 2] columns log N, log D: the inputs of approach 3."""
        return np.stack([self.log_n, self.log_d], axis=1)

    def take(self, which: np.ndarray) -> "Cells":
        """The cells of a boolean mask or of indices, in order."""
        index = np.flatnonzero(which) if np.asarray(which).dtype == bool else np.asarray(which, int)
        picked = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        taken: dict[str, Any] = {k: v[index] if isinstance(v, np.ndarray) else tuple(v[i] for i in index) for k, v in picked.items()}
        return Cells(**taken)


def size(row: Row) -> Size:
    """A hashable name of a run's shape: equal for the cells of one size, whatever the budget."""
    return tuple(sorted((str(key), int(value)) for key, value in row.shape.items()))


def decayed(row: Row) -> bool:
    """Whether the run's last point lies in the decay of its schedule (a run without a curve is taken at its word)."""
    return not row.curve or bool(row.curve[-1].get("decayed", True))


def split(rows: Iterable[Row]) -> tuple[list[Row], list[Exclusion]]:
    """Runs that fits may use, and those that rules leave out: not completed, no finite loss, or an end that is not decayed."""
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


def has_convention(rows: Sequence[Row], n: str, c: str) -> Optional[results.Refusal]:
    """A refusal where some run lacks N or C under these conventions."""
    for row in rows:
        if not row.params.get(n):
            return results.Refusal("missing", f"run {row.id} records no parameters under {n!r}")
        if not row.flops.get(c):
            return results.Refusal("missing", f"run {row.id} records no FLOPs under {c!r}")
    return None


def cells(rows: Sequence[Row], n: str, c: str) -> Cells:
    """Merges replicas: runs of equal budget, size and learning rate. Brackets are left out. In planned order."""
    groups: dict[tuple[float, Size], list[Row]] = {}
    for row in rows:
        if row.role != BRACKET:
            groups.setdefault((row.budget, size(row)), []).append(row)
    members = list(groups.values())

    def column(of: "dict[str, float]") -> np.ndarray:
        return np.log(np.array([np.mean([of[row.id] for row in group]) for group in members], float))

    return Cells(
        ids=tuple(tuple(row.id for row in group) for group in members),
        sizes=tuple(key[1] for key in groups),
        budget=np.array([key[0] for key in groups], float),
        log_n=column({row.id: row.params[n] for row in rows}),
        log_d=column({row.id: row.tokens for row in rows}),
        log_c=column({row.id: row.flops[c] for row in rows}),
        log_loss=np.array([np.mean([np.log(row.loss) for row in group]) for group in members], float),
        seeds=np.array([len(group) for group in members], float),
    )
