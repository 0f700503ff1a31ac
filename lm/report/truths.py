"""Table rows of a truth that is known."""

from lm.analysis.known import Known
from lm.report.texts import number


def rows(known: Known) -> list[dict[str, str]]:
    """The table of the exponents: fitted to the losses, to the losses less the truth, and of ideal learners."""
    table = []
    for name in ("alpha", "beta"):
        fitted, above = getattr(known, name), known.reducible[name]
        table.append({"name": name, "fitted": number(fitted), "above": number(above), "ideal": f"{known.ideal[name]:.2f}"})
    return table
