"""How the runs of a study are carried out: on which mesh, with what remat and how many micro-batches (imports no jax).

A search over meshes writes what it found as a JSON table with an entry for each size of model; `Searched` is the rule that reads it:
    {"topology": "gpu:h100:1x8", "sizes": [{"params": 23420928, "mesh": {"data": 8}, "execution": {"remat": "dots"}, "rows": 8, ...}, ...]}
"""

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any, Optional, Protocol

from lm.data.objectives.shape import row_shape
from lm.errors import UserError
from lm.mesh import MeshConfig
from lm.model.flops import ledger
from lm.study.rules import Tier, Tiers
from lm.train.config import ExecutionConfig, RunConfig


class ExecutionRule(Protocol):
    """A rule that gives the mesh and the execution (micro-batches, remat, ...) of N matmul parameters, D tokens and a batch."""

    def settings(self, params: float, tokens: float, batch: int, /) -> tuple[MeshConfig, ExecutionConfig]: ...


def carried_out(config: RunConfig, rule: Optional[ExecutionRule]) -> RunConfig:
    """Returns a run with the mesh and the execution that a rule gives it; without a rule as it is."""
    if rule is None:
        return config
    mesh, execution = rule.settings(matmul_params(config), config.train_tokens, config.batch_size)
    return dataclasses.replace(config, mesh=mesh, execution=execution)


def matmul_params(config: RunConfig) -> int:
    """Returns a run's N in matrix products (blocks and head), by which rules tell sizes apart."""
    return ledger(config.model, row_shape(config.data, config.model.architecture)).params["matmul"]


@dataclasses.dataclass(frozen=True)
class Searched:
    """Every run has what a search found for the smallest model that is as large: mesh, remat, and micro-batches that keep to its rows.

    Attributes:
        path: the JSON table
        execution: the rest of how runs are carried out
        command: the command that writes the table
    """

    path: str
    execution: ExecutionConfig
    command: str

    def settings(self, params: float, tokens: float, batch: int) -> tuple[MeshConfig, ExecutionConfig]:
        """Returns the mesh and the execution for N matmul parameters. Raises UserError where the table is missing, or has no such size."""
        if not Path(self.path).is_file():
            raise UserError(f"no table {self.path} of meshes: make it by `{self.command}`")
        sizes = _sizes(self.path, Path(self.path).stat().st_mtime_ns)
        try:
            return Tiers(tuple(tier(entry, self.execution) for entry in sizes)).settings(params, tokens, batch)
        except UserError:
            raise UserError(f"{self.path} has no model of {params:,.0f} parameters or more: make it again by `{self.command}`") from None


def tier(entry: dict[str, Any], execution: ExecutionConfig) -> Tier:
    """Returns the tier of a table's entry; what the entry leaves out is as in `execution`, and axes that it leaves out have size 1."""
    mesh = MeshConfig(**({"data": 1} | entry["mesh"]))
    return Tier(entry["params"], mesh, dataclasses.replace(execution, **entry["execution"]), entry["rows"])


@functools.lru_cache(maxsize=16)
def _sizes(path: str, changed: int) -> tuple[dict[str, Any], ...]:
    """Returns the entries of a table, smallest first; read again where the file has changed."""
    del changed
    try:
        table = json.loads(Path(path).read_text(encoding="utf-8"))
        return tuple(sorted(table["sizes"], key=lambda entry: entry["params"]))
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is no table of meshes ({type(error).__name__}: {error}): make it again") from None
