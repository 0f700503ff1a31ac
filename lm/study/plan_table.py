"""The plan as text, in lines of at most `WIDTH` characters: a table of the cells, one of their shapes, and totals (imports no jax)."""

import dataclasses
import textwrap
from collections.abc import Callable, Sequence

from lm.errors import counted
from lm.scaling.words import aligned, digits, short, si
from lm.study.plan import Plan, Planned
from lm.study.study import Study

WIDTH = 120
_ALIKE = ("steps", "batch", "warmup", "memory")  # columns that become a sentence where all cells have one value
_LEAST = 8  # characters that a long name keeps
_COUNTS = {"total": "N total", "non_embedding": "non-embedding", "matmul": "matmul"}
_FLOPS = {"6nd": "6 N", "matmul_full": "full", "matmul_causal": "causal"}


@dataclasses.dataclass(frozen=True)
class Estimates:
    """How long a cell takes and how much memory it needs, and of what these are."""

    seconds: Callable[[Planned], float] = lambda p: p.seconds
    memory: Callable[[Planned], float] = lambda p: p.memory
    words: str = "time: of one core. memory: of one device of the cell's mesh, and its process."


HERE = Estimates()


def render(plan: Plan, workers: int, estimates: Estimates = HERE) -> str:
    """Returns the plan as text: N, D, learning rate and time of each cell, then its place, steps and memory; each shape once; totals.

    Args:
        plan: the plan
        workers: the number of workers of this machine, for the total time
        estimates: where times and memory come from; the total time is left out for those of other machines
    """
    counted = plan.study.analysis.n if isinstance(plan.study, Study) else "total"
    cells = [_cell(p, counted, estimates) for p in plan.planned]
    alike = {name: cells[0][name] for name in _ALIKE if len(cells) > 1 and len({cell[name] for cell in cells}) == 1}
    head = [name for name in cells[0] if name not in alike]
    lines = _table(head, [[cell[name] for name in head] for cell in cells])
    lines += [_sentence("In every cell: " + ", ".join(f"{name} {value}" for name, value in alike.items()) + ".")] if alike else []
    lines += _jumps(plan.planned)
    legend = f"N: {counted.replace('_', '-')} parameters. D: document tokens. lr: peak learning rate. "
    totals = ["", _totals(plan, workers)] if estimates is HERE else []
    return "\n".join([*lines, _sentence(legend + estimates.words), "", *_shapes(plan.planned), *totals])


def _cell(p: Planned, counted: str, estimates: Estimates) -> dict[str, str]:
    """Returns a cell's line by column: what is decided about it first."""
    config = p.cell.config
    first = {"id": p.id, "N": _count(p.params[counted]), "D": _count(config.train_tokens), "lr": _rate(config.optim.learning_rate)}
    place = {name: short(text) for name, text in p.cell.columns.items()}
    run = {"steps": f"{p.cell.steps:,}", "batch": str(config.batch_size), "warmup": f"{p.warmup_steps:,}"}
    return first | {"time": duration(estimates.seconds(p))} | place | run | {"shape": _shape(p), "memory": _memory(estimates.memory(p))}


def _shape(p: Planned) -> str:
    return f"{p.shape['d_model']}x{p.shape['num_layers']}"


def duration(seconds: float, space: str = "") -> str:
    """Returns a time in the unit that suits it: '3.2ms', '11.4s', '7.5min', '3.2h', '2.1d'; `space` stands between number and unit."""
    if 0 < seconds < 0.1:
        return f"{seconds * 1000:.3g}{space}ms" if seconds >= 1e-4 else f"{seconds * 1e6:.3g}{space}us"
    for limit, size, unit in ((100, 1, "s"), (6000, 60, "min"), (360_000, 3600, "h")):
        if seconds < limit:
            return f"{seconds / size:.1f}{space}{unit}"
    return f"{seconds / 86_400:,.1f}{space}d"


def _count(value: float) -> str:
    return si(value, 4, zeros=True)


def _whole(value: int) -> str:
    """Returns a count in full while a column holds it."""
    return f"{value:,}" if value < 1e8 else _count(value)


def _rate(value: float) -> str:
    return short(digits(value))


def _memory(size: float) -> str:
    return f"{size / 1e6:.0f}MB" if size < 1e9 else f"{size / 1e9:,.1f}GB"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns the lines of a table; its longest words are cut where it would be too wide."""
    every = [list(head), *(list(row) for row in rows)]
    widths = [max(len(row[i]) for row in every) for i in range(len(head))]
    while sum(widths) + 2 * (len(widths) - 1) > WIDTH and max(widths[1:]) > _LEAST:
        widths[max(range(1, len(widths)), key=widths.__getitem__)] -= 1
    cut = [[text if len(text) <= width else text[: width - 1] + "…" for text, width in zip(row, widths, strict=True)] for row in every]
    return aligned(cut[0], cut[1:], indent="")


def _jumps(planned: Sequence[Planned]) -> list[str]:
    """Names the cells whose shape jumps against the next smaller size, by what jumps."""
    found: dict[tuple[str, ...], list[str]] = {}
    for p in planned:
        if p.marks:
            found.setdefault(p.marks, []).append(p.id)
    return [_sentence(f"jump of the shape ({', '.join(marks)}): {', '.join(ids)}") for marks, ids in found.items()]


def _shapes(planned: Sequence[Planned]) -> list[str]:
    """Returns a table of the shapes: parameters and FLOPs a token by every way of counting."""
    head = ["shape", "cells", "d_ff", "heads", "head", "width/depth", *_COUNTS.values(), *(f"C/D {name}" for name in _FLOPS.values())]
    rows: dict[tuple[str, ...], int] = {}
    for p in planned:
        shape, tokens = p.shape, max(p.cell.config.train_tokens, 1)
        form = (str(shape["d_ff"]), str(shape["num_heads"]), str(shape["head_dim"]), f"{shape['d_model'] / shape['num_layers']:.0f}")
        counts = (*(_whole(p.params[name]) for name in _COUNTS), *(_count(p.flops[name] / tokens) for name in _FLOPS))
        row = (_shape(p), *form, *counts)
        rows[row] = rows.get(row, 0) + 1
    lines = _table(head, [[shape, str(cells), *rest] for (shape, *rest), cells in rows.items()])
    said = "shape: width x layers. C/D: FLOPs a token by 6 N (total), and by matrix products with full and with causal attention; "
    return [*lines, _sentence(said + "budgets are planned in the last.")]


def _totals(plan: Plan, workers: int) -> str:
    study, total = plan.study, sum(p.flops["matmul_causal"] for p in plan.planned)
    shapes = len({p.cell.shape_key for p in plan.planned})
    model = f"C / {study.speed.flops_per_second:.2g} per second + {study.speed.per_token * 1e6:.3g} us a token"
    model += f" + {study.speed.per_cell:.3g} s a cell + {study.speed.per_shape:.3g} s a shape"
    said = (
        f"{counted(len(plan.planned), 'cell')} of {shapes} compiled shapes, {total:.3g} FLOPs, "
        f"about {duration(plan.seconds(workers), ' ')} of training on {counted(workers, 'core')}"
    )
    return _sentence(short(f"{said} ({model})"))


def _sentence(text: str) -> str:
    return textwrap.fill(text, WIDTH, break_long_words=False, break_on_hyphens=False)
