"""Rules of IsoFLOP profiles: each finds the fault that was put in, and nothing in a table without one."""

import contextlib
import io

import numpy as np
import pytest

from lm.errors import UserError
from lm.scaling import __main__ as command
from lm.scaling import quality, results
from lm.scaling.commands.fit import QUALITY
from lm.scaling.filters import minima_exponent
from lm.scaling.quality import Quality
from lm.scaling.runs import Columns, from_frame
from tests.scaling.test_table_analysis import write

BUDGETS = (1e18, 1e19, 1e20, 1e21)
SIZES = np.geomspace(1 / 4, 4, 9)
SIGMA = 1e-3


def table(seeds=1):
    """Four budgets of nine sizes, parabolas in log N about N* = .1 C^.5 with noise of .1%; columns as lists."""
    random = np.random.default_rng(2)
    rows = [(0.1 * c**0.5 * size, c, size, seed) for c in BUDGETS for size in SIZES for seed in range(seeds)]
    n, c, size, seed = (np.array(column) for column in zip(*rows, strict=True))
    loss = (2 + 0.1 * np.log(size) ** 2 + 20 * (c / 1e18) ** -0.3) * np.exp(SIGMA * random.standard_normal(len(n)))
    return {"N": n, "D": c / 6 / n, "loss": loss, "budget": c, "seed": seed}


def read(columns, seeds=False):
    return from_frame(columns, Columns(budget="budget", seed="seed" if seeds else None))


def left(rule, columns):
    return np.flatnonzero(~Quality(rule).keep(read(columns))).tolist()


def changed(**columns):
    """The table with values set at rows: changed(loss={3: 2.0})."""
    made = table()
    for name, values in columns.items():
        for row, value in values.items():
            made[name][row] = value
    return made


def without(rows):
    return {name: np.delete(column, rows) for name, column in table().items()}


def test_the_command_lists_the_rules():
    assert tuple(quality.RULES) == QUALITY


@pytest.mark.parametrize("rule", QUALITY)
def test_a_sound_table_is_left_whole(rule):
    assert left(rule, table()) == []
    assert Quality(rule).reasons(read(table())) == ()


def test_each_rule_finds_its_fault():
    plain = table()
    near = changed(N={4: plain["N"][5] * 1.005})
    near["D"][4] = BUDGETS[0] / 6 / near["N"][4] * 0.98
    assert left("duplicates", near) == [4]
    assert left("too_few", without([0, 1, 2, 3])) == [0, 1, 2, 3, 4]
    assert left("outlier", changed(loss={12: plain["loss"][12] * 1.1})) == [12]
    down = {row: 2 * plain["loss"][9:18].max() - plain["loss"][row] for row in range(9, 18)}
    assert left("concave", changed(loss=down)) == list(range(9, 18))
    level = {row: 3.0 + 0.01 * (-1) ** row + (0.02 if row in (9, 17) else 0) for row in range(9, 18)}
    assert left("flat", changed(loss=level)) == list(range(9, 18))
    assert left("edge", without([*range(9, 14)])) == list(range(9, 13))
    exact = {row: float(2 + 0.1 * np.log(SIZES[row - 9]) ** 2) for row in range(9, 18)}
    lopsided = {name: np.delete(column, [9, 10, 11]) for name, column in changed(loss=exact).items()}
    assert left("lopsided", lopsided) == [13, 14]  # 3 and 4 times log 4 / 4 from the minimum, the shorter side ends at one


def test_an_optimum_near_an_end_is_off_centre_and_not_at_an_edge():
    columns = table()
    columns["N"][9:18] *= 2.5  # the sizes of a budget move, the place of its minimum stays
    columns["D"][9:18] /= 2.5
    columns["loss"][9:18] = 2 + 0.1 * np.log(SIZES * 2.5) ** 2
    assert left("off_centre", columns) == list(range(9, 18))
    assert left("edge", columns) == []


def test_seeds_of_a_size_are_no_duplicates_and_leave_together():
    columns = table(seeds=2)
    runs = read(columns, seeds=True)
    assert Quality("duplicates").keep(runs).all()
    columns["loss"][24:26] *= 1.1
    kept = Quality("outlier").keep(read(columns, seeds=True))
    assert np.flatnonzero(~kept).tolist() == [24, 25]


def test_the_exponent_by_minima_is_that_of_the_parabolas():
    assert minima_exponent(read(table())) == pytest.approx(0.5, abs=0.02)
    assert minima_exponent(read(table()).take(np.arange(18))) is None


def test_fit_names_what_a_rule_left_out(tmp_path):
    path = write(tmp_path / "runs.csv", changed(loss={12: table()["loss"][12] * 1.1}))
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert command.main(["fit", str(path), "--budget=budget", "--approach", "2", "--quality", "all", "--draws=50", "--json"]) == 0
    made = results.from_json(out.getvalue())
    steps = {step.name: step for step in made.filters}
    assert [step.dropped for step in made.filters] == [0, 0, 0, 0, 1, 0, 0, 0, 0]
    (why,) = steps["quality outlier"].why
    assert "row 14" in why
    assert made.filters[-1].a_minima == pytest.approx(made.isoflop.a.value)
    assert made.filters[-1].values is None
    with pytest.raises(UserError, match="--budget"):
        command.main(["fit", str(path), "--quality", "edge"])
