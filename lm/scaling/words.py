"""Answers in words (imports no jax)."""

import re
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any, Optional

from lm.scaling.results import Answer, Estimate, encode


def said(value: Answer, known: Optional[str] = None, *, significant: int = 3) -> str:
    """Returns an answer in words. `known` is a reason for a missing interval that the reader was given already."""
    return answer(encode(value), known=known, significant=significant)


def missing(values: Iterable[Answer]) -> Optional[str]:
    """Returns why none of several estimates has an interval, if it is one reason for all."""
    reasons = {value.refused.reason if value.refused else None for value in values if isinstance(value, Estimate)}
    return reasons.pop() if len(reasons) == 1 else None


def digits(value: float, significant: int = 3) -> str:
    """Returns a number with as many significant digits, zeros at the end included."""
    return f"{value:#.{significant}g}".rstrip(".")


def si(value: float, significant: int = 2, zeros: bool = False) -> str:
    """Returns a count in thousands, millions, billions or trillions: 30900 -> '31k', 1.26e6 -> '1.3M', 2.4e9 -> '2.4B'.

    `zeros` keeps zeros at the end: '2.40B'.
    """
    rounded = float(f"{value:.{significant - 1}e}")
    if abs(rounded) >= 1e15:
        return scientific(value)
    for limit, suffix in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(rounded) >= limit:
            return f"{_plain(rounded / limit, significant, zeros)}{suffix}"
    return _plain(rounded, significant, zeros)


def _plain(value: float, significant: int, zeros: bool) -> str:
    text = (f"{value:#.{significant}g}" if zeros else f"{value:.{significant}g}").rstrip(".")
    return f"{float(text):.0f}" if "e+" in text else text


def scientific(value: float, significant: int = 3) -> str:
    """Returns a number in powers of ten: 2e11 -> '2×10¹¹', 1.85e12 -> '1.85×10¹²', 1e12 -> '10¹²'."""
    if value == 0:
        return "0"
    mantissa, exponent = f"{value:.{significant - 1}e}".split("e")
    return _power(mantissa.rstrip("0").rstrip("."), exponent)


def _power(mantissa: str, exponent: str) -> str:
    power = f"10{str(int(exponent)).translate(str.maketrans('0123456789-', '⁰¹²³⁴⁵⁶⁷⁸⁹⁻'))}"
    return power if mantissa == "1" else f"{mantissa}×{power}"


def typeset(text: str) -> str:
    """Returns a text with its numbers such as 1.5e+21 in powers of ten, to the last digit: 1.5×10²¹.

    The id of a run, such as 123456e78901, is no number: a number has one digit before its point.
    """
    return re.sub(r"(?<![\w.])(\d(?:\.\d+)?)e([+-]?\d{1,3})(?!\w)", lambda found: _power(found[1], found[2]), text)


def answer(value: Optional[dict[str, Any]], *, percent: bool = False, known: Optional[str] = None, significant: int = 3) -> str:
    """Returns an Estimate with its interval, or a Refusal with its reason, from the JSON form."""
    if value is None:
        return "not computed"
    if value["type"] == "Refusal":
        return f"refused ({value['kind']}): {value['reason']}"
    scale, unit = (100, "%") if percent else (1, "")
    number = f"{digits(value['value'] * scale, significant)}{unit}"
    if value["low"] is None:
        reason = value["refused"]["reason"] if value["refused"] else "none was made"
        return f"{number} (no interval)" if reason == known else f"{number} (no interval: {reason})"
    low, high = (digits(value[end] * scale, significant) for end in ("low", "high"))
    return f"{number} ({low} to {high}{unit}, {value['level']:.0%})"


def short(text: str) -> str:
    """Returns a text of numbers with their exponents written short: 1.69e10 for 1.69e+10."""
    return re.sub(r"(?<=[\d.])e([+-])0*(\d)", lambda found: f"e{found[1].replace('+', '')}{found[2]}", text)


def folded(messages: Iterable[str], what: str = "caution: ") -> list[str]:
    """Returns the lines of messages, each begun by `what` and folded at 120 columns."""
    folder = textwrap.TextWrapper(120, f"  {what}", "    ", break_on_hyphens=False, break_long_words=False)
    return [line for text in messages for line in folder.wrap(text)]


def aligned(header: Sequence[str], rows: Iterable[Sequence[str]], indent: str = "  ", left: Sequence[int] = ()) -> list[str]:
    """Returns the lines of a table, two spaces between columns, which are flush right but for those that `left` names.

    Exponents are written short.
    """
    every = [list(header), *([short(cell) for cell in row] for row in rows)]
    widths = [max(len(row[i]) for row in every) for i in range(len(header))]
    made = [[cell.ljust(w) if i in left else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))] for row in every]
    return [(indent + "  ".join(row)).rstrip() for row in made]
