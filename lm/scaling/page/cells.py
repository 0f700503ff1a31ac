"""Answers as cells of a table: numbers with intervals, whose level and method stand once a table, and reasons, once a page."""

from collections.abc import Callable
from typing import Optional

from lm.scaling.results import Answer, Estimate, Refusal
from lm.scaling.words import digits, scientific, si

Number = Callable[[float], str]
NONE = "–"


def count(value: float) -> str:
    """Returns parameters or tokens: '24.1M'."""
    return si(value, 3, zeros=True)


def plain(value: float) -> str:
    """Returns a number with three significant digits, with a suffix where they are not enough: '.513' is '0.513', 12345 '12.3k'."""
    return si(value, 3, zeros=True) if abs(value) >= 999.5 else digits(value)


def parameter(value: float) -> str:
    """Returns a parameter of a law, which has no unit to take a suffix: '0.513', '12846', '1.2×10¹³'."""
    size = abs(value)
    if size >= 1e6 or 0 < size < 1e-4:
        return scientific(value)
    return f"{value:.0f}" if size >= 999.5 or size == 0 else digits(value)


def four(value: float) -> str:
    """Returns a loss with four significant digits."""
    return digits(value, 4)


class Reasons:
    """The reasons that a page has given already, alone or within a longer line."""

    def __init__(self, *given: str) -> None:
        self._given = list(given)

    def new(self, reasons: list[str]) -> tuple[str, ...]:
        """Returns those that the page has not given yet, once each, and takes them as given."""
        found = tuple(reason for reason in dict.fromkeys(reasons) if not any(reason in line for line in self._given))
        self._given += found
        return found


class Cells:
    """The cells of one table. It keeps the level and method of their intervals for the caption, and what the notes have to say."""

    def __init__(self, reasons: Reasons) -> None:
        self._reasons = reasons
        self._levels: set[float] = set()
        self._methods: dict[str, None] = {}
        self._notes: dict[str, list[str]] = {}

    def value(self, answer: Optional[Answer], number: Number = plain) -> str:
        """Returns the number alone, or the kind of its refusal."""
        if answer is None:
            return NONE
        if isinstance(answer, Refusal):
            refused = f"refused ({answer.kind.replace('_', ' ')})"
            self._notes.setdefault(refused, []).append(answer.reason)
            return refused
        return number(answer.value)

    def interval(self, answer: Optional[Answer], number: Number = plain) -> str:
        """Returns the ends of the interval; a dash where there is none."""
        if not isinstance(answer, Estimate):
            return NONE
        if answer.low is None or answer.high is None:
            if answer.refused is not None:
                self._notes.setdefault("no interval", []).append(answer.refused.reason)
            return NONE
        self._levels.add(answer.level)
        self._methods[answer.method] = None
        return f"{number(answer.low)} to {number(answer.high)}"

    def both(self, answer: Optional[Answer], number: Number = plain) -> str:
        """Returns the number with its interval in parentheses."""
        value, interval = self.value(answer, number), self.interval(answer, number)
        return value if interval == NONE else f"{value} ({interval})"

    def caption(self, before: str, column: bool = False) -> str:
        """Returns `before` with a sentence on the intervals, which stand in parentheses or in a `column`; as it is where there are none."""
        if not self._levels:
            return before
        level = " and ".join(f"{one:.0%}" for one in sorted(self._levels))
        how = " and ".join(self._methods)
        return f"{before} Intervals: {level}, by {how}." if column else f"{before} In parentheses: {level} intervals by {how}."

    def notes(self) -> tuple[str, ...]:
        """Returns the reasons for refusals and missing intervals that the page has not given yet."""
        found = []
        for kind, reasons in self._notes.items():
            found += [f"{kind}: {reason}" for reason in self._reasons.new(reasons)]
        return tuple(found)
