"""Answers in words (imports no jax)."""

from typing import Any, Optional

from lm.scaling.results import Answer, encode


def said(value: Answer) -> str:
    """Returns an answer in words."""
    return answer(encode(value))


def answer(value: Optional[dict[str, Any]], *, percent: bool = False) -> str:
    """Returns an Estimate with its interval, or a Refusal with its reason, from the JSON form."""
    if value is None:
        return "not computed"
    if value["type"] == "Refusal":
        return f"refused ({value['kind']}): {value['reason']}"
    scale, unit = (100, "%") if percent else (1, "")
    number = f"{value['value'] * scale:.3g}{unit}"
    if value["low"] is None:
        return f"{number} (no interval: {value['refused']['reason'] if value['refused'] else 'none was made'})"
    return f"{number} ({value['low'] * scale:.3g} to {value['high'] * scale:.3g}{unit}, {value['level']:.0%})"
