"""Reads cells as numbers, as people write them: 1e9, 124M, 1.5 B, 1,234,567, 3,59.

A column is read as a whole: whether its commas are decimal or separate thousands is one question, and where its cells do not answer it the
column is refused.
"""

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from lm.errors import UserError
from lm.scaling.tables.formats import RawTable

SUFFIXES = {"k": 1e3, "thousand": 1e3, "m": 1e6, "mm": 1e6, "million": 1e6, "b": 1e9, "bn": 1e9, "g": 1e9, "billion": 1e9, "t": 1e12,
            "trillion": 1e12}  # fmt: skip
_NUMBER = re.compile(r"([+-]?[\d., _']*\d[.,]?(?:e[+-]?\d+)?)\s*([a-z]*)", re.IGNORECASE)
_THOUSANDS = re.compile(r"[+-]?\d{1,3}(?:,\d{3})+")
_EMPTY = ("", "-", "na", "n/a", "none", "null", "nan")


def is_empty(cell: Any) -> bool:
    """Returns whether a cell holds nothing."""
    return cell is None or str(cell).strip().lower() in _EMPTY


def plain(cells: Sequence[Any]) -> np.ndarray | None:
    """Returns numbers [n] where all cells are plain ones, such as 1e9, with NaN for NaN; else None."""
    try:
        return np.array(cells, dtype=float)
    except (TypeError, ValueError):
        return None


def column(table: RawTable, name: str) -> np.ndarray:
    """Returns a column as numbers [n], NaN where a cell is empty.

    Raises:
      UserError: a cell is no number, or the commas of the column could be decimal or separate thousands; the row is named.
    """
    cells = table.columns[name]
    found = plain(cells)
    if found is not None:
        return found
    texts = ["" if is_empty(cell) else str(cell).strip() for cell in cells]
    decimal = _decimal_comma(table, name, texts)
    values = [math.nan if not text else _number(text, decimal) for text in texts]
    wrong = [i for i, value in enumerate(values) if value is None]
    if wrong:
        raise UserError(f"{table.where(wrong[0])}: {name} is {cells[wrong[0]]!r}, not a number; mend the row or leave it out")
    return np.array(values, float)


def _decimal_comma(table: RawTable, name: str, texts: list[str]) -> bool:
    """Returns whether the commas of a column are decimal."""
    bodies = [match[1].strip() for text in texts if "," in text and (match := _NUMBER.fullmatch(text))]
    if not bodies:
        return False
    decimal = [body for body in bodies if _is_decimal(body)]
    grouped = [body for body in bodies if body.count(",") > 1 or ("." in body and body.find(",") < body.find("."))]
    other = grouped or [text for text in texts if decimal and re.search(r"\.(?!\d{3}(\D|$))", text)]  # a point that groups no thousands
    if decimal and other:
        raise UserError(f"{table.source}: column {name!r} writes commas as in {decimal[0]!r} beside {other[0]!r}; write one kind")
    if decimal or grouped:
        return bool(decimal)
    if table.decimal_comma:  # something else separates the cells, and the other columns of such a file have decimal commas
        return any(_plainly_decimal(str(cell)) for cells in table.columns.values() for cell in cells)
    row = next(i for i, text in enumerate(texts) if "," in text)
    raise UserError(
        f"{table.where(row)}: {name} is {texts[row]!r}, which may be {texts[row].replace(',', '.')} or {texts[row].replace(',', '')}; "
        "write it without a comma"
    )


def _is_decimal(body: str) -> bool:
    """Returns whether the one comma of a number can only be decimal."""
    return body.count(",") == 1 and body.rfind(".") < body.find(",") and not _THOUSANDS.fullmatch(body)


def _plainly_decimal(text: str) -> bool:
    return re.fullmatch(r"\s*[+-]?\d+,(\d{1,2}|\d{4,})\s*", text) is not None


def _number(text: str, decimal_comma: bool) -> float | None:
    """Returns the number that a cell says, None if it says none."""
    match = _NUMBER.fullmatch(text)
    if match is None or match[2].lower() not in ("", *SUFFIXES):
        return None
    body = re.sub(r"[ _']", "", match[1])
    body = body.replace(".", "").replace(",", ".") if decimal_comma else body.replace(",", "")
    try:
        return float(body) * SUFFIXES.get(match[2].lower(), 1.0)
    except ValueError:
        return None
