"""A mirror of the metrics gets every row, and ends no run when it fails."""

import dataclasses
import json
import sys
import types

import pytest

from lm.errors import UserError
from lm.train import metrics
from lm.train.config import LogConfig, RunConfig

CONFIG = dataclasses.replace(RunConfig(), log=LogConfig(tensorboard=False, wandb="laws"))
ROWS = [{"step": step, "loss": 1.0 / step, "norms": [1.0, 2.0]} for step in (1, 2, 3)]


@pytest.fixture
def service(monkeypatch):
    """Stands for the package wandb."""
    seen = {"init": [], "log": [], "over": {}, "finished": 0, "fails": False}

    class Run:
        def define_metric(self, name, **how):
            seen["over"][name] = how

        def log(self, row):
            if seen["fails"]:
                raise ConnectionError("no\nroute")
            seen["log"].append(row)

        def finish(self):
            seen["finished"] += 1

    module = types.ModuleType("wandb")
    module.init = lambda **how: seen["init"].append(how) or Run()
    monkeypatch.setitem(sys.modules, "wandb", module)
    return seen


def _write(tmp_path, alarm=print):
    log = metrics.open_log(tmp_path, 0, CONFIG, "abc123", alarm)
    for row in ROWS:
        log.write(row)
    log.close()
    return [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]


def test_every_row_arrives_under_the_id_of_the_run(tmp_path, service):
    assert _write(tmp_path) == ROWS
    assert [row["step"] for row in service["log"]] == [1, 2, 3]
    assert service["log"][1] == {"step": 2, "loss": 0.5, "norms/layer_00": 1.0, "norms/layer_01": 2.0}
    assert service["finished"] == 1
    (how,) = service["init"]
    assert (how["project"], how["resume"], how["config"]["log"]["wandb"]) == ("laws", "allow", "laws")
    assert how["id"].startswith("abc123-")


def test_a_work_directory_has_a_mirror_of_its_own_and_keeps_it(tmp_path, service):
    """Also after a return to an earlier state, whose rows come again under their own steps."""
    for name in ("one", "one", "two"):
        (tmp_path / name).mkdir(exist_ok=True)
        _write(tmp_path / name)
    first, again, other = (how["id"] for how in service["init"])
    assert first == again != other
    assert [row["step"] for row in service["log"]] == [1, 2, 3] * 3
    assert service["over"] == {"step": {}, "*": {"step_metric": "step"}}


def test_a_service_that_fails_is_said_once_and_ends_no_run(tmp_path, service):
    service["fails"] = True
    said = []
    assert _write(tmp_path, said.append) == ROWS
    assert len(said) == 1
    assert "no route" in said[0]


def test_a_missing_package_is_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match="pip install wandb"):
        _write(tmp_path)
