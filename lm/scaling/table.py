"""The table of a study: one `Row` per run. Every fit, figure and report starts from a list of rows (imports no jax)."""

import dataclasses
import math
from typing import Any, Mapping, Optional

GRID, REPLICA, BRACKET = "grid", "replica", "bracket"  # the roles of a cell


@dataclasses.dataclass(frozen=True)
class Row:
    """One run of a study; a planned cell that has not run is a row without loss (status "pending").

    `role` says why the cell exists: "grid" (a size at a budget), "replica" (the same with another seed), "bracket" (the same
    with another learning rate). Cells of one size have equal `shape`; replicas of one cell have equal budget, shape and rate.
    """

    id: str
    role: str
    budget: float  # planned FLOPs, in the convention the study is planned in
    seed: int
    status: str  # pending | running | completed | diverged | failed
    reason: Optional[str]  # of a status that is not "completed"
    params: Mapping[str, int]  # by group, and under the conventions "total", "non_embedding", "matmul"
    tokens: int  # D: document tokens consumed, once
    bytes: int  # of the documents consumed
    flops: Mapping[str, Optional[float]]  # C of the whole run under "6nd", "matmul_full", "matmul_causal", "xla"
    loss: Optional[float]  # held-out full-text likelihood at the end, nats per byte
    steps: int
    learning_rate: float  # peak
    curve: tuple[Mapping[str, Any], ...]  # step, tokens, flops (matmul_causal), nats_per_byte, lr_ratio, decayed
    shape: Mapping[str, int]  # d_model, layers, heads, head_size, ...

    @property
    def size(self) -> tuple[tuple[str, int], ...]:
        """A hashable name of the shape: equal for the cells of one size, whatever the budget."""
        return tuple(sorted(self.shape.items()))

    @property
    def usable(self) -> bool:
        """Whether fits may use the run: it ended, and its loss is a positive number."""
        return self.status == "completed" and self.loss is not None and math.isfinite(self.loss) and self.loss > 0
