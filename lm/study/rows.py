"""A study's rows: one `Row` for each cell, read from `study.json` and the cells' `run.json` (imports no jax).

Until a run begins, its row holds the plan; run.json, once it is there, replaces plan by fact. Failed runs are rows too: `status` and
`reason` say why a fit leaves them out. `lm.analysis.runs` makes the table of runs that the laws are fitted to from these rows.
"""

import collections
import dataclasses
import json
import math
import pathlib
from collections.abc import Sequence
from typing import Any, Optional

from lm.errors import SHARED, UserError, counted, require_local
from lm.study import records
from lm.study.naming import require_safe
from lm.train.config import MEASURE

CONVENTIONS = ("6nd", "matmul_full", "matmul_causal")
PLANNED = "pending"
TEXT = "text"


@dataclasses.dataclass(frozen=True)
class Row:
    """One run of a study.

    `budget` is the planned C of the whole run in FLOPs, matmul + causal attention; `flops` holds the actual C by convention
    ("6nd", "matmul_full", "matmul_causal"), also of the whole run. `params` counts parameters by group (embedding, position,
    head, blocks, norms, total, non_embedding, matmul). `tokens` is D: document tokens consumed, and `bytes` their UTF-8 bytes.
    `likelihood` is the type of the losses: "text", or "pairs of OBJECTIVE". `loss` is the final held-out loss, in nats per UTF-8 byte
    of text or per target of pairs. `curve` holds points with the keys step, tokens, flops (matmul + causal attention), `measure` (the
    name of the loss: nats_per_byte or nats_per_token), lr_ratio and decayed.

    `role` is "grid" (a size of a budget), "seed" (a repeat with another seed) or "bracket" (another learning rate).
    `learning_rate_factor` is 1 but for brackets: the factor on the learning-rate rule's value.
    """

    id: str
    role: str
    stage: int
    budget: float
    seed: int
    status: str  # pending, running, completed, diverged or failed
    reason: Optional[str]
    params: dict[str, float]
    tokens: float
    bytes: float
    flops: dict[str, float]
    loss: float
    steps: int
    batch_size: int  # sequences
    sequence_length: int
    learning_rate: float
    learning_rate_factor: float
    shape: dict[str, int]  # d_model, num_layers, num_heads, head_dim, d_ff
    curve: tuple[dict[str, Any], ...] = ()
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)
    environment: dict[str, Any] = dataclasses.field(default_factory=dict)
    likelihood: str = TEXT

    @property
    def measure(self) -> str:
        """The name of the loss in run.json: nats_per_byte or nats_per_token."""
        return MEASURE["text" if self.likelihood == TEXT else "pairs"]

    @property
    def completed(self) -> bool:
        """True when the run reached its end with a finite loss; only such rows enter a fit."""
        return self.status == "completed" and math.isfinite(self.loss)

    @property
    def bits_per_byte(self) -> float:
        return self.loss / math.log(2)

    def n(self, group: str = "matmul") -> float:
        """Returns N under a convention, a key of `params`."""
        return float(self.params[group])

    def c(self, convention: str = "matmul_causal") -> float:
        """Returns the FLOPs C of the whole run under a convention, a key of `flops`."""
        return float(self.flops[convention])


def read_rows(study_dir: str | pathlib.Path) -> list[Row]:
    """Returns every cell of a study in planned order, with what its run has measured so far. Raises UserError on a broken directory."""
    root = pathlib.Path(study_dir)
    return [_row(root, cell) for cell in read_study(root)["cells"]]


def read_study(root: pathlib.Path) -> dict[str, Any]:
    """Returns the content of study.json. Raises UserError when there is none, or when it lists no cells whose ids are names of folders."""
    require_local(root, SHARED)
    path = root / "study.json"
    study = read_json(path, f"{root} holds no study: `python -m experiments STUDY plan`, with the study's name or file, makes one")
    cells = study.get("cells")
    if not isinstance(cells, list) or not all(isinstance(cell, dict) for cell in cells):
        raise UserError(f"{path} lists no cells: restore it, or plan in another directory with --dir")
    for cell in cells:
        require_safe(cell.get("id"), f"{path}: the cell id")
    return study


def one_likelihood(rows: Sequence[Row]) -> str:
    """Returns the loss type that all runs share. Raises UserError when there are several, since losses compare within one type only."""
    counts = collections.Counter(row.likelihood for row in rows)
    if len(counts) > 1:
        found = ", ".join(f"{name} in {counted(count, 'run')}" for name, count in counts.items())
        raise UserError(f"losses of different types cannot be compared or drawn on one axis ({found}): take the runs of one type")
    return next(iter(counts), TEXT)


def read_json(path: pathlib.Path, missing: str) -> dict[str, Any]:
    """Returns the JSON object in a file. Raises UserError: `missing` when there is no file, one that names the file when it is broken."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(missing) from None
    except (ValueError, RecursionError) as error:  # no JSON, or no UTF-8
        raise UserError(f"{path} is not valid JSON ({error}): restore it, or delete it to have it made again") from None
    if not isinstance(value, dict):
        raise UserError(f"{path} holds no JSON object: restore it, or delete it to have it made again")
    return value


def _row(root: pathlib.Path, cell: dict[str, Any]) -> Row:
    """Returns the row of a cell, given by its entry in study.json."""
    run = records.read(root / "cells" / cell["id"])
    tokens, final, kind = run.get("tokens", {}), run.get("final") or {}, run.get("likelihood", TEXT)
    loss = final.get(MEASURE[kind])
    return Row(
        id=cell["id"],
        role=cell["role"],
        stage=cell["stage"],
        budget=cell["budget"],
        seed=cell["seed"],
        status=run.get("status", PLANNED),
        reason=run.get("reason"),
        params=run.get("parameters", cell["params"]),
        tokens=tokens.get("document", cell["tokens"]),
        bytes=tokens.get("bytes", math.nan),
        flops=run.get("flops", cell["flops"]),
        loss=math.nan if loss is None else float(loss),
        steps=run.get("steps", cell["steps"]),
        batch_size=cell["batch_size"],
        sequence_length=cell["sequence_length"],
        learning_rate=cell["learning_rate"],
        learning_rate_factor=cell["learning_rate_factor"],
        shape=cell["shape"],
        curve=tuple(run.get("curve", ())),
        seconds=run.get("seconds", {}),
        environment=run.get("environment", {}),
        likelihood=TEXT if kind == TEXT else f"{kind} of {run['experiment']['data']['objective']['name']}",
    )
