"""The page of a design's power, which `python -m lm.scaling power ... --report=FILE.html` writes."""

import dataclasses
import functools
import pathlib
from typing import Any, Union

import numpy as np

from lm.errors import counted
from lm.scaling.coverage import Design
from lm.scaling.page import cells, document
from lm.scaling.page.cells import Reasons
from lm.scaling.page.document import Document, Figure, Section, Table, Written
from lm.scaling.page.provenance import Provenance
from lm.scaling.page.table_page import SYMBOLS
from lm.scaling.planning.power import IsoflopPower, Power
from lm.scaling.results import Refusal
from lm.scaling.words import scientific

_CAPTION = (
    "Left: the planned runs, and N* by the prior law with the standard deviation that minima of IsoFLOP profiles (blue) and a fitted law "
    "(green) are expected to have. Right: that standard deviation; hollow marks lie beyond the design."
)


def write(path: pathlib.Path, made: Power, design: Design, provenance: Provenance, settings: dict[str, str], title: str = "") -> Written:
    """Writes the page of a design's power, and the files of its figure."""
    return document.write(path, page(made, design, provenance, settings, title))


def page(made: Power, design: Design, provenance: Provenance, settings: dict[str, str], title: str = "") -> Document:
    """Returns the page of a design's power."""
    from lm.scaling.page import power_figure

    reasons = Reasons()
    missing = [part.reason for part in (made.sd, made.log_n_sd, made.isoflop) if isinstance(part, Refusal)]
    refused = reasons.new(missing)
    parts = (Figure("design", _CAPTION, functools.partial(power_figure.draw, made=made, design=design)), _exponent(made))
    sections = [Section("Power", parts)]
    if isinstance(made.isoflop, IsoflopPower):
        sections.append(Section("IsoFLOP minima", (_budgets(made.isoflop),)))
    sections.append(Section("Beyond the design", (_targets(made, reasons),)))
    values = ", ".join(f"{name} = {value:.6g}" for name, value in zip(design.law.names, design.values.tolist(), strict=True))
    name = f"a design of {counted(made.rows, 'run')}" if provenance.sha256 == "" else pathlib.Path(provenance.source).name
    summary = f"{made.rows} planned runs of {scientific(made.flops)} FLOPs in all. {SYMBOLS}"
    read = (
        tuple(one for one in provenance.columns if one.name != "loss") if provenance.sha256 else ()
    )  # a plan has no losses, a grid no table
    provenance = dataclasses.replace(provenance, columns=read)
    known = {"prior law": getattr(design.law, "equation", ""), "its parameters": values} | settings
    return Document(title or f"Power of {name}", summary, refused, (), tuple(sections), provenance, known)


def _exponent(made: Power) -> Table:
    iso = made.isoflop
    rows = [("law, fitted to all runs", f"{made.exponent:.4f}", _sd(made.sd), "")]
    if isinstance(iso, IsoflopPower):
        rows.append(("IsoFLOP minima", f"{iso.exponent:.4f}", f"{iso.sd:.4f}", f"{iso.interior:.1%}"))
    caption = "The exponent a of N* ~ C^a that the design is expected to find."
    return Table(("by", "mean of a", "standard deviation of a", "every optimum within its sizes"), tuple(rows), caption)


def _budgets(made: IsoflopPower) -> Table:
    rows = [(scientific(b.budget), str(b.sizes), cells.count(b.n_star), f"{b.interior:.1%}", _relative(b.sd)) for b in made.budgets]
    head = ("C (FLOPs)", "sizes", "N*", "minimum within them", "standard deviation of log N*")
    return Table(head, tuple(rows), f"The minima of each budget over {made.studies:,} simulated studies.")


def _targets(made: Power, reasons: Reasons) -> Table:
    rows, refused = [], []
    for at in made.targets:
        refused += [f"refused ({one.kind}): {one.reason}" for one in (at.sd, at.isoflop_sd) if isinstance(one, Refusal)]
        shift = cells.NONE if at.isoflop_shift is None else f"{np.expm1(at.isoflop_shift):+.1%}".replace("-", "−")
        rows.append((scientific(at.flops), cells.count(at.n_star), _relative(at.sd), _relative(at.isoflop_sd), shift))
    known = [one for one in dict.fromkeys(refused) if one.partition(": ")[2] not in _given(made)]
    head = ("C (FLOPs)", "N*", "by the law", "by the minima", "their bias")
    return Table(head, tuple(rows), "Standard deviation of log N* at compute that the design does not reach.", reasons.new(known))


def _given(made: Power) -> set[str]:
    return {part.reason for part in (made.sd, made.log_n_sd, made.isoflop) if isinstance(part, Refusal)}


def _relative(value: Union[float, Refusal, Any]) -> str:
    return f"refused ({value.kind})" if isinstance(value, Refusal) else f"{value:.1%}"


def _sd(value: Union[float, Refusal]) -> str:
    return f"refused ({value.kind})" if isinstance(value, Refusal) else f"{value:.4f}"
