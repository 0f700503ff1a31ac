"""Answers in words (imports no jax)."""

import re
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
    return re.sub(r"e([+-])0*(\d)", lambda found: f"e{found[1].replace('+', '')}{found[2]}", text)


def aligned(header: Sequence[str], rows: Iterable[Sequence[str]], indent: str = "  ", left: Sequence[int] = ()) -> list[str]:
    """Returns the lines of a table, two spaces between columns, which are flush right but for those that `left` names."""
    every = [list(header), *(list(row) for row in rows)]
    widths = [max(len(row[i]) for row in every) for i in range(len(header))]
    made = [[cell.ljust(w) if i in left else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))] for row in every]
    return [(indent + "  ".join(row)).rstrip() for row in made]
