"""The index of completed cells: it spares reading, and never hides a change of a record."""

import json
import os

import fake_train
import pytest
import small_study

from lm.study import index, records, status, worker


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setattr(status, "MANY", 1)
    monkeypatch.setattr(index, "SETTLED_SECONDS", -60.0)
    small_study.planned(tmp_path / "s")
    worker.work(tmp_path / "s", fake_train.train, log=lambda line: None)
    return tmp_path / "s"


@pytest.fixture
def looks(monkeypatch):
    """The records that are read."""
    read, found = records.read, []

    def counting(folder):
        found.append(folder)
        return read(folder)

    monkeypatch.setattr(records, "read", counting)
    return found


def test_what_was_read_once_is_not_read_again_and_shown_alike(root, looks):
    first = status.read_status(root)
    looks.clear()
    assert status.read_status(root) == first
    assert len(looks) == len(first.cells) - first.count("completed")  # those of the second stage, which have no record
    assert first.count("completed") == 16


def test_steps_that_were_left_out_are_shown_alike(root):
    path = next(root.glob("cells/*/run.json"))
    content = json.loads(path.read_text()) | {"bad_steps": {"count": 3}}
    path.write_text(json.dumps(records.sealed({name: value for name, value in content.items() if name != "seal"}, 1)))
    first = status.read_status(root)
    assert sum(c.bad_steps for c in first.cells) == 3
    assert status.read_status(root) == first


def test_a_damaged_index_is_none(root):
    first = status.read_status(root)
    cells = [cell["id"] for cell in (c.cell for c in first.cells)]
    strange = index.stamp_of(root / "cells" / cells[0] / records.FILE)
    strange = json.dumps({"schema": index.SCHEMA, "cells": {cells[0]: [strange, [1.0]]}})
    for damage in ("{", "[]", '{"schema": 1}', '{"schema": 1, "cells": {"a": 3}}', '{"schema": 99, "cells": {}}', strange):
        (root / index.FILE).write_text(damage)
        assert status.read_status(root) == first
        assert status.read_status(root) == first


def test_a_record_that_changes_is_read_again(root):
    """In place, with its size and its time of modification set back."""
    path = next(root.glob("cells/*/run.json"))
    before, times = status.read_status(root), os.stat(path)
    text = path.read_text()
    with open(path, "r+") as file:
        file.write(text.replace('"completed"', '"completes"'))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert os.stat(path).st_size == times.st_size
    assert status.read_status(root).count("completed") == before.count("completed") - 1


def test_what_changed_just_now_is_not_kept(root, monkeypatch, looks):
    monkeypatch.setattr(index, "SETTLED_SECONDS", 60.0)
    status.read_status(root)
    assert not (root / index.FILE).exists()
