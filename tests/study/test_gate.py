"""The gate of stage 1 is closed until the forecast is written, once."""

import json

import pytest

from lm.errors import UserError
from lm.study import gate

CONTENT = {"losses": {"a": 1.5}}


def test_the_gate_opens_with_the_forecast(tmp_path):
    assert gate.is_open(tmp_path, 0)
    assert not gate.is_open(tmp_path, 1)
    written = gate.write_forecast(tmp_path, CONTENT, ["id0", "id1"])
    assert gate.is_open(tmp_path, 1)
    assert gate.read_forecast(tmp_path) == written
    assert (written["content"], written["runs"]) == (CONTENT, ["id0", "id1"])
    assert [path.name for path in tmp_path.iterdir()] == ["forecast.json"]


def test_a_forecast_is_never_written_again(tmp_path):
    first = gate.write_forecast(tmp_path, CONTENT, ["id0"])
    assert gate.write_forecast(tmp_path, {"losses": {"a": 1.6}}, ["id0"]) == first


def test_a_changed_forecast_is_refused(tmp_path):
    stored = gate.write_forecast(tmp_path, CONTENT, ["id0"])
    stored["content"]["losses"]["a"] = 1.4
    (tmp_path / "forecast.json").write_text(json.dumps(stored), encoding="utf-8")
    with pytest.raises(UserError, match=r"forecast\.json"):
        gate.is_open(tmp_path, 1)
