"""Tables of runs: what is read, and the sentence that each kind of bad input gets."""

import numpy as np
import pytest

from lm.errors import UserError
from lm.scaling.approaches import profiles
from lm.scaling.runs import Columns, from_frame, read_table

GOOD = {"N": [1e8, 2e8, 4e8], "D": [2e9, 4e9, 8e9], "loss": [3.2, 3.0, 2.8]}


class Frame(dict):
    """What the reader asks of a pandas data frame: `columns` and a column by its name."""

    @property
    def columns(self):
        return list(self)


def test_a_frame_and_a_file_give_the_same_runs(tmp_path):
    path = tmp_path / "runs.csv"
    path.write_text("N,D,loss\n" + "\n".join(f"{n},{d},{loss}" for n, d, loss in zip(*GOOD.values(), strict=True)), encoding="utf-8")
    for made in (from_frame(GOOD), from_frame(Frame(GOOD)), read_table(path)):
        np.testing.assert_array_equal(made.n, GOOD["N"])
        np.testing.assert_array_equal(made.c, 6 * made.n * made.d)
        np.testing.assert_array_equal(made.inputs["M"], [20, 20, 20])
        assert not made.counted
        np.testing.assert_allclose(np.exp(made.log_x(("D", "N"))), np.stack([GOOD["D"], GOOD["N"]], axis=1))


def test_points_of_one_run_share_a_group_and_taking_keeps_order():
    made = from_frame(GOOD | {"name": ["b", "a", "b"], "C": [1e18, 2e18, 3e18]}, Columns(run="name", flops="C"))
    assert made.groups.tolist() == [0, 1, 0]
    assert made.counted
    assert made.take(np.array([2, 0])).run == ("b", "b")
    assert made.take(np.array([False, True, True])).loss.tolist() == [3.0, 2.8]


def test_seeds_of_a_cell_are_merged_as_logarithms():
    table = {"N": [1e8, 1e8, 2e8], "D": [2e9, 2e9, 1e9], "loss": [3.0, 3.3, 2.8], "C": [1e18] * 3, "s": [0, 1, 0]}
    cells = from_frame(table, Columns(budget="C", seed="s")).cells()
    assert cells.ids == (("row 0", "row 1"), ("row 2",))
    assert cells.seeds.tolist() == [2, 1]
    np.testing.assert_allclose(np.exp(cells.log_loss), [np.sqrt(3.0 * 3.3), 2.8])


@pytest.mark.parametrize(
    ("table", "columns", "said"),
    [
        ({"N": [1e8], "loss": [3.0]}, Columns(), "its columns are N, loss; name one with --tokens=COLUMN"),
        (GOOD | {"loss": [3.2, float("nan"), 2.8]}, Columns(), "row 1: loss is"),
        (GOOD | {"loss": [3.2, -1, 0]}, Columns(), "row 1, 2: loss"),
        (GOOD | {"D": [2e9, "4X", 8e9]}, Columns(), "row 1: D is '4X'"),
        ({"N": [1e8] * 3, "D": [2e9] * 3, "loss": [3.0, 3.0, 2.9]}, Columns(), "1 rows repeat another (rows 0 and 1)"),
        ({"N": [], "D": [], "loss": []}, Columns(), "no rows"),
        (GOOD | {"end": ["yes", "no", "perhaps"]}, Columns(decayed="end"), "row 2: end is 'perhaps'"),
    ],
)
def test_bad_tables_get_one_sentence(table, columns, said):
    with pytest.raises(UserError) as caught:
        from_frame(table, columns)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_a_fit_lacks_is_named():
    made = from_frame(GOOD)
    with pytest.raises(UserError, match="--input=U=COLUMN"):
        made.log_x(("N", "D", "U"))
    with pytest.raises(UserError, match="--budget=COLUMN"):
        profiles.by_budget(made.cells())


def test_files_that_are_none(tmp_path):
    with pytest.raises(UserError, match=r"none\.csv"):
        read_table(tmp_path / "none.csv")
    (tmp_path / "empty.csv").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match=r"empty\.csv"):
        read_table(tmp_path / "empty.csv")
    (tmp_path / "short.csv").write_text("N,D,loss\n1e8,2e9\n", encoding="utf-8")
    with pytest.raises(UserError, match="row 2: loss is empty"):
        read_table(tmp_path / "short.csv")


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"N,D,loss\n\x80\x81,1,2\n", "not text in UTF-8"), (b"N,D,D,loss\n1,2,3,4\n", "more than one column 'D'")],
)
def test_a_file_that_cannot_be_read_as_one_table_is_refused(tmp_path, content, reason):
    path = tmp_path / "runs.csv"
    path.write_bytes(content)
    with pytest.raises(UserError, match=reason):
        read_table(path)
