"""The page of a table of runs, which `python -m lm.scaling fit RUNS.csv --report=FILE.html` writes."""

import pathlib
import tempfile
from typing import Optional, Union

from lm.scaling import table_summary
from lm.scaling.approaches.hull import Hull
from lm.scaling.approaches.isoflop import Isoflop
from lm.scaling.page import html
from lm.scaling.results import Refusal
from lm.scaling.table_analysis import LawFit, TableAnalysis
from lm.scaling.words import missing, said


def write(path: pathlib.Path, made: TableAnalysis) -> pathlib.Path:
    """Writes one self-contained page, and makes its folder if it is missing."""
    from lm.scaling.page import figures

    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        pictures = figures.draw(pathlib.Path(folder), made)
        return html.save(
            path, pathlib.Path(__file__).with_name("table.html"), pathlib.Path(folder), pictures,
            study={"name": made.source}, made=made, pictured=pictures,
            refusals=refusals(made), approaches=approaches(made), parameters=parameters(made.law), allocations=allocations(made.law),
            no_intervals=no_intervals(made.law), proof=proof(made.law), budgets=budgets(made.isoflop), settings=settings(made),
            versions=made.versions, further=further(made),
        )  # fmt: skip


def settings(made: TableAnalysis) -> dict[str, str]:
    """Returns the settings in words; those of a fitted law are what was done: the resampling that `measured` chose, not `measured`."""
    asked = {name: value for name, value in made.settings.items() if name not in ("law", "objective", "resampling")}
    asked = {name: value for name, value in asked.items() if value is not None and value is not False}
    words = {name: ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value) for name, value in asked.items()}
    if isinstance(made.law, LawFit):
        words |= {"law": made.law.law, "objective": made.law.objective, "resampling": made.law.resampling}
    return {name: value for name, value in sorted(words.items()) if value}


def refusals(made: TableAnalysis) -> list[str]:
    """Returns why an approach gave nothing."""
    named = (("approach 1", made.hull), ("approach 2", made.isoflop), ("approach 3", made.law))
    return [f"{name}: {part.reason}" for name, part in named if isinstance(part, Refusal)]


def further(made: TableAnalysis) -> str:
    """Returns the filters, the likelihood, the profiles and the rolling origin as text; empty where none was asked for."""
    law = table_summary.further(made.law) if isinstance(made.law, LawFit) else []
    return "\n".join([*table_summary.filters(made.filters), *law, *table_summary.rolling(made.rolling)])


def approaches(made: TableAnalysis) -> list[dict[str, str]]:
    """Returns the exponents a and b by each approach."""
    rows = []
    if isinstance(made.hull, Hull):
        rows.append({"name": "1, lower hull", "a": f"{made.hull.a:.4g}", "b": f"{made.hull.b:.4g}"})
    if isinstance(made.isoflop, Isoflop):
        rows.append({"name": "2, IsoFLOP minima", "a": said(made.isoflop.a), "b": said(made.isoflop.b)})
    if isinstance(made.law, LawFit) and made.law.exponents:
        rows.append({"name": "3, law", "a": said(made.law.exponents["a"]), "b": said(made.law.exponents["b"])})
    return rows


def parameters(made: Union[LawFit, Refusal, None]) -> list[dict[str, str]]:
    """Returns the parameters of the law with their intervals."""
    if not isinstance(made, LawFit):
        return []
    why = no_intervals(made)
    rows = [{"name": name, "value": f"{made.values[name]:.10g}", "interval": said(answer, why)} for name, answer in made.parameters.items()]
    for name, answer in made.derived.items():
        rows.append({"name": name, "value": "-" if isinstance(answer, Refusal) else f"{answer.value:.10g}", "interval": said(answer, why)})
    return rows


def no_intervals(made: Union[LawFit, Refusal, None]) -> Optional[str]:
    """Returns why no parameter of the law has an interval, if it is one reason."""
    return missing(made.parameters.values()) if isinstance(made, LawFit) else None


def allocations(made: Union[LawFit, Refusal, None]) -> list[dict[str, str]]:
    """Returns the compute-optimal model at each C."""
    if not isinstance(made, LawFit):
        return []
    rows, why = [], no_intervals(made)
    for at in made.allocations:
        row = {"flops": f"{at.flops:.3g}", "loss": said(at.loss, why, significant=4)}
        row |= {name: said(value, why) for name, value in (("n", at.n), ("d", at.d), ("ratio", at.ratio))}
        kind, message = (at.caution.kind.replace("_", " "), at.caution.message) if at.caution else ("", "")
        rows.append(row | {"caution": kind, "message": message})
    return rows


def proof(made: Union[LawFit, Refusal, None]) -> list[dict[str, str]]:
    """Returns the evidence that the optimum is one."""
    if not isinstance(made, LawFit):
        return []
    rows = [
        ("objective", f"{made.objective} = {made.objective_value:.10g}"),
        ("scaled gradient there, sqrt(g H^-1 g / objective)", f"{made.gradient:.1e}"),
        ("condition number of the column-scaled Jacobian", f"{made.condition:.3g}"),
        ("starts", f"{made.starts:,}; {made.agreeing} of the best agree"),
        ("objective by variable projection", "no linear parameters" if made.projected is None else f"{made.projected:.10g}"),
        ("intervals by", made.resampling),
        ("sampled range", "; ".join(f"{name} {low:.3g} to {high:.3g}" for name, (low, high) in made.sampled.items())),
    ]
    return [{"what": what, "value": value} for what, value in rows]


def budgets(made: Union[Isoflop, Refusal, None]) -> list[dict[str, str]]:
    """Returns the minimum of each IsoFLOP profile."""
    if not isinstance(made, Isoflop):
        return []
    return [
        {
            "flops": f"{b.flops:.3g}",
            "points": str(len(b.n)),
            "n": said(b.n_star),
            "d": said(b.d_star),
            "loss": said(b.loss_star, significant=4),
        }
        for b in made.budgets
    ]
