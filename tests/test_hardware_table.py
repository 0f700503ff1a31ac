"""The table of models on devices that are not there: what counts as worse, and what a row says."""

import json

import pytest

from experiments.benchmarks import hardware

ROW = {"mfu_bound": 0.7, "peak_bytes": 1e9, "compiled_over_needed": 1.2, "bytes_moved": 1e12, "bytes_sent": 0.0}


@pytest.mark.parametrize("figure", ROW)
def test_a_row_is_worse_where_a_figure_moves_the_wrong_way_by_more_than_two_per_cent(figure):
    def moved(by):
        return hardware.worse(ROW, ROW | {figure: ROW[figure] * by + (by - 1 if ROW[figure] == 0 else 0)})

    up = hardware.worse(ROW, ROW) == [] and moved(1.021)
    down = moved(0.979)
    better, worse = (up, down) if figure in hardware.HIGHER else (down, up)
    assert better == []
    assert len(worse) == 1
    assert figure in worse[0]
    assert moved(1.019) == moved(0.981) == [] or ROW[figure] == 0


def test_the_table_holds_rows_of_the_named_models_and_devices_alone(capsys):
    found = json.loads(hardware.TABLE.read_text(encoding="utf-8"))
    names = [name for name, _, _ in hardware.rows("")]
    assert [name for name in names if name in found] == list(found)
    for row in found.values():
        assert ("reason" in row) != ({"flags", "jax", *ROW} <= row.keys())
        assert "reason" in row or row["compiled_over_needed"] > 0.9
    assert hardware.main([]) == 0
    assert all(name in capsys.readouterr().out for name in list(found)[:1])
