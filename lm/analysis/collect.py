"""Makes one table of all runs of a study, as CSV and Parquet, with the columns that `python -m lm.scaling fit` reads (numpy only)."""

import csv
import io
import math
import pathlib
from collections.abc import Sequence
from typing import Any

from lm import files
from lm.study.rows import CONVENTIONS, Row

NAME = "runs"
GROUPS = ("total", "non_embedding", "matmul")


def columns(rows: Sequence[Row], n: str, c: str) -> list[dict[str, Any]]:
    """Returns a line for each run, in planned order; those without a final loss have none.

    Args:
        rows: the runs of one study
        n: the convention of the column N, in parameters
        c: the convention of the column C, in FLOPs of the whole run
    """
    made = []
    for row in rows:
        loss = row.loss if row.completed else None
        line = {
            "run": row.id, "status": row.status, "N": row.params.get(n), "D": row.tokens, "C": row.flops.get(c), "loss": loss,
            "budget": row.budget, "seed": row.seed, "role": row.role, "stage": row.stage, "likelihood": row.likelihood,
            "learning_rate": row.learning_rate, "learning_rate_factor": row.learning_rate_factor, "batch_size": row.batch_size,
            "sequence_length": row.sequence_length, "steps": row.steps, "bytes": row.bytes,
            "bits_per_byte": loss / math.log(2) if loss is not None and row.likelihood == "text" else None,
        }  # fmt: skip
        line |= {f"N_{group}": row.params.get(group) for group in GROUPS}
        line |= {f"C_{name}": row.flops.get(name) for name in CONVENTIONS}
        line |= {name: row.shape.get(name) for name in ("d_model", "num_layers", "num_heads", "head_dim", "d_ff")}
        made.append(line | {"seconds": row.seconds.get("total"), "reason": row.reason})
    return made


def write(rows: Sequence[Row], folder: pathlib.Path, n: str = "matmul", c: str = "matmul_causal") -> list[pathlib.Path]:
    """Writes runs.csv and runs.parquet in a folder and returns their paths."""
    import pyarrow
    from pyarrow import parquet

    lines = columns(rows, n, c)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(lines[0]) if lines else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    paths = [folder / f"{NAME}.csv", folder / f"{NAME}.parquet"]
    files.write_text(paths[0], text.getvalue())
    with files.replacing(paths[1]) as temporary:
        parquet.write_table(pyarrow.Table.from_pylist(lines), temporary)
    return paths
