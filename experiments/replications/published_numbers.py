"""A replication is a list of checks, each of one number against a published one, and how they print (imports no jax).

`published` is what the paper or its repository prints. `target` is the number that ours is compared with: the same one, or the optimum of
the stated objective where the published number is not that.
"""

import math
from typing import Optional, Union

from lm.scaling.results import Refusal, result

WITHIN, AT_MOST, AT_LEAST = "within", "at most", "at least"


@result
class Check:
    """One number. `ours` is None where the analysis refuses to give it; `rule` says how it is compared with `target`."""

    what: str
    published: Optional[float]
    ours: Optional[float]
    target: float
    tolerance: float
    passed: bool
    rule: str


@result
class Replication:
    """The checks of one paper. `notes` are for the reader of its table; `seconds` is the wall time that it took.

    `title`, `source` and `seconds` are filled in by the command.
    """

    name: str
    checks: tuple[Check, ...]
    notes: tuple[str, ...] = ()
    title: str = ""
    source: str = ""
    seconds: Optional[float] = None

    @property
    def passed(self) -> int:
        return sum(check.passed for check in self.checks)


Number = Union[float, Refusal]


def within(what: str, ours: Number, target: float, tolerance: float, published: Optional[float] = None) -> Check:
    """Checks that |ours - target| <= tolerance; a refusal is a miss."""
    if isinstance(ours, Refusal):
        return Check(f"{what}: refused ({ours.kind})", published, None, target, tolerance, False, WITHIN)
    value = _finite(ours)
    passed = value is not None and abs(value - target) <= tolerance
    return Check(what, published, value, float(target), float(tolerance), passed, WITHIN)


def at_most(what: str, ours: Number, target: float, published: Optional[float] = None) -> Check:
    """Checks that ours <= target."""
    return _one_sided(what, ours, target, published, AT_MOST)


def at_least(what: str, ours: Number, target: float, published: Optional[float] = None) -> Check:
    """Checks that ours >= target."""
    return _one_sided(what, ours, target, published, AT_LEAST)


def _one_sided(what: str, ours: Number, target: float, published: Optional[float], rule: str) -> Check:
    if isinstance(ours, Refusal):
        return Check(f"{what}: refused ({ours.kind})", published, None, target, 0.0, False, rule)
    value = _finite(ours)
    passed = value is not None and (value <= target if rule == AT_MOST else value >= target)
    return Check(what, published, value, float(target), 0.0, passed, rule)


def _finite(value: float) -> Optional[float]:
    return float(value) if math.isfinite(value) else None


HEADER = ("", "published", "ours", "target", "tolerance", "ok")


def block(made: Replication) -> str:
    """Returns the text of one paper: title, table, notes."""
    seconds = "" if made.seconds is None else f" ({made.seconds:.1f} s)"
    rows = [HEADER, *(_row(check) for check in made.checks)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADER))]
    lines = ["  " + "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]) for row in rows]
    notes = [f"  note: {note}" for note in made.notes]
    return "\n".join([f"{made.name}: {made.title}{seconds}", *lines, *notes])


def _row(check: Check) -> tuple[str, ...]:
    published, ours = (_number(value, check) for value in (check.published, check.ours))
    if check.rule == WITHIN:
        target, tolerance = _number(check.target, check), f"{check.tolerance:.2g}"
    else:
        target, tolerance = _number(check.target, check), check.rule
    return (check.what, published, ours, target, tolerance, "yes" if check.passed else "MISSED")


def _number(value: Optional[float], check: Check) -> str:
    """Returns a number with one digit more than its tolerance has, or with eight digits where it has none."""
    if value is None:
        return "-"
    if check.rule != WITHIN or check.tolerance <= 0:
        return f"{value:.8g}"
    if check.target == 0 and check.tolerance < 1e-4:
        return f"{value:.1e}" if value else "0"
    places = max(0, 1 - math.floor(math.log10(check.tolerance)))
    return f"{value:.{places}f}" if places <= 12 and abs(value) < 1e9 else f"{value:.6g}"
