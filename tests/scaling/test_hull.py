"""Approach 1 from a table: the hull's geometry, and the exponents it gives."""

import os
import pathlib

import numpy as np
import pytest

from lm.scaling.approaches.hull import fit_hull, lower_hull
from lm.scaling.results import Refusal
from lm.scaling.runs import Columns, from_frame, read_table

DATA = pathlib.Path(os.environ.get("SCALING_DATA", pathlib.Path(__file__).parents[3] / "shared" / "scaling_data"))
GEMSTONES = DATA / "gemstones"
ABSENT = f"{GEMSTONES} is not there (SCALING_DATA names another folder); its source is github.com/mcleish7/gemstone-scaling-laws"


def test_no_point_lies_below_the_hull():
    random = np.random.default_rng(0)
    x, y = random.uniform(0, 5, 300), random.uniform(0, 1, 300)
    y += (x - 5) ** 2 / 5
    index = lower_hull(x, y)
    assert np.all(np.diff(x[index]) > 0)
    assert np.all(np.diff(y[index]) < 0)
    assert np.all(np.diff(np.diff(y[index]) / np.diff(x[index])) > 0)  # convex
    inside = (x >= x[index[0]]) & (x <= x[index[-1]])
    assert np.all(y[inside] >= np.interp(x[inside], x[index], y[index]) - 1e-12)


def curves(sizes):
    """Loss curves of E + A / N^a + B / D^a at each size: N* ~ C^.5."""
    n, d = (v.ravel() for v in np.meshgrid(np.geomspace(1e8, 1e10, sizes), np.geomspace(1e8, 1e10, 400)))
    return from_frame({"N": n, "D": d, "loss": 1.7 + 400 / n**0.3 + 400 / d**0.3}, Columns())


def test_the_hull_of_many_curves_grows_as_the_law_says():
    """60 sizes: neighbours on the hull are 8% apart, and the ends bend the line by about 1%."""
    made = fit_hull(curves(60))
    assert made.sizes > 20
    assert made.a == pytest.approx(0.5, abs=0.02)
    assert made.a + made.b == pytest.approx(1, abs=1e-9)


def test_a_hull_of_few_sizes_is_refused():
    made = fit_hull(curves(2))
    assert isinstance(made, Refusal)
    assert made.kind == "too_few_points"


@pytest.mark.skipif(not GEMSTONES.exists(), reason=ABSENT)
@pytest.mark.parametrize(("name", "points", "a"), [("hot_477", 21, 0.538), ("hot_100bplus_477", 28, 0.484)])
def test_gemstones_at_6nd(name, points, a):
    """The slopes with C = 6 N D, which the published ones are not; tolerance: their last printed digit."""
    made = fit_hull(read_table(GEMSTONES / f"{name}.csv", Columns("params_active_precise", "tokens", "final_loss", run="run_name")))
    assert len(made.points) == points
    assert made.a == pytest.approx(a, abs=6e-4)
