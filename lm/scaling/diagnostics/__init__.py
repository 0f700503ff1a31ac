"""Diagnostics of a table and its fits: a Refusal where no number should stand, a Caution where one stands that needs care.

`before` examines the rows, `after` the fitted law, `answers` the numbers that it gives, `minima` and `exponents` approach 2,
`extrapolation` a compute. Each message says what is wrong and what would suffice. A check is one small function that returns what it
found, or None.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Optional

from lm.scaling.diagnostics import agreement, cells, estimates, fit, influence, kinds, plausibility, rows, trend
from lm.scaling.diagnostics.extrapolation import extrapolation
from lm.scaling.diagnostics.found import Found
from lm.scaling.diagnostics.profiles import centred, minima, off_budget
from lm.scaling.diagnostics.rows import mid_schedule
from lm.scaling.fitted_law import rising, spans
from lm.scaling.results import Answer, Caution, Estimate, Refusal
from lm.scaling.runs import Runs

if TYPE_CHECKING:
    from lm.scaling.approaches.isoflop import Isoflop
    from lm.scaling.approaches.profiles import Profile
    from lm.scaling.fitted_law import FittedLaw
    from lm.scaling.intervals.profile_likelihood import ProfileInterval
    from lm.scaling.laws.law import Law

__all__ = [
    "Found",
    "after",
    "answers",
    "before",
    "conditions",
    "exponents",
    "extrapolation",
    "mid_schedule",
    "minima",
    "off_budget",
    "suspect",
]


def conditions(runs: Runs) -> tuple[Found, ...]:
    """Diagnoses what rows of equal inputs are: seeds, a sweep or conditions, or one row twice. Approach 2 reads them too."""
    checks = (*runs.cautions, cells.twice(runs), cells.repeats(runs), cells.duplicates(runs), cells.tokens(runs))
    return tuple(found for found in checks if found is not None)


def suspect(runs: Runs, law: "Law") -> tuple[Found, ...]:
    """Diagnoses what concerns every approach: values that cannot be what their column's name says, and rows of equal inputs."""
    return (*plausibility.values(runs, law), *conditions(runs))


def before(runs: Runs, law: "Law") -> tuple[Found, ...]:
    """Diagnoses the rows themselves, whatever the fit."""
    k = len(law.names)
    checks = (
        *suspect(runs, law), rows.count(runs, k), rows.one_budget(runs, law),
        *spans(runs, law), mid_schedule(runs), rows.conventions(runs), rows.curves(runs),
    )  # fmt: skip
    return tuple(found for found in checks if found is not None)


def after(made: "FittedLaw", runs: Runs, profiled: "tuple[ProfileInterval, ...]" = ()) -> tuple[Found, ...]:
    """Diagnoses the fitted law; `profiled` are the profiles that were made of it."""
    found: list[Found] = list(made.fit.cautions)
    found += [Caution("unidentified", interval.answer.reason) for interval in profiled if isinstance(interval.answer, Refusal)]
    found += [refused for refused in (rising(made), fit.projection(made)) if refused]
    found += centred(made, runs)
    return tuple(found)


def answers(
    made: "FittedLaw", runs: Runs, parameters: Mapping[str, Answer], a: Optional[Answer], ratios: Mapping[float, Answer]
) -> tuple[Caution, ...]:
    """Diagnoses the numbers that a fitted law gives, and the rows on which they hang. `ratios` are D* / N* by C."""
    found = [estimates.least_loss(parameters), estimates.exponent("by the law", a), estimates.shapes(ratios)]
    return support(made, runs, a) + tuple(one for one in found if one is not None)


def support(made: "FittedLaw", runs: Runs, a: Optional[Answer]) -> tuple[Caution, ...]:
    """Diagnoses what the rows say of the law: kinds of rows, a trend in the residuals, and rows on which its exponent `a` hangs."""
    found = [kinds.split(made, runs) or trend.lack(made, runs) or kinds.scatter(made)]
    found += influence.checks(made, runs, a) if isinstance(a, Estimate) else []
    return tuple(one for one in found if one is not None)


def exponents(
    made: "Isoflop", profiles: "Sequence[Profile]", third: Optional[Answer], cells: Runs, curve: str, seed: int = 0
) -> tuple[Caution, ...]:
    """Diagnoses the exponent of approach 2, of `profiles` and a `curve`, beside that of approach 3 where there is one."""
    found = [estimates.exponent("by IsoFLOP minima", made.a), agreement.curves(profiles, cells, made.a, curve, seed)]
    found += [agreement.approaches(made.a, third)] if third is not None else []
    return tuple(one for one in found if one is not None)
