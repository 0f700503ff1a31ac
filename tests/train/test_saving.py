"""Saves beside training: it goes on while one is under way, and while a disk takes none, and the run is the same bit for bit."""

import contextlib
import dataclasses
import logging
import os
import resource
import sys
import threading
import types

import jax
import numpy as np
import pytest

from lm import peers
from lm.errors import UserError
from lm.train import checkpoint, metrics, record, sealed
from lm.train.config import CheckpointConfig
from lm.train.saving import Saver
from tests.train.conftest import CONFIG
from tests.train.stub import StubStream
from tests.train.test_loop import assert_same_run, lines, run, with_checkpoints

ALARMS = ("checkpoint_failures", "checkpoint_age_seconds")


@dataclasses.dataclass(frozen=True)
class Told(StubStream):
    """Calls a function when a batch is read."""

    at: dict = dataclasses.field(default_factory=dict)

    def iterate(self, start, stop):
        for k in range(start, stop):
            self.at.get(k, lambda: None)()
            yield self[k]


@pytest.fixture(scope="module")
def straight(tmp_path_factory, program):
    workdir = tmp_path_factory.mktemp("straight")
    return workdir, run(workdir, program)


def room(size):
    """Lets no file of this process grow beyond so many bytes, as on a full disk; None: as before."""
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most if size is None else size, most))


@pytest.fixture
def mended():
    yield
    room(None)


def test_training_goes_on_while_a_save_is_under_way(tmp_path, program, straight):
    """The save of step 7 waits for a reader of a pipe, until batch 13 is read. The save of step 14 waits for that of step 7."""
    pipe, passed = tmp_path / sealed.FOLDER / "00000001" / "manifest.json", []

    def block():
        pipe.parent.mkdir(parents=True)
        os.mkfifo(pipe)

    def release(by="the clock"):
        with contextlib.suppress(FileNotFoundError), open(pipe, "w"):  # waits until the save has come to it
            passed.append((by, checkpoint.steps(tmp_path)))
            pipe.unlink()

    deadline = threading.Timer(30, release)
    deadline.start()
    stream = Told(at={2: block, 13: lambda: release("training")})
    config = dataclasses.replace(CONFIG, checkpoint=CheckpointConfig(every_steps=7, keep=1))
    found = run(tmp_path, program, stream, config)
    deadline.cancel()
    assert passed == [("training", [1, 7])]
    assert checkpoint.steps(tmp_path) == [24]
    assert_same_run(tmp_path, found, straight, program)


def test_a_full_disk_is_an_alarm_and_training_goes_on(tmp_path, program, straight, mended):
    """Nothing can be written between batches 5 and 16: the saves of steps 6 and 12 fail, and those of 18 and 24 do not.

    Event files end there, which is said once.
    """
    stream, said = Told(at={5: lambda: room(100), 16: lambda: room(None)}), []
    config = dataclasses.replace(CONFIG, log=dataclasses.replace(CONFIG.log, tensorboard=True))
    found = run(tmp_path, program, stream, with_checkpoints(6, config), log=said.append)
    assert sum("TensorBoard" in line for line in said) == 1
    alarms = [line for line in said if line.startswith("ALARM")]
    assert [word in line for word, line in zip(("step 6", "step 12"), alarms, strict=True)] == [True, True]
    rows = {row["step"]: row.get("checkpoint_failures") for row in metrics.read(tmp_path)}
    assert list(rows) == [5, 10, 15, 20, 24]
    assert rows[5] is None
    assert rows[15] >= 1  # the save of step 12 has waited for that of step 6
    assert checkpoint.steps(tmp_path) == [18, 24]
    kept = [{name: value for name, value in row.items() if name not in ALARMS} for row in lines(tmp_path)]
    (tmp_path / metrics.FILE).write_text("".join(record.json.dumps(row) + "\n" for row in kept))
    assert_same_run(tmp_path, found, straight, program)


def test_patience_has_an_end_and_the_run_continues(tmp_path, program, straight, mended):
    config = dataclasses.replace(CONFIG, checkpoint=CheckpointConfig(every_steps=6, patience_minutes=0))
    with pytest.raises(UserError, match="patience_minutes"):
        run(tmp_path, program, Told(at={13: lambda: room(100)}), config)  # when the save of step 6 has ended
    room(None)
    saved = checkpoint.steps(tmp_path)
    assert saved[0] == 6
    found = run(tmp_path, program, config=config)
    assert found["resumes"][0]["step"] == saved[-1]
    assert_same_run(tmp_path, found, straight, program)


def test_a_run_whose_last_step_is_not_saved_is_not_completed(tmp_path, program, straight, mended):
    with pytest.raises(UserError, match="step 24"):
        run(tmp_path, program, Told(at={20: lambda: room(100)}))
    room(None)
    assert record.read(tmp_path)["status"] == "running"
    assert_same_run(tmp_path, run(tmp_path, program), straight, program)


def test_a_run_json_that_cannot_be_written_costs_no_checkpoint(tmp_path, program, straight, monkeypatch):
    """It is written again with the next one."""
    written, said, write = [], [], record.write

    def failing(workdir, found):
        written.append(found["steps"])
        if found["steps"] == 6:
            raise OSError(5, "Input/output error")
        write(workdir, found)

    monkeypatch.setattr(record, "write", failing)
    found = run(tmp_path, program, config=with_checkpoints(6), log=said.append)
    (alarm,) = [line for line in said if line.startswith("ALARM")]
    assert "step 6 is written" in alarm
    assert record.FILE in alarm
    assert 6 in written
    assert not list((tmp_path / sealed.FOLDER).glob("*.aside"))
    assert_same_run(tmp_path, found, straight, program)


class Second:
    """Stands for the watch of process 0 of two, of which the other cannot write its part of a checkpoint."""

    index, count = 0, 2

    def __init__(self):
        self.store = {}

    def post(self, key, value):
        self.store[key] = value

    def read(self, key):
        if not key.endswith("/1"):
            return self.store[key]
        own = record.json.loads(self.store[f"{key[:-1]}0"])["value"]
        return record.json.dumps({"value": dict.fromkeys(own, ()) if isinstance(own, dict) else "no room on node02"})

    def forget(self, key):
        del self.store[key]


def test_an_error_of_one_process_in_a_save_is_an_alarm_of_all(tmp_path, program, monkeypatch):
    """As it is of a run of one process: training goes on, and what was begun is removed. That this one waited in vain is not the cause."""

    def waits(path, tree):
        path.mkdir()
        raise OSError(None, "DEADLINE_EXCEEDED: Barrier timed out")

    monkeypatch.setattr(peers, "current", Second())
    monkeypatch.setattr(checkpoint, "_orbax_save", waits)
    said = []
    saver = Saver(tmp_path, keep=2, newest=None, patience=60, alarm=said.append)
    before = checkpoint._failures
    saver.begin(6, dataclasses.replace(program.init(np.uint32(0)), step=jax.numpy.int32(6)), {})
    saver.wait()
    assert (saver.failures, saver.newest, len(said)) == (1, None, 1)
    assert "no room on node02" in said[0]
    assert not list((tmp_path / sealed.FOLDER).iterdir())
    assert checkpoint._failures == before + 1  # the next save meets under other names


def test_what_a_closed_event_loop_is_told_is_of_no_interest():
    """Orbax closes its loop at the first error; threads of TensorStore that still write cannot tell it, and Python would print that."""
    said = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.unraisablehook", said.append)
        with contextlib.suppress(OSError), checkpoint._orbax_errors():
            raise ValueError("an error of Orbax")
        for error in (RuntimeError("Event loop is closed"), RuntimeError("another")):
            sys.unraisablehook(types.SimpleNamespace(exc_value=error))
    assert [str(found.exc_value) for found in said] == ["another"]


@pytest.mark.parametrize(
    ("logger", "path", "error", "is_shown"),
    [
        ("absl", "/x/orbax/checkpoint/future.py", ValueError("no room"), False),
        ("asyncio", "/x/asyncio/base_events.py", ValueError('Error reading "step" in OCDBT database'), False),
        ("asyncio", "/x/asyncio/base_events.py", ValueError("another"), True),
        ("absl", "/x/own.py", ValueError("another"), True),
    ],
)
def test_errors_that_orbax_raises_are_not_logged_too(logger, path, error, is_shown):
    with checkpoint._orbax_errors():
        pass
    entry = logging.LogRecord(logger, logging.ERROR, path, 1, "said", (), (type(error), error, None))
    assert bool(logging.getLogger(logger).filter(entry)) == is_shown
