"""The page of a plan, which `python -m lm.scaling plan RUNS.csv --report=FILE.html` writes."""

import functools
import pathlib
from typing import Optional, Union

from lm.errors import counted
from lm.scaling.page import cells, document
from lm.scaling.page.cells import Cells, Reasons
from lm.scaling.page.document import Document, Figure, Section, Table, Text, Written
from lm.scaling.page.provenance import Provenance
from lm.scaling.page.table_page import SYMBOLS, allocations
from lm.scaling.planning.cells import NextCells
from lm.scaling.planning.optimum import IsoLoss, Serving
from lm.scaling.planning.table_plan import TablePlan
from lm.scaling.results import Refusal
from lm.scaling.runs import Runs
from lm.scaling.words import scientific

_SERVED = ("N", "D", "D/N", "FLOPs in all", "of training", "of inference", "FLOPs of the model that trains cheapest, over these")
_EVERY = 4  # of a curve of one loss, the points that its table shows


def write(path: pathlib.Path, made: Union[TablePlan, Refusal], runs: Runs, provenance: Provenance, title: str = "") -> Written:
    """Writes the page of a plan for these runs, and the files of its figures."""
    return document.write(path, page(made, runs, provenance, title))


def page(made: Union[TablePlan, Refusal], runs: Runs, provenance: Provenance, title: str = "") -> Document:
    """Returns the page of a plan; where there is none, of the reason."""
    title = title or f"Plan of runs beyond {pathlib.Path(runs.source).name}"
    if isinstance(made, Refusal):
        return Document(title, SYMBOLS, (made.reason,), (), (), provenance, {})
    reasons = Reasons(*(one.message for one in made.cautions))
    sections = [_optima(made, runs, reasons), _servings(made, reasons), _curves(made.curves), _next(made.next_cells, reasons)]
    values = ", ".join(f"{name} = {value:.6g}" for name, value in made.values.items())
    return Document(
        title=title, summary=f"From a law that was fitted to {counted(made.count, 'row')}. {SYMBOLS}", refusals=(),
        cautions=tuple(dict.fromkeys(one.message for one in made.cautions)),
        sections=tuple(section for section in sections if section is not None), made=provenance,
        settings={"law": made.equation, "its parameters": values, "intervals by": made.resampling},
    )  # fmt: skip


def _optima(made: TablePlan, runs: Runs, reasons: Reasons) -> Section:
    from lm.scaling.page import plan_figures

    caption = (
        "The rows, and what was planned: compute-optimal models with the intervals of N* and D*, models that reach a loss, curves of one "
        "loss, and runs to add, by their number in the table."
    )
    parts: list[Union[Figure, Table, Text]] = [Figure("plane", caption, functools.partial(plan_figures.plane, made=made, runs=runs))]
    if made.allocations:
        parts += allocations(made.allocations, "Compute-optimal models.", reasons)
    return Section("Models", tuple(parts))


def _servings(made: TablePlan, reasons: Reasons) -> Optional[Section]:
    """Returns the models that reach a loss, a column each."""
    if not made.servings:
        return None
    cell = Cells(reasons)
    found = [one for one in made.servings if isinstance(one, Serving)]
    refused = [one.reason for one in made.servings if isinstance(one, Refusal)]
    columns = [_answers(cell, one) for one in found]
    rows = [(name, *(column[i] for column in columns)) for i, name in enumerate(_SERVED)]
    outside = [one.caution.message for one in found if one.caution]
    caption = cell.caption("The models that reach a loss and then read tokens for the fewest FLOPs in all.")
    table = Table(("", *map(_asked, found)), tuple(rows) if found else (), caption, (*cell.notes(), *reasons.new([*refused, *outside])))
    return Section("Models for a loss", (table,))


def _asked(one: Serving) -> str:
    return f"loss {one.loss:g}, {cells.count(one.inference_tokens) if one.inference_tokens else 'no'} tokens read"


def _answers(cell: Cells, one: Serving) -> tuple[str, ...]:
    flops = tuple(cell.both(answer, scientific) for answer in (one.total, one.training, one.inference))
    return cell.both(one.n, cells.count), cell.both(one.d, cells.count), cell.both(one.ratio), *flops, cell.both(one.premium)


def _curves(made: tuple[IsoLoss, ...]) -> Optional[Section]:
    """Returns some points of each curve; the JSON holds all."""
    if not made:
        return None
    tables: list[Union[Figure, Table, Text]] = []
    for curve in made:
        if not curve.n:
            tables.append(Text(f"Loss {curve.loss:g}: out of reach of the fitted law."))
            continue
        rows = [(cells.count(n), cells.count(d), scientific(c)) for n, d, c in zip(curve.n, curve.d, curve.flops, strict=True)]
        tables.append(Table(("N", "D", "C (FLOPs)"), tuple(rows[::_EVERY]), f"Models of loss {curve.loss:g}."))
    return Section("Curves of one loss", tuple(tables))


def _next(made: Union[NextCells, Refusal, None], reasons: Reasons) -> Optional[Section]:
    if made is None:
        return None
    if isinstance(made, Refusal):
        return Section("Runs to add", (Text(made.reason),))
    from lm.scaling.page import plan_figures

    cell = Cells(reasons)
    now = cell.both(made.n_star, cells.count)
    text = (
        f"N* at C {scientific(made.flops)} is {now}. With {scientific(made.spent)} more FLOPs its interval is expected to shrink to "
        f"{made.shrinks_to:.0%}. Noise of a run: {made.sigma}."
    )
    rows = [
        (str(i), cells.count(one.n), cells.count(one.d), scientific(one.flops), f"{one.shrinks_to:.0%}")
        for i, one in enumerate(made.cells, 1)
    ]
    head = ("run", "N", "D", "C (FLOPs)", "width of the interval after it")
    table = Table(head, tuple(rows), "Runs to add, the most helpful first.", cell.notes())
    caption = "The width of the interval of N* after each run, relative to today's."
    return Section("Runs to add", (Text(text), table, Figure("next_runs", caption, functools.partial(plan_figures.shrinking, made=made))))
