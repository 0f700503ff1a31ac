"""Renders the analysis of a table in a few lines of text (imports no jax)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Optional, Union

from lm.errors import counted
from lm.scaling.results import Answer, Estimate, Refusal
from lm.scaling.words import aligned, digits, folded, missing, said, short

if TYPE_CHECKING:
    from lm.scaling.approaches.hull import Hull
    from lm.scaling.approaches.isoflop import Isoflop
    from lm.scaling.filters import FilterStep
    from lm.scaling.law_error import WithError
    from lm.scaling.rolling import RollingOrigin
    from lm.scaling.sensitivity import Variant
    from lm.scaling.table_analysis import Allocation, LawFit, TableAnalysis


def render(made: "TableAnalysis") -> str:
    """Renders parameters, exponents and allocations with intervals or refusals, and cautions."""
    lines = [f"{made.source}: {counted(made.count, 'row')}", *filters(made.filters)]
    if isinstance(made.law, Refusal) and made.law == made.isoflop:
        lines.append(f"approaches 2 and 3: {said(made.law)}")
    else:
        lines += [*_isoflop(made.isoflop), *_targets(made), *_law(made.law)]
    lines += [*_hull(made.hull), *rolling(made.rolling), *sensitivity(made.sensitivity)]
    found = [caution for caution in cautions(made) if not any(caution in line for line in lines)]  # a refusal may have said it
    lines += ["cautions:"] if found else []
    lines += folded(found, what="")
    return "\n".join(lines)


def cautions(made: "TableAnalysis") -> list[str]:
    """Returns what a reader of the numbers must know, once each: of the law first, then of approach 2 and the table."""
    law = () if made.law is None or isinstance(made.law, Refusal) else made.law.cautions
    return list(dict.fromkeys(caution.message for caution in (*law, *made.cautions)))


def _hull(made: "Union[Hull, Refusal, None]") -> list[str]:
    if made is None or isinstance(made, Refusal):
        return [f"approach 1 (lower hull): {said(made)}"] if made else []
    return [f"approach 1 (lower hull of {counted(len(made.points), 'row')}): a {made.a:.4g}   b {made.b:.4g}"]


def _isoflop(made: "Union[Isoflop, Refusal, None]") -> list[str]:
    if made is None or isinstance(made, Refusal):
        return [f"approach 2 (IsoFLOP): {said(made)}"] if made else []
    why = missing([made.a, made.b, *(b.n_star for b in made.budgets)])
    both = f"a and b {said(made.a)}" if made.a == made.b else f"a {said(made.a, why)}   b {said(made.b, why)}"  # one refusal
    lines = [f"approach 2 (IsoFLOP): {both}"]
    own = (made.a_with_error, made.b_with_error)
    if all(isinstance(one, Estimate) for one in own):
        a, b = (said(one) for one in own if one is not None)
        lines.append(f"  with the law's own error: a {a}   b {b}")
    lines += [f"  no intervals: {why}"] if why else []
    return lines + [f"  C {b.flops:.3g}: N* {said(b.n_star, why)}" for b in made.budgets]


def _targets(made: "TableAnalysis") -> list[str]:
    """Renders the targets by the minima of approach 2."""
    if not made.isoflop_targets or made.isoflop is None or isinstance(made.isoflop, Refusal):
        return []
    why = missing([made.isoflop.a, made.isoflop.b])
    return ["  by the lines through the minima:", *allocations(made.isoflop_targets, f"no intervals: {why}")]


def _law(made: "Union[LawFit, Refusal, None]") -> list[str]:
    if made is None or isinstance(made, Refusal):
        return [f"approach 3 (law): {said(made)}"] if made else []
    lines = [f"approach 3: {made.equation}", f"  {made.objective} = {made.objective_value:.9g}; intervals by {made.resampling}"]
    lines.append(f"  {made.agreeing} of the best starts agree ({made.starts} in all); condition {made.condition:.2g}{_cross(made)}")
    why = missing([*made.parameters.values(), *made.exponents.values(), *made.derived.values()])
    lines += [f"  no intervals: {why}"] if why else []
    lines += [f"  {name} = {said(value, why)}" for name, value in made.parameters.items()]
    alike = isinstance(made.exponents.get("a"), Refusal) and made.exponents["a"] == made.exponents["b"]
    lines += [f"  a and b of N* ~ C^a, D* ~ C^b = {said(made.exponents['a'])}"] if alike else []
    for name, value in made.exponents.items() if not alike else ():
        what = f"{name} of {'N' if name == 'a' else 'D'}* ~ C^{name}" if name in made.parameters else name  # a law may call a parameter so
        lines.append(f"  {what} = {said(value, why)}{_with_error(made.exponents_with_error.get(name))}")
    lines += [f"  {name} = {said(value, why)}" for name, value in made.derived.items()]
    lines += allocations(made.allocations, f"no intervals: {why}")
    return lines + further(made)


def _with_error(answer: "Optional[Answer]") -> str:
    """Renders an exponent with the law's own error in its interval, to stand behind the statistical one."""
    return "" if answer is None or isinstance(answer, Refusal) else f"; with the law's own error {said(answer)}"


def allocations(made: "Sequence[Allocation]", known: str = "") -> list[str]:
    """Renders the compute-optimal models at several C as a table, and below it what was refused and how far it extrapolates.

    `known` is a line that the reader was given already.
    """
    if not made:
        return []
    lines, reasons = _allocated(made, made)
    own = [at.with_error for at in made]
    if any(own):
        further, others = _allocated(made, own)
        lines += ["  the same with the law's own error in the intervals:", *further]
        reasons |= others
    reasons.pop(known, None)
    far = [at.caution for at in made if at.caution and at.caution.kind != "extrapolation"]
    return lines + [f"  {reason}" for reason in reasons] + folded(caution.message for caution in far[-1:])


def _allocated(at: "Sequence[Allocation]", values: "Sequence[Union[Allocation, WithError, None]]") -> tuple[list[str], dict[str, None]]:
    """Returns the lines of a table of optima, and what was refused."""
    kept = [(one, value) for one, value in zip(at, values, strict=True) if value is not None]
    every = [answer for _, one in kept for answer in (one.n, one.d, one.loss, one.ratio) if isinstance(answer, Estimate)]
    levels = {answer.level for answer in every if answer.low is not None}
    level = f" ({levels.pop():.0%})" if len(levels) == 1 else ""
    rows: list[list[str]] = []
    reasons: dict[str, None] = {}
    for one, value in kept:
        cells = [(value.n, 3), (value.d, 3), (value.loss, 4), (value.ratio, 3)]
        rows.append([short(f"{one.flops:.3g}"), *(_cell(answer, digits) for answer, digits in cells), _outside(one)])
        reasons |= {reason: None for answer, _ in cells if (reason := _reason(answer))}
    return aligned(["C", f"N*{level}", f"D*{level}", f"loss{level}", f"D/N{level}", "outside"], rows), reasons


def _cell(answer: "Optional[Answer]", significant: int) -> str:
    if answer is None:
        return "-"
    if isinstance(answer, Refusal):
        return f"refused ({answer.kind})"
    low, high = answer.low, answer.high
    span = "" if low is None or high is None else f" ({digits(low, significant)} to {digits(high, significant)})"
    return short(f"{digits(answer.value, significant)}{span}")


def _reason(answer: "Optional[Answer]") -> str:
    if answer is None:
        return ""
    if isinstance(answer, Refusal):
        return said(answer)
    return f"no intervals: {answer.refused.reason}" if answer.refused else ""


def _outside(at: "Allocation") -> str:
    """Returns by how much C lies outside the sampled compute, as its caution says."""
    return "" if at.caution is None else at.caution.kind.replace("_extrapolation", "").replace("extrapolation", "a little")


def filters(made: "tuple[FilterStep, ...]") -> list[str]:
    """Renders the fits before and after each filter, and what a rule left out."""
    lines = ["filters, and the fit to the rows that are left:"] if made else []
    for step in made:
        count = f"  {step.name}: {counted(step.kept, 'row')}" + (f" ({step.dropped} left out)" if step.dropped else "")
        found = [] if step.values is None else [said(step.values) if isinstance(step.values, Refusal) else _values(step.values)]
        found += [] if step.a is None else [f"a {step.a:.4g}"]
        found += [] if step.a_minima is None else [f"a {step.a_minima:.4g} by minima"]
        lines += ["; ".join([count, *found]), *(f"    left out, {why}" for why in step.why)]
    return lines


def further(made: "LawFit") -> list[str]:
    """Renders the density of log loss and the intervals by profile."""
    lines = []
    if isinstance(made.likelihood, Refusal):
        lines.append(f"  likelihood: {said(made.likelihood)}")
    elif made.likelihood is not None:
        one = made.likelihood
        lines.append(f"  {one.distribution}: {_values(one.values)}; scale {one.scale:.3%}, AICc {one.aicc:.1f}")
    for profile in made.profiles:
        method = profile.answer.method if isinstance(profile.answer, Estimate) else "profile"
        lines.append(f"  {profile.name} = {said(profile.answer)} by the {method}")
    return lines


def rolling(made: "Union[RollingOrigin, Refusal, None]") -> list[str]:
    """Renders the prediction of the rows beyond each compute."""
    if made is None or isinstance(made, Refusal):
        return [f"rolling origin: {said(made)}"] if made else []
    from lm.scaling.rolling import Skipped

    rows, refused = [], []
    target = next((at.target for at in made if not isinstance(at, Skipped)), None)
    for at in made:
        if isinstance(at, Skipped):
            refused.append(f"  up to C {at.cut:.3g}, {counted(at.rows, 'row')}: {said(at.why)}")
            continue
        row = [short(f"{at.cut:.3g}"), f"{at.rows}", f"{at.next_absolute_error:.2%}", f"{at.rest_absolute_error:.2%}"]
        chosen = (at.a, at.n_star, at.n_star_all, at.regret, at.deadweight)
        forms = ("{:.3f}", "{:.3g}", "{:.3g}", "{:.2%}", "{:.1%}")
        rows.append(row + ["-" if value is None else short(form.format(value)) for form, value in zip(forms, chosen, strict=True)])
    header = ["up to C", "rows", "next rows off", "all beyond off", "a", "its N*", "N* of all", "loss higher", "compute wasted"]
    lines = ["rolling origin: fitted up to each compute, held against the rows beyond", *refused]
    if target is not None:
        lines.append(
            f"  at C {target:.3g}: the N* of each fit and of all rows, how much higher the loss of the former is, and the compute wasted"
        )
    return [*lines, *aligned(header, rows)]


def sensitivity(made: "Sequence[Variant]") -> list[str]:
    """Renders the exponent a under one change at a time."""
    if not made:
        return []
    rows = []
    for one in made:
        moved = "" if one.difference is None else f"{one.difference:+.3f}"
        rows.append([f"{one.approach}", one.what, one.choice, f"{one.rows}", _cell(one.a, 3), moved, "outside" if one.outside else ""])
    levels = {one.a.level for one in made if isinstance(one.a, Estimate)}
    header = ["approach", "change", "to", "rows", f"a ({levels.pop():.0%})" if len(levels) == 1 else "a", "difference", "interval"]
    lines = ["sensitivity of a (N* ~ C^a) to one change at a time from the analysis as chosen:", *aligned(header, rows, left=(1, 2))]
    return lines + list(dict.fromkeys(f"  {said(one.a)}" for one in made if isinstance(one.a, Refusal)))


def _values(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in values.items())


def _cross(made: "LawFit") -> Optional[str]:
    if made.projected is None or made.objective_value == 0:  # every point lies on the law: there is no objective to compare
        return ""
    return f"; variable projection reaches {made.projected / made.objective_value - 1:+.1e} of the objective"
