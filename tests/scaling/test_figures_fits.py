"""Figures of a table: each approach is drawn where it has numbers and left out where it was refused or not asked for."""

import dataclasses

import numpy as np
import pytest

from lm.scaling import runs
from lm.scaling.approaches import hull
from lm.scaling.fits import solver
from lm.scaling.laws.law import Chinchilla
from lm.scaling.page import figures
from lm.scaling.results import Caution, Estimate, Refusal
from lm.scaling.table_analysis import Allocation, FittedPoint, LawFit, TableAnalysis
from tests.scaling import known

NAMES = ("A", "B", "E", "alpha", "beta")


def table():
    """Twelve budgets by seven sizes, exact losses of a known law."""
    c = np.repeat(np.geomspace(1e18, 1e21, 12), 7)
    n = np.tile(np.geomspace(0.25, 4, 7), 12) * 0.1 * (c / 6) ** 0.5
    loss = solver.loss(Chinchilla(), np.array(known.EPOCH), np.stack([n, c / 6 / n], axis=1))
    return runs.from_frame({"N": n, "D": c / 6 / n, "C": c, "loss": loss}, runs.Columns(budget="C"))


def law_of(made):
    """A typed fit without fitting: the true parameters, one allocation with an interval and one without."""
    columns = zip(made.run, made.n.tolist(), made.d.tolist(), made.c.tolist(), made.loss.tolist(), strict=True)
    points = tuple(FittedPoint(run, {"N": n, "D": d}, c, loss, loss, 0.0) for run, n, d, c, loss in columns)

    def answer(value, half):
        return Estimate(value, value * (1 - half), value * (1 + half), 0.8, "test") if half else Estimate(value, None, None, 0.8, "test")

    places = tuple(
        Allocation(c, answer(n, half), answer(c / 6 / n, half), answer(2.5, 0), answer(20.0, 0), Caution("extrapolation", "far"))
        for c, n, half in ((1e18, 8e7, 0.1), (1e21, 2.6e9, 0))
    )
    sampled = {"N": (float(made.n.min()), float(made.n.max())), "D": (float(made.d.min()), float(made.d.max()))}
    values = dict(zip(NAMES, known.EPOCH, strict=True))
    return LawFit(
        "Chinchilla", "", "", "", values, {}, {}, places, "test", 0.0, None, 0.0, 1.0, 1, 1, sampled, points, ()
    )  # fmt: skip


def analysis(law, isoflop, lower):
    return TableAnalysis(1, "table", {}, 84, law, isoflop, lower, (), {})


def test_what_was_refused_or_not_asked_for_is_left_out():
    refused = Refusal("too_few_points", "three rows")
    assert figures.of(analysis(refused, None, refused)) == {}


def test_the_same_data_gives_the_same_bytes(tmp_path):
    lower = hull.fit_hull(table())
    for name in ("one", "two"):
        figures.hull(tmp_path / name, lower, None)
    for kind in ("png", "svg"):
        assert (tmp_path / f"one.{kind}").read_bytes() == (tmp_path / f"two.{kind}").read_bytes()


@pytest.mark.parametrize("law", ["DataConstrained", "MyOwn"])
def test_a_law_of_other_inputs_or_of_ones_own_has_no_contours(law):
    made = dataclasses.replace(law_of(table()), law=law, allocations=())
    made = dataclasses.replace(made, sampled=made.sampled | ({"U": (1.0, 2.0)} if law == "DataConstrained" else {}))
    made = dataclasses.replace(made, points=tuple(dataclasses.replace(p, inputs=p.inputs | {"U": 1.5}) for p in made.points))
    assert list(figures.of(analysis(made, None, None))) == ["residuals"]
