"""Checks of how far beyond the rows a question lies."""

import math
from typing import Optional

from lm.scaling.results import Caution

STEPS = ((3.0, "extrapolation"), (30.0, "far_extrapolation"), (math.inf, "extreme_extrapolation"))  # factor beyond the sampled range


def kind_of(factor: float) -> str:
    """Returns the kind of the caution for what lies outside the sampled range by a factor."""
    return next(name for limit, name in STEPS if factor <= limit)


def extrapolation(flops: float, sampled: tuple[float, float]) -> Optional[Caution]:
    """Returns a caution for C beyond the sampled compute, of a kind that grows with the distance; None within."""
    low, high = sampled
    factor = max(flops / high, low / flops)
    if factor <= 1 + 1e-9:
        return None
    kind = kind_of(factor)
    words = {"extrapolation": "a little", "far_extrapolation": "far", "extreme_extrapolation": "more than 30 times"}[kind]
    side = "above" if flops > high else "below"
    where = f"C {flops:.3g} is {factor:.3g} times {side} the sampled compute ({low:.3g} to {high:.3g}), {words} outside it"
    return Caution(kind, f"{where}: the interval holds only if the law does; add runs within a factor 3 of it")
