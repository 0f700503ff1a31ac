import os
import time

import numpy as np
import pytest

from lm.data.store import digest, new_directory, new_file, read_json, shuffled, write_json
from lm.errors import UserError


def test_the_order_is_a_permutation_fixed_for_all_versions():
    assert shuffled(12, "a", 1).tolist() == [6, 1, 3, 7, 0, 9, 2, 10, 5, 11, 4, 8]
    np.testing.assert_array_equal(np.sort(shuffled(1000, "b")), np.arange(1000))
    assert shuffled(1000, "b").tolist() != shuffled(1000, "c").tolist()
    assert len(shuffled(0, "b")) == 0


def test_digest_separates_its_parts():
    assert digest("ab", "c") != digest("a", "bc")
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})


def test_an_interrupted_write_leaves_nothing(tmp_path):
    for make, target in ((new_directory, tmp_path / "d"), (new_file, tmp_path / "f")):
        with pytest.raises(KeyboardInterrupt), make(str(target)):
            raise KeyboardInterrupt
    assert os.listdir(tmp_path) == []


def test_what_a_killed_writer_left_is_removed_after_a_day(tmp_path):
    for name, age in (("d.tmpold", 90_000), ("d.tmpnew", 10), ("other.tmpold", 90_000)):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    with new_directory(str(tmp_path / "d")):
        pass
    assert sorted(os.listdir(tmp_path)) == ["d", "d.tmpnew", "other.tmpold"]


def test_the_first_of_two_writers_wins(tmp_path):
    target = tmp_path / "d"
    with new_directory(str(target)) as second:
        with new_directory(str(target)) as first, open(os.path.join(first, "who"), "w") as file:
            file.write("first")
        with open(os.path.join(second, "who"), "w") as file:
            file.write("second")
    assert (target / "who").read_text() == "first"
    assert os.listdir(tmp_path) == ["d"]


def test_a_disk_that_cannot_be_written_is_one_clear_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="data_dir"):
        write_json(str(tmp_path / "file" / "below" / "x.json"), {})
    with pytest.raises(UserError, match="full"), new_file(str(tmp_path / "full")):
        raise OSError(28, "No space left on device")


def test_damaged_json_names_its_file(tmp_path):
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(UserError, match=r"x\.json"):
        read_json(str(tmp_path / "x.json"))
    assert read_json(str(tmp_path / "none.json")) is None
