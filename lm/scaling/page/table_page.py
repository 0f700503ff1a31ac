"""The page of a table of runs, which `python -m lm.scaling fit RUNS.csv --report=FILE.html` writes."""

import pathlib
from collections.abc import Mapping
from typing import Optional, Union

from lm.errors import counted
from lm.scaling import table_summary
from lm.scaling.allocation import Allocation
from lm.scaling.approaches.hull import Hull
from lm.scaling.approaches.isoflop import Isoflop
from lm.scaling.law_error import WithError
from lm.scaling.page import cells, document
from lm.scaling.page.cells import Cells, Reasons
from lm.scaling.page.document import Document, Figure, Section, Table, Text, Written
from lm.scaling.page.provenance import Provenance
from lm.scaling.results import Answer, Refusal
from lm.scaling.sensitivity import Variant
from lm.scaling.table_analysis import Fitted, LawFit, TableAnalysis
from lm.scaling.words import scientific, typeset

SYMBOLS = "N: parameters, D: tokens, C: training FLOPs; * marks the compute-optimal value. 1k, 1M, 1B, 1T: 10³, 10⁶, 10⁹, 10¹²."
STATISTICAL, OWN = "statistical", "with the law's own error"
OWN_SAID = (
    "Statistical intervals suppose that the law is true. The others hold its own error too: a smooth function that is inferred from the "
    "residuals, of N and D for approach 3 and of C for the power laws of approach 2."
)
Exponents = Mapping[int, Mapping[str, Answer]]


def write(path: pathlib.Path, made: TableAnalysis, provenance: Provenance, fitted: Optional[Fitted] = None, title: str = "") -> Written:
    """Writes one self-contained page and the files of its figures, and makes its folder if it is missing.

    Args:
      fitted: the law with its draws, for the lines and bands of the figures.
      title: of the page (default: of the table's file).
    """
    return document.write(path, page(made, provenance, fitted, title))


def page(made: TableAnalysis, provenance: Provenance, fitted: Optional[Fitted] = None, title: str = "") -> Document:
    """Returns the page of an analysis."""
    from lm.scaling.page import figures

    refused, cautions = refusals(made), tuple(table_summary.cautions(made))
    parts = (made.law, made.isoflop, made.hull)
    reasons = Reasons(*cautions, *(part.reason for part in parts if isinstance(part, Refusal)))
    drawn = figures.of(made, fitted)
    sections = [
        _result(made, drawn, reasons),
        _minima(made, drawn, reasons),
        _law(made, drawn, reasons),
        Section("Approach 1: the lower hull", (drawn["hull"],)) if "hull" in drawn else None,
        _further(made),
    ]
    name = pathlib.Path(made.source).name
    return Document(
        title=title or f"Scaling laws of {name}", summary=f"{counted(made.count, 'row')}. {SYMBOLS}", refusals=refused, cautions=cautions,
        sections=tuple(section for section in sections if section is not None), made=provenance, settings=settings(made) | made.versions,
    )  # fmt: skip


def settings(made: TableAnalysis) -> dict[str, str]:
    """Returns the settings in words; those of a fitted law are what was done: the resampling that `measured` chose, not `measured`."""
    known = (
        ("law", "objective", "resampling")
        if isinstance(made.isoflop, Isoflop)
        else ("law", "objective", "resampling", "curve", "regression")
    )
    asked = {name: value for name, value in made.settings.items() if name not in known}
    asked = {name: value for name, value in asked.items() if value is not None and value is not False}
    words = {name: ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value) for name, value in asked.items()}
    if isinstance(made.law, LawFit):
        words |= {"law": made.law.law, "objective": made.law.objective, "resampling": made.law.resampling}
    return {name: value for name, value in sorted(words.items()) if value}


def refusals(made: TableAnalysis) -> tuple[str, ...]:
    """Returns why an approach gave nothing, each reason once."""
    named = (("approach 1", made.hull), ("approach 2", made.isoflop), ("approach 3", made.law))
    by_reason: dict[str, list[str]] = {}
    for name, part in named:
        if isinstance(part, Refusal):
            by_reason.setdefault(part.reason, []).append(name)
    return tuple(f"{' and '.join(names)}: {reason}" for reason, names in by_reason.items())


def intervals_of_exponents(made: TableAnalysis) -> dict[str, Exponents]:
    """Returns a and b of each approach by kind of interval, one column of the table each. Another kind is another entry.

    The first kind gives the values. A kind may lack approaches.
    """
    found: dict[int, Mapping[str, Answer]] = {}
    if isinstance(made.isoflop, Isoflop):
        found[2] = {"a": made.isoflop.a, "b": made.isoflop.b}
    if isinstance(made.law, LawFit) and made.law.exponents:
        found[3] = made.law.exponents
    own: dict[int, Mapping[str, Answer]] = {}
    if isinstance(made.isoflop, Isoflop) and made.isoflop.a_with_error is not None and made.isoflop.b_with_error is not None:
        own[2] = {"a": made.isoflop.a_with_error, "b": made.isoflop.b_with_error}
    if isinstance(made.law, LawFit) and made.law.exponents_with_error:
        own[3] = made.law.exponents_with_error
    return {STATISTICAL: found, OWN: own} if own else {"interval": found}


def exponents(made: TableAnalysis, reasons: Reasons) -> Optional[Table]:
    """Returns the exponents a and b by each approach, their intervals of all kinds side by side."""
    (head, first), *others = intervals_of_exponents(made).items()
    cell, further = Cells(reasons), Cells(reasons)
    rows: list[tuple[str, ...]] = []
    if isinstance(made.hull, Hull):
        rows += [("1, lower hull", name, cells.plain(value), *[cells.NONE] * (1 + len(others))) for name, value in _of_hull(made.hull)]
    for approach, label in ((2, "2, IsoFLOP minima"), (3, "3, law")):
        for name, answer in first.get(approach, {}).items():
            spans = [further.both(kind.get(approach, {}).get(name)) for _, kind in others]
            rows.append((label, name, cell.value(answer), cell.interval(answer), *spans))
    if not rows:
        return None
    caption = cell.caption("Exponents of N* ~ C^a and D* ~ C^b.", column=True)
    said = reasons.new([OWN_SAID] if others else [])
    columns = ("approach", "exponent", "value", head, *(kind for kind, _ in others))
    return Table(columns, tuple(rows), caption, (*said, *cell.notes(), *further.notes()))


def _of_hull(made: Hull) -> tuple[tuple[str, float], ...]:
    return ("a", made.a), ("b", made.b)


def _result(made: TableAnalysis, drawn: dict[str, Figure], reasons: Reasons) -> Optional[Section]:
    """Returns what the page is about: the exponents and the compute-optimal models, or the curve of a law that has none."""
    table = exponents(made, reasons)
    parts: list[Union[Figure, Table, Text]] = [] if table is None else [table]
    parts += [drawn[name] for name in ("allocation", "curve", "sensitivity") if name in drawn]
    if made.sensitivity:
        parts.append(sensitivity(made.sensitivity, reasons))
    if isinstance(made.law, LawFit) and made.law.allocations:
        parts += allocations(made.law.allocations, "Compute-optimal models by approach 3.", reasons)
    if made.isoflop_targets:
        parts += allocations(made.isoflop_targets, "Compute-optimal models by the lines through the minima of approach 2.", reasons)
    title = "The fitted law" if table is None and "curve" in drawn else "Compute-optimal allocation"
    return Section(title, tuple(parts)) if parts else None


def sensitivity(made: tuple[Variant, ...], reasons: Reasons) -> Table:
    """Returns the exponent a under one change at a time."""
    cell, rows = Cells(reasons), []
    for one in made:
        moved = "" if one.difference is None else f"{one.difference:+.3f}".replace("-", "−")
        outside = "outside" if one.outside else ""
        rows.append((str(one.approach), one.what, one.choice, str(one.rows), cell.both(one.a), moved, outside))
    head = ("approach", "change", "to", "rows", "a", "difference", "interval as chosen")
    return Table(head, tuple(rows), cell.caption("How a moves with one change at a time."), cell.notes())


def allocations(
    made: tuple[Allocation, ...], caption: str, reasons: Reasons, notes: tuple[str, ...] = ()
) -> list[Union[Figure, Table, Text]]:
    """Returns the compute-optimal model at each C, below it with the law's own error, and how far the furthest extrapolates.

    `notes` are more sentences below the table.
    """
    cell, further = Cells(reasons), Cells(reasons)
    own = any(at.with_error for at in made)
    rows: list[tuple[str, ...]] = []
    for at in made:
        kind = (STATISTICAL,) if own else ()
        outside = at.caution.kind.replace("_", " ") if at.caution else ""
        rows.append((scientific(at.flops), *kind, *_optimum(cell, at), outside))
        if at.with_error:
            rows.append(("", OWN, *_optimum(further, at.with_error), ""))
    far = [at.caution.message for at in made if at.caution and at.caution.kind != "extrapolation"]
    head: tuple[str, ...] = ("C (FLOPs)", *(("intervals",) if own else ()), "N*", "D*", "loss", "D/N", "outside the table")
    if not any(row[-1] for row in rows):
        head, rows = head[:-1], [row[:-1] for row in rows]
    said = reasons.new([OWN_SAID] if own else [])
    return [Table(head, tuple(rows), cell.caption(caption), (*notes, *said, *cell.notes(), *further.notes(), *reasons.new(far[-1:])))]


def _optimum(cell: Cells, at: Union[Allocation, WithError]) -> tuple[str, ...]:
    return cell.both(at.n, cells.count), cell.both(at.d, cells.count), cell.both(at.loss, cells.four), cell.both(at.ratio)


def _minima(made: TableAnalysis, drawn: dict[str, Figure], reasons: Reasons) -> Optional[Section]:
    if not isinstance(made.isoflop, Isoflop):
        return None
    cell, rows = Cells(reasons), []
    for b in made.isoflop.budgets:
        answers = (cell.both(b.n_star, cells.count), cell.both(b.d_star, cells.count), cell.both(b.loss_star, cells.four))
        rows.append((scientific(b.flops), str(len(b.n)), *answers))
    table = Table(
        ("C (FLOPs)", "sizes", "N*", "D*", "lowest loss"), tuple(rows), cell.caption("Minima of the IsoFLOP profiles."), cell.notes()
    )
    return Section("Approach 2: IsoFLOP profiles", (drawn["isoflop"], table))


def _law(made: TableAnalysis, drawn: dict[str, Figure], reasons: Reasons) -> Optional[Section]:
    law = made.law
    if not isinstance(law, LawFit):
        return None
    source = f" ({law.source})" if law.source else ""
    table = parameters(law, reasons)
    figures = [drawn[name] for name in ("surface", "residuals") if name in drawn]
    return Section("Approach 3: a fitted law", (Text(f"{law.equation}{source}", verbatim=True), table, *figures, proof(law)))


def parameters(law: LawFit, reasons: Reasons) -> Table:
    """Returns the parameters of the law, and what it derives from them, with their intervals."""
    cell = Cells(reasons)
    rows = [(name, _full(law.values[name]), cell.interval(answer, cells.parameter)) for name, answer in law.parameters.items()]
    rows += [(name, cell.value(answer, _full), cell.interval(answer, cells.parameter)) for name, answer in law.derived.items()]
    caption = cell.caption("Parameters of the law.", column=True)
    return Table(("parameter", "optimum", "interval"), tuple(rows), caption, cell.notes())


def _full(value: float) -> str:
    return scientific(value, 8) if abs(value) >= 1e8 else f"{value:.8g}"


def proof(made: LawFit) -> Table:
    """Returns the evidence that the optimum is one."""
    rows = (
        ("objective", typeset(f"{made.objective} = {made.objective_value:.10g}")),
        ("scaled gradient there, sqrt(g H^-1 g / objective)", scientific(made.gradient)),
        ("condition number of the column-scaled Jacobian", f"{made.condition:.3g}"),
        ("starts", f"{made.starts:,}; {made.agreeing} of the best agree"),
        ("objective by variable projection", "no linear parameters" if made.projected is None else typeset(f"{made.projected:.10g}")),
        ("sampled range", "; ".join(f"{name} {cells.plain(low)} to {cells.plain(high)}" for name, (low, high) in made.sampled.items())),
    )
    return Table(("what", "value"), rows, "Evidence that the optimum is one.")


def _further(made: TableAnalysis) -> Optional[Section]:
    """Returns the filters, the likelihood, the profiles and the rolling origin as text; None where none was asked for."""
    law = table_summary.further(made.law) if isinstance(made.law, LawFit) else []
    lines = [*table_summary.filters(made.filters), *law, *table_summary.rolling(made.rolling)]
    return Section("Further checks", (Text("\n".join(lines), verbatim=True),)) if lines else None
