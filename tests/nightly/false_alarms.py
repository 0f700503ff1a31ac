"""How often cautions come where the law is true: `python -m tests.nightly.false_alarms [--studies=400]` prints a table.

Studies are simulated as in `tests.nightly.coverage`: the default study's four budgets of seven sizes with the relative standard deviation
.72% of its seeds, and twelve doubling budgets of seven sizes with Porian's sigma(L). Both are fitted by Huber's cost. A caution that comes
in more than 2% of the studies of a design by more than two standard errors makes the exit status 1.

Repeats are judged in studies of their own, in which every cell ran with two seeds that no column names.
"""

import argparse
import collections
import dataclasses
import math
import sys

import numpy as np

from lm.scaling import coverage, diagnostics
from lm.scaling.approaches import isoflop, parametric, profiles
from lm.scaling.diagnostics import agreement, cells, influence, trend
from lm.scaling.intervals import resampling
from lm.scaling.results import Refusal
from lm.scaling.settings import AnalysisSettings
from tests.scaling import known

DRAWS = 119
KINDS = ("lack_of_fit", "disagreement", "curves", "influence", "outliers", "mixed")
DESIGNS = {"own seeds, sigma .72%": known.own_design(), "Porian's sigma(L)": known.porian_design(resampling.PORIAN)}
SETTINGS = AnalysisSettings(n="params", c="6nd", planned_c="table", draws=DRAWS)


def alarms(design, studies):
    """Counts cautions by kind over studies of a true law."""
    counts = collections.Counter()
    base = coverage.fitted(design)
    for study, made in enumerate(coverage.studies_of(base, design.simulate(studies, 0))):
        one = coverage._fitted(made, design, resampling.Rows(), DRAWS, study)
        runs = dataclasses.replace(design.runs, loss=np.exp(made.points.log_loss))
        third = parametric.path_exponents(one, runs)[0]
        profiled = profiles.by_budget(runs)
        second = isoflop.fit_isoflop(profiled, runs, Refusal("no_replicas", ""), dataclasses.replace(SETTINGS, seed=study))[0].a
        found = [trend.lack(one, runs), agreement.approaches(second, third), agreement.curves(profiled, runs, second, "parabola", study)]
        found += influence.checks(one, runs, third)
        found += diagnostics.suspect(runs, design.law)
        counts.update(each.kind for each in found if each is not None)
    return counts


def repeated(design, studies):
    """Counts refusals of repeats that are seeds."""
    twice = design.runs.take(np.repeat(np.arange(len(design.runs)), 2))
    losses = dataclasses.replace(design, runs=twice).simulate(studies, 1)
    return sum(cells.repeats(dataclasses.replace(twice, loss=np.exp(each))) is not None for each in losses)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=400)
    studies = parser.parse_args(argv).studies
    worst, most = 0.0, 0.02 + 2 * math.sqrt(0.02 * 0.98 / studies)
    for name, design in DESIGNS.items():
        counts = alarms(design, studies)
        counts["mixed"] += repeated(design, studies)
        for kind in sorted({*KINDS, *counts}):
            share = counts[kind] / studies
            worst = max(worst, share)
            print(f"{name:24} {kind:14} {share:6.1%}", flush=True)
    return int(worst > most)


if __name__ == "__main__":
    sys.exit(main())
