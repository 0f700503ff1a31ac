"""Checks of a fitted law's optimum."""

from typing import TYPE_CHECKING, Optional

from lm.scaling.diagnostics.found import Found
from lm.scaling.results import Caution

if TYPE_CHECKING:
    from lm.scaling.fitted_law import FittedLaw


def projection(made: "FittedLaw") -> Optional[Found]:
    """Warns where variable projection ends at another objective than the fit."""
    if made.projected is None or abs(made.projected.value - made.fit.value) <= 1e-6 * made.fit.value + 1e-22:
        return None
    share = made.projected.value / made.fit.value - 1
    return Caution(
        "starts_disagree", f"variable projection ends at another objective ({share:+.1e}): add rows, or fit a law of fewer parameters"
    )
