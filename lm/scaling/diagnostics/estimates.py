"""Checks of the answers themselves: a least loss that anything could be, exponents unlike any published, and optima of absurd shape."""

from collections.abc import Mapping
from typing import Optional

from lm.scaling.diagnostics.plausibility import RATIO
from lm.scaling.results import Answer, Caution, Estimate

WIDE = 2.0  # factor between the ends of the interval of the least loss E
USUAL = (0.3, 0.8)  # exponents a of published fits: Hoffmann .46 to .50, Kaplan .73; Porian's uncorrected setting has .84


def least_loss(parameters: Mapping[str, Answer]) -> Optional[Caution]:
    """Warns where the interval of E leaves open what the least loss is."""
    e = parameters.get("E")
    if not isinstance(e, Estimate) or e.low is None or e.high is None or e.low * WIDE > e.high:
        return None
    return Caution(
        "least_loss", f"E lies anywhere from {max(e.low, 0):.2g} to {e.high:.3g}: losses far beyond the rows are open; add larger runs"
    )


def exponent(name: str, a: Optional[Answer]) -> Optional[Caution]:
    """Warns of an exponent a unlike those of published fits, with what made such exponents there (Porian et al. 2024)."""
    if not isinstance(a, Estimate) or USUAL[0] <= a.value <= USUAL[1]:
        return None
    causes = "rows of undecayed or undertuned learning rates, a warm-up that is long for short runs, or N without the last layer"
    return Caution("unusual", f"a = {a.value:.3g} {name} is unlike published ones (.46 to .73): look for {causes}")


def shapes(ratios: Mapping[float, Answer]) -> Optional[Caution]:
    """Warns of recommended optima whose D* / N*, by C, lies beyond what laws were fitted to."""
    bad = [(c, at.value) for c, at in ratios.items() if isinstance(at, Estimate) and not RATIO[0] <= at.value <= RATIO[1]]
    if not bad:
        return None
    where = ", ".join(f"{c:.3g}" for c, _ in bad[:4]) + (", ..." if len(bad) > 4 else "")
    what = f"the optimum at C {where} has D / N outside {RATIO[0]:g} to {RATIO[1]:,.0f} ({bad[-1][1]:.2g} at {bad[-1][0]:.3g})"
    return Caution("ratio", f"{what}: no run was trained so; check the columns, or the rows near it")
