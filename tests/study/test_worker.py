"""Workers: every cell once, failures recorded, the environment's faults raised, the gate kept."""

import itertools
import json

import fake_train
import pytest
import small_study

from lm.errors import UserError
from lm.study import gate, locks, records, worker
from lm.study.rows import read_rows


@pytest.fixture
def root(tmp_path):
    small_study.planned(tmp_path / "s")
    return tmp_path / "s"


def _silent(line):
    del line


def _work(root, train=fake_train.train):
    return worker.work(root, train, log=_silent)


def _losses(root):
    return {row.id: row.loss for row in read_rows(root) if row.completed}


def test_the_second_stage_waits_for_the_forecast(root):
    assert _work(root) == 16
    rows = read_rows(root)
    assert {row.stage for row in rows if row.completed} == {0}
    assert sum(row.completed for row in rows) == 16
    assert _work(root) == 0
    gate.write_forecast(root, {}, [])
    assert _work(root) == 3
    assert all(row.completed for row in read_rows(root))
    assert not list(root.glob("cells/*/claim"))


def test_shapes_are_trained_one_after_another_longest_first(root):
    seen = []
    _work(root, lambda config, folder: (seen.append(folder.name), fake_train.train(config, folder)))
    cells = {cell["id"]: cell for cell in json.loads((root / "study.json").read_text(encoding="utf-8"))["cells"]}
    keys = [cells[name]["shape_key"] for name in seen]
    assert len(set(keys)) == 1 + sum(a != b for a, b in itertools.pairwise(keys))
    for a, b in itertools.pairwise(seen):
        assert cells[a]["shape_key"] != cells[b]["shape_key"] or cells[a]["seconds"] >= cells[b]["seconds"]


def test_a_second_worker_takes_a_shape_of_its_own_while_there_is_one(root):
    cells = json.loads((root / "study.json").read_text(encoding="utf-8"))["cells"]
    open_cells = [cell for cell in cells if cell["stage"] == 0]
    first = next(worker.order(root, open_cells, None))
    assert locks.claim(root, first["id"])  # by this process, which stands for another worker
    assert next(worker.order(root, open_cells, None))["shape_key"] != first["shape_key"]
    same = [cell for cell in open_cells if cell["shape_key"] == first["shape_key"]]
    assert next(worker.order(root, same, None))["id"] != first["id"]  # nothing else left: it helps


def test_a_cell_that_fails_or_diverges_is_recorded_and_stops_no_other(root, monkeypatch):
    monkeypatch.setenv("FAKE_RAISE", "24")
    monkeypatch.setenv("FAKE_DIVERGE", "32")
    assert _work(root) == 16
    rows = {row.shape["d_model"]: row for row in read_rows(root) if row.stage == 0}
    assert (rows[24].status, rows[24].reason) == ("failed", "ValueError: asked to raise")
    assert (rows[32].status, rows[32].reason) == ("diverged", "loss is not finite at step 7")
    assert not rows[24].completed
    assert not rows[32].completed
    assert rows[48].completed
    assert _work(root) == 0  # neither is tried again
    monkeypatch.delenv("FAKE_RAISE")
    assert locks.retry(root, [row.id for row in rows.values()], from_start=False) == [rows[24].id]  # what diverged would do so again
    assert _work(root) == 1
    assert next(row for row in read_rows(root) if row.id == rows[24].id).completed
    assert "asked to raise" in (root / "cells" / rows[24].id / "failures.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("from_start", [False, True])
def test_a_failed_run_goes_on_from_its_checkpoints_or_from_its_start(root, from_start):
    cell = json.loads((root / "study.json").read_text(encoding="utf-8"))["cells"][0]
    folder = root / "cells" / cell["id"]
    begun = {"id": cell["id"], "experiment": {}, "execution": {}, "data": {}, "curve": [{"step": 5}]}
    (folder / "run.json").write_text(json.dumps(begun | {"status": "failed", "reason": "out of memory"}), encoding="utf-8")
    (folder / "checkpoints" / "5").mkdir(parents=True)
    assert not locks.claim(root, cell["id"])
    assert locks.retry(root, [cell["id"]], from_start=from_start) == [cell["id"]]
    assert (folder / "checkpoints" / "5").exists() != from_start
    assert records.read(folder) == ({} if from_start else begun | {"status": "running", "reason": None})
    assert locks.claim(root, cell["id"])  # by this process: a second one that retries leaves it alone
    records.record_failure(folder, cell, ValueError("again"))
    assert locks.retry(root, [cell["id"]], from_start=from_start) == []


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), UserError("the data are gone"), KeyboardInterrupt()])
def test_a_fault_of_the_environment_is_no_result(root, error):
    def train(config, folder):
        (folder / "metrics.jsonl").write_text('{"step": 1}\n')
        raise error

    with pytest.raises(type(error)):
        _work(root, train)
    assert not list(root.glob("cells/*/claim"))
    assert {row.status for row in read_rows(root)} == {"pending"}
    assert _work(root) == 16


def test_a_cell_whose_configuration_was_edited_is_refused(root):
    path = next(root.glob("cells/*/config.json"))
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(config | {"seed": 77}), encoding="utf-8")
    with pytest.raises(UserError, match=r"config\.json"):
        _work(root)


def test_data_that_changed_after_planning_are_refused(root):
    def train(config, folder):
        fake_train.train(config, folder)
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        (folder / "run.json").write_text(json.dumps(record | {"id": "another run"}))
        (folder / "checkpoints" / "00000001").mkdir(parents=True)

    with pytest.raises(UserError, match="another run"):
        _work(root, train)
    assert not list(root.glob("cells/*/checkpoints"))
    assert {row.status for row in read_rows(root)} == {"pending"}


def test_a_training_function_that_records_nothing_is_an_error(root):
    with pytest.raises(UserError, match=r"run\.json"):
        _work(root, lambda config, folder: None)


def test_any_order_of_work_gives_the_same_results(root, tmp_path):
    small_study.planned(tmp_path / "other")
    for row in reversed(read_rows(tmp_path / "other")):
        cell = next(c for c in json.loads((root / "study.json").read_text(encoding="utf-8"))["cells"] if c["id"] == row.id)
        if row.stage == 0:
            study = json.loads((tmp_path / "other" / "study.json").read_text(encoding="utf-8"))
            worker.run_cell(tmp_path / "other", study, cell, fake_train.train, _silent)
    _work(root)
    assert _losses(root) == _losses(tmp_path / "other")
