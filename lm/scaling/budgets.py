"""Planned budgets as a table gives them: measured ones, which differ by rounding, are one budget (numpy only)."""

from typing import Optional

import numpy as np

from lm.scaling.results import Caution

TOGETHER = 0.1  # the largest budget of a profile lies above its smallest by less than this share


def grouped(budget: np.ndarray) -> tuple[np.ndarray, Optional[Caution]]:
    """Returns budgets [n] with those within 10% of each other as one, their geometric mean, and says so where any were.

    From the smallest budget on, each value joins the profile whose smallest budget it exceeds by less than 10%. Planned budgets lie
    further apart than this, measured ones of one plan closer together.
    """
    values, rows = np.unique(budget, return_inverse=True)
    first, label = values[0], np.zeros(len(values), int)
    for i, value in enumerate(values[1:], 1):
        label[i] = label[i - 1] + (value >= first * (1 + TOGETHER))
        first = value if label[i] > label[i - 1] else first
    count = int(label[-1]) + 1
    if count == len(values):
        return budget, None
    of_row = label[rows]
    merged = np.exp(np.bincount(of_row, np.log(budget)) / np.bincount(of_row))
    alone = np.bincount(label, minlength=count) == 1  # these keep their value to the last digit
    merged[alone] = values[np.searchsorted(label, np.flatnonzero(alone))]
    apart = max(values[label == i].max() / values[label == i].min() - 1 for i in range(count))
    what = f"{len(values)} values of the budget are read as {count} budgets: those of one differ by {apart:.2%} at most"
    caution = Caution("grouped_budgets", f"{what}, less than {TOGETHER:.0%}")
    return merged[of_row], caution
