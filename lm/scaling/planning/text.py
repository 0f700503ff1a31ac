"""Renders plans and powers in a few lines of text (imports no jax)."""

from typing import TYPE_CHECKING, Union

from lm.errors import counted
from lm.scaling import table_summary
from lm.scaling.results import Refusal
from lm.scaling.words import aligned, folded, said, short

if TYPE_CHECKING:
    from lm.scaling.planning.cells import NextCells
    from lm.scaling.planning.optimum import IsoLoss, Serving
    from lm.scaling.planning.power import Power, TargetPower
    from lm.scaling.planning.table_plan import TablePlan


def plan(made: "Union[TablePlan, Refusal]") -> str:
    """Renders the answers to the questions of a plan."""
    if isinstance(made, Refusal):
        return f"no plan: {said(made)}"
    lines = [f"{made.source}: {counted(made.count, 'row')}; {made.equation}; intervals by {made.resampling}"]
    lines += table_summary.allocations(made.allocations)
    for one in made.servings:
        lines += _serving(one)
    for curve in made.curves:
        lines += _curve(curve)
    if made.next_cells is not None:
        lines += _cells(made.next_cells)
    return "\n".join(lines + folded(caution.message for caution in made.cautions))


def _serving(made: "Union[Serving, Refusal]") -> list[str]:
    if isinstance(made, Refusal):
        return [f"  {said(made)}"]
    asked = f"loss {made.loss:g} and {made.inference_tokens:.3g} tokens read"
    lines = [f"  {asked}: N {said(made.n)}   D {said(made.d)}   D/N {said(made.ratio)}"]
    lines.append(f"    FLOPs {said(made.total)}: training {said(made.training)}, inference {said(made.inference)}")
    lines.append(f"    the model that trains cheapest takes {said(made.premium)} times as many in all")
    return lines + ([f"    [{made.caution.message}]"] if made.caution else [])


def _curve(made: "IsoLoss") -> list[str]:
    if not made.n:
        return [f"  loss {made.loss:g}: out of reach of the fitted law"]
    lines = [f"  loss {made.loss:g}:", f"    {'N':>10s} {'D':>10s} {'C':>10s}"]
    return lines + [f"    {n:10.3e} {d:10.3e} {c:10.3e}" for n, d, c in zip(made.n, made.d, made.flops, strict=True)]


def _cells(made: "Union[NextCells, Refusal]") -> list[str]:
    if isinstance(made, Refusal):
        return [f"  next cells: {said(made)}"]
    shrunk = f"with {made.spent:.3g} more FLOPs its interval shrinks to {made.shrinks_to:.0%}"
    lines = [f"  N* at C {made.flops:.3g} is {said(made.n_star)}; {shrunk}"]
    lines.append(f"    noise of a run: {made.sigma}; runs to add, the most helpful first, and the width of the interval after each:")
    return lines + [f"    N {cell.n:9.2e}   D {cell.d:9.2e}   C {cell.flops:9.2e}   {cell.shrinks_to:5.0%}" for cell in made.cells]


def power(made: "Power") -> str:
    """Renders the predicted power of a design."""
    lines = [f"{counted(made.rows, 'run')}, {made.flops:.3g} FLOPs; the prior law has a = {made.exponent:.4f}"]
    lines.append(
        f"  law fitted to all runs:  standard deviation of a {_number(made.sd)}, of log N* at the largest budget {_number(made.log_n_sd)}"
    )
    iso = made.isoflop
    if isinstance(iso, Refusal):
        lines.append(f"  IsoFLOP minima: {said(iso)}")
    else:
        shift = f"mean {_shift(iso.exponent - made.exponent)} from the law's"
        lines.append(f"  IsoFLOP minima:          standard deviation of a {iso.sd:.4f}, {shift}; every optimum interior {iso.interior:.1%}")
        rows = [[short(f"{b.budget:.3g}"), f"{b.sizes}", short(f"{b.n_star:.3g}"), f"{b.interior:.1%}", f"{b.sd:.3f}"] for b in iso.budgets]
        lines += aligned(["C", "sizes", "N*", "interior", "sd of log N*"], rows, indent="    ")
    lines.append("  beyond the design, standard deviation of log N*:")
    rows = [[short(f"{t.flops:.3g}"), short(f"{t.n_star:.3g}"), _or_refused(t.sd), *_by_minima(t)] for t in made.targets]
    return "\n".join([*lines, *aligned(["C", "N*", "by the law", "by the minima", "their bias"], rows, indent="    ")])


def _by_minima(made: "TargetPower") -> tuple[str, str]:
    return _or_refused(made.isoflop_sd), "-" if made.isoflop_shift is None else _shift(made.isoflop_shift)


def _or_refused(value: "Union[float, Refusal]") -> str:
    return f"refused ({value.kind})" if isinstance(value, Refusal) else f"{value:.4f}"


def _shift(value: float) -> str:
    return f"{round(value, 4) + 0.0:+.4f}"  # no -0.0000


def _number(value: "Union[float, Refusal]") -> str:
    return said(value) if isinstance(value, Refusal) else f"{value:.4f}"
