"""Diagnostics of a table and its fits: a Refusal where no number should stand, a Caution where one stands that needs care.

`before` examines the rows, `after` the fitted law, `minima` those of approach 2, `extrapolation` a compute. Each message says what is
wrong and what would suffice. A check is one small function that returns what it found, or None.
"""

from typing import TYPE_CHECKING

from lm.scaling.diagnostics import fit, rows
from lm.scaling.diagnostics.extrapolation import extrapolation
from lm.scaling.diagnostics.found import Found
from lm.scaling.diagnostics.profiles import centred, minima, off_budget
from lm.scaling.diagnostics.rows import mid_schedule
from lm.scaling.fitted_law import rising, spans
from lm.scaling.results import Caution, Refusal
from lm.scaling.runs import Runs

if TYPE_CHECKING:
    from lm.scaling.fitted_law import FittedLaw
    from lm.scaling.intervals.profile_likelihood import ProfileInterval
    from lm.scaling.laws.law import Law

__all__ = ["Found", "after", "before", "extrapolation", "mid_schedule", "minima", "off_budget"]


def before(runs: Runs, law: "Law") -> tuple[Found, ...]:
    """Diagnoses the rows themselves, whatever the fit."""
    k = len(law.names)
    checks = (
        rows.count(runs, k), rows.one_budget(runs, law), *spans(runs, law), mid_schedule(runs), rows.conventions(runs), rows.curves(runs),
    )  # fmt: skip
    return tuple(found for found in checks if found is not None)


def after(made: "FittedLaw", runs: Runs, profiled: "tuple[ProfileInterval, ...]" = ()) -> tuple[Found, ...]:
    """Diagnoses the fitted law; `profiled` are the profiles that were made of it."""
    found: list[Found] = list(made.fit.cautions)
    found += [Caution("unidentified", interval.answer.reason) for interval in profiled if isinstance(interval.answer, Refusal)]
    found += [refused for refused in (rising(made), fit.projection(made)) if refused]
    found += centred(made, runs)
    return tuple(found)
