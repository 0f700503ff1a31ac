"""Renders the analysis of a table in a few lines of text (imports no jax)."""

from typing import TYPE_CHECKING, Optional, Union

from lm.scaling.results import Answer, Refusal, encode
from lm.scaling.words import answer

if TYPE_CHECKING:
    from lm.scaling.approaches.hull import Hull
    from lm.scaling.approaches.isoflop import Isoflop
    from lm.scaling.table_analysis import LawFit, TableAnalysis


def render(made: "TableAnalysis") -> str:
    """Renders parameters, exponents and allocations with intervals or refusals, and cautions."""
    lines = [f"{made.source}: {made.count} rows", *_hull(made.hull), *_isoflop(made.isoflop), *_law(made.law)]
    lines += [f"caution: {caution.message}" for caution in made.cautions]
    return "\n".join(lines)


def said(value: Answer) -> str:
    return answer(encode(value))


def _hull(made: "Union[Hull, Refusal, None]") -> list[str]:
    if made is None or isinstance(made, Refusal):
        return [f"approach 1 (lower hull): {said(made)}"] if made else []
    return [f"approach 1 (lower hull of {len(made.points)} rows): a {made.a:.4g}   b {made.b:.4g}"]


def _isoflop(made: "Union[Isoflop, Refusal, None]") -> list[str]:
    if made is None or isinstance(made, Refusal):
        return [f"approach 2 (IsoFLOP): {said(made)}"] if made else []
    lines = [f"approach 2 (IsoFLOP): a {said(made.a)}   b {said(made.b)}"]
    return lines + [f"  C {b.flops:.3g}: N* {said(b.n_star)}" for b in made.budgets]


def _law(made: "Union[LawFit, Refusal, None]") -> list[str]:
    if made is None or isinstance(made, Refusal):
        return [f"approach 3 (law): {said(made)}"] if made else []
    lines = [f"approach 3: {made.equation}", f"  {made.objective} = {made.objective_value:.9g}; intervals by {made.resampling}"]
    lines.append(f"  {made.agreeing} of the best starts agree ({made.starts} in all); condition {made.condition:.2g}{_cross(made)}")
    lines += [f"  {name} = {said(value)}" for name, value in (made.parameters | made.exponents).items()]
    for at in made.allocations:
        marked = f"   [{at.caution.message}]" if at.caution else ""
        lines.append(f"  C {at.flops:.3g}: N* {said(at.n)}   D* {said(at.d)}   loss {said(at.loss)}   D/N {said(at.ratio)}{marked}")
    return lines + [f"  caution: {caution.message}" for caution in made.cautions]


def _cross(made: "LawFit") -> Optional[str]:
    if made.projected is None:
        return ""
    return f"; variable projection reaches {made.projected / made.objective_value - 1:+.1e} of the objective"
