"""Laws of the training loop: resume is exact, cuts change nothing, bad ends are recorded, unfit work directories are refused."""

import dataclasses
import json
import os
import signal
import threading

import numpy as np
import pytest

from lm import files, peers
from lm.errors import UserError
from lm.train import checkpoint, metrics, record, sealed, signals
from lm.train.loop import train
from tests.train.conftest import CONFIG, FACTS
from tests.train.stub import StubStream

TIMES = ("seconds", "resumes", "reason")


def evaluate(params, which):
    """A number that depends on every weight, and counts its calls."""
    evaluate.calls.append(which)
    loss = float(sum(np.abs(np.asarray(leaf)).sum(dtype=np.float64) for leaf in (params["embed"]["table"], params["blocks"]["up"])))
    return {"nats_per_token": loss, "nats_per_byte": loss, "bits_per_byte": loss}


evaluate.calls = []


@dataclasses.dataclass(frozen=True)
class SignalStream(StubStream):
    """Sends this process a signal when batch `at` is read."""

    at: int = 0
    number: int = signal.SIGTERM

    def iterate(self, start, stop):
        for k in range(start, stop):
            if k == self.at:
                os.kill(os.getpid(), self.number)
            yield self[k]


@dataclasses.dataclass(frozen=True)
class CountedStream(StubStream):
    """Counts the steps whose document tokens it was asked for."""

    asked: list = dataclasses.field(default_factory=list)

    def document_tokens(self, start, stop):
        self.asked.extend(range(start, stop))
        return super().document_tokens(start, stop)


@dataclasses.dataclass(frozen=True)
class BrokenStream(StubStream):
    at: int = 0
    error: type = RuntimeError

    def iterate(self, start, stop):
        for k in range(start, stop):
            if k == self.at:
                raise self.error("no more")
            yield self[k]


def run(workdir, program, stream=None, config=CONFIG, **options):
    return train(config, workdir, stream or StubStream(), program, facts=FACTS, **{"evaluate": evaluate, **options})


def with_checkpoints(every, config=CONFIG):
    return dataclasses.replace(config, checkpoint=dataclasses.replace(config.checkpoint, every_steps=every))


def lasting(found):
    return {key: value for key, value in found.items() if key not in TIMES and key != "execution"}


def lines(workdir):
    return [{k: v for k, v in row.items() if k != "tokens_per_second"} for row in metrics.read(workdir)]


def weights(workdir, program):
    state, _ = checkpoint.restore(workdir, program.abstract)
    return checkpoint.named_arrays(state)


@pytest.fixture(scope="module")
def straight(tmp_path_factory, program):
    workdir = tmp_path_factory.mktemp("straight")
    return workdir, run(workdir, program)


def assert_same_run(workdir, found, straight, program):
    expected_dir, expected = straight
    assert lasting(found) == lasting(expected)
    assert lines(workdir) == lines(expected_dir)
    a, b = weights(workdir, program), weights(expected_dir, program)
    assert list(a) == list(b)
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def test_a_run_learns_and_records_itself(straight):
    workdir, found = straight
    assert found == record.read(workdir)
    assert (found["status"], found["steps"], found["tokens"]["loss"]) == ("completed", 24, 24 * 64)
    assert found["tokens"]["bytes"] == 24 * 64 * 1.5
    assert found["flops"]["matmul_causal"] == 24 * 64 * 5.0
    assert found["flops"]["xla"] is None or found["flops"]["xla"] > 0
    assert [point["step"] for point in found["curve"]] == [10, 13, 17, 18, 24]
    assert [point["decayed"] for point in found["curve"]] == [False] * 4 + [True]
    assert [point["lr_ratio"] for point in found["curve"]][:3] == [1.0, 1.0, 1.0]
    assert evaluate.calls.count("final") == 1
    rows = metrics.read(workdir)
    assert [row["step"] for row in rows] == [5, 10, 15, 20, 24]
    assert rows[-1]["loss"] < 0.7 * rows[0]["loss"]


@pytest.mark.parametrize("stop", [1, 6, 13, 23])
def test_stopped_and_continued_is_the_straight_run_bit_for_bit(tmp_path, program, straight, stop):
    with pytest.raises(SystemExit) as ended:
        run(tmp_path, program, SignalStream(at=stop))
    assert ended.value.code == 143
    saved = checkpoint.steps(tmp_path)
    assert len(saved) == 1
    assert stop <= saved[0] <= stop + 4
    assert record.read(tmp_path)["status"] == "running"
    found = run(tmp_path, program)
    assert [resume["step"] for resume in found["resumes"]] == saved
    assert_same_run(tmp_path, found, straight, program)


def test_a_save_that_hangs_holds_no_run_that_ends_by_an_error(tmp_path, program, monkeypatch):
    ends, released = [], threading.Event()
    monkeypatch.setattr(checkpoint, "save", lambda *_, **__: released.wait(10))
    monkeypatch.setattr(peers, "end_soon", lambda line, status, last_acts: (ends.append(status), released.set()))
    config = with_checkpoints(8)
    config = dataclasses.replace(config, checkpoint=dataclasses.replace(config.checkpoint, hang_minutes=0.4 / 60))
    with pytest.raises(UserError):
        run(tmp_path, program, BrokenStream(at=10, error=UserError), config=config)
    assert set(ends) == {peers.LOST}


def test_ctrl_c_saves_too(tmp_path, program):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, program, SignalStream(at=8, number=signal.SIGINT))
    assert checkpoint.steps(tmp_path)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize(("number", "status"), [(signal.SIGHUP, 129), (signal.SIGUSR1, 138), (signal.SIGUSR2, 140), (signal.SIGALRM, 124)])
def test_signals_of_clusters_and_a_time_that_is_over_save_too(tmp_path, program, straight, number, status):
    """The first is a closed terminal, the others are what SLURM's --signal sends; SIGALRM is that of a limit on the time."""
    with signals.Stop(at_once=True, seconds=1e6 if number == signal.SIGALRM else None), pytest.raises(SystemExit) as ended:
        run(tmp_path, program, SignalStream(at=8, number=number))
    assert ended.value.code == status
    assert 8 <= checkpoint.steps(tmp_path)[0] <= 12
    assert_same_run(tmp_path, run(tmp_path, program), straight, program)


@pytest.mark.parametrize(("which", "call"), [("curve", 0), ("curve", 2), ("final", 0)])
def test_a_signal_in_an_evaluation_gives_that_up_and_makes_it_anew(tmp_path, program, straight, which, call):
    calls = []

    def signalled(params, asked):
        calls.append(asked)
        if asked == which and calls.count(which) == call + 1:
            os.kill(os.getpid(), signal.SIGTERM)
        signals.look()
        return evaluate(params, asked)

    with pytest.raises(SystemExit) as ended:
        run(tmp_path, program, evaluate=signalled)
    assert ended.value.code == 143
    assert record.read(tmp_path)["status"] == "running"
    assert_same_run(tmp_path, run(tmp_path, program), straight, program)


def test_killed_after_a_checkpoint_continues_from_it(tmp_path, program, straight):
    """A stream that ends the run at step 18 stands for SIGKILL: nothing is saved then; the lines past step 14 must not appear twice."""
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, program, BrokenStream(at=18, error=KeyboardInterrupt), with_checkpoints(7))
    assert checkpoint.steps(tmp_path) == [7, 14]
    with open(tmp_path / metrics.FILE, "a") as file:
        file.write('{"step": 15, "loss": 1.0}\n{"step": 20, "lo')
    found = run(tmp_path, program, config=with_checkpoints(7))
    assert found["resumes"] == [{"step": 14, "execution": []}]
    assert_same_run(tmp_path, found, straight, program)


def test_a_signal_during_the_last_evaluation_ends_the_process_after_the_run(tmp_path, program, straight):
    def signalled(params, which):
        if which == "final":
            os.kill(os.getpid(), signal.SIGTERM)
        return evaluate(params, which)

    with pytest.raises(SystemExit) as ended:
        run(tmp_path, program, evaluate=signalled)
    assert ended.value.code == 143
    assert_same_run(tmp_path, record.read(tmp_path), straight, program)


def test_a_failing_last_evaluation_costs_no_training(tmp_path, program, straight):
    def fails_at_the_end(params, which):
        if which == "final":
            raise ZeroDivisionError("broken metric")
        return evaluate(params, which)

    with pytest.raises(ZeroDivisionError):
        run(tmp_path, program, evaluate=fails_at_the_end)
    found = record.read(tmp_path)
    assert (found["status"], found["reason"]) == ("failed", "ZeroDivisionError: broken metric")
    assert checkpoint.steps(tmp_path) == [24]
    assert_same_run(tmp_path, run(tmp_path, program, BrokenStream(at=0)), straight, program)


def test_the_tokens_of_a_step_are_counted_once(tmp_path, program):
    stream = CountedStream()
    found = run(tmp_path, program, stream, with_checkpoints(7))
    assert stream.asked == list(range(24))
    assert found["tokens"]["document"] == 24 * 64


def test_a_completed_run_is_returned_as_it_is(straight, program):
    workdir, expected = straight
    before = (workdir / record.FILE).stat().st_mtime_ns
    assert run(workdir, program, BrokenStream(at=0)) == expected
    assert (workdir / record.FILE).stat().st_mtime_ns == before


def test_divergence_is_recorded_with_its_step(tmp_path, program):
    config = dataclasses.replace(CONFIG, optim=dataclasses.replace(CONFIG.optim, learning_rate=1e30))
    found = run(tmp_path, program, config=config)
    assert found["status"] == "diverged"
    assert found["reason"].startswith(f"step {found['steps']}: ")
    assert found["final"] is None
    assert 1 < found["steps"] < 24
    assert checkpoint.steps(tmp_path) == []  # no state of a diverged run is kept
    assert json.loads((tmp_path / record.FILE).read_text())["status"] == "diverged"
    assert run(tmp_path, program, config=config) == found


def test_an_evaluation_that_is_not_finite_is_divergence(tmp_path, program):
    found = run(
        tmp_path, program, evaluate=lambda params, which: dict.fromkeys(("nats_per_token", "nats_per_byte", "bits_per_byte"), np.nan)
    )
    assert (found["status"], found["steps"]) == ("diverged", 10)


def test_another_experiment_is_refused_by_name(straight, program):
    workdir, _ = straight
    other = dataclasses.replace(CONFIG, seed=3, optim=dataclasses.replace(CONFIG.optim, learning_rate=0.5))
    with pytest.raises(UserError, match=r"optim.learning_rate.*0\.5.*seed"):
        run(workdir, program, config=other)
    with pytest.raises(UserError, match="fingerprint"):
        train(CONFIG, workdir, StubStream(), program, facts=dataclasses.replace(FACTS, data={"fingerprint": "g"}))


def test_a_change_of_execution_is_recorded(tmp_path, program):
    with pytest.raises(SystemExit):
        run(tmp_path, program, SignalStream(at=5))
    found = run(tmp_path, program, config=with_checkpoints(100))
    assert found["resumes"][0]["execution"] == ["checkpoint.every_steps: null -> 100"]


def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path, program, straight):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, program, BrokenStream(at=18, error=KeyboardInterrupt), with_checkpoints(7))
    data = max((tmp_path / sealed.FOLDER / "00000014" / "state").rglob("d/*"), key=lambda path: path.stat().st_size)
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1  # one bit
    data.write_bytes(content)
    with pytest.raises(UserError, match=r"00000014 is damaged.*--fall_back=older"):
        run(tmp_path, program, config=with_checkpoints(7))
    assert checkpoint.steps(tmp_path) == [7, 14]
    said = []
    found = run(tmp_path, program, config=with_checkpoints(7), log=said.append, fall_back="older")
    assert any("00000014 is damaged" in line and "has changed" in line for line in said)
    assert (tmp_path / sealed.FOLDER / "00000014.aside" / "manifest.json").is_file()
    assert found["resumes"][0]["step"] == 7
    assert_same_run(tmp_path, found, straight, program)


def test_where_no_checkpoint_is_sound_a_flag_begins_anew(tmp_path, program, straight):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, program, BrokenStream(at=18, error=KeyboardInterrupt), with_checkpoints(7))
    for step in (7, 14):
        (tmp_path / sealed.FOLDER / f"{step:08d}" / "meta.json").unlink()
    for flag in (None, "older"):
        with pytest.raises(UserError, match=r"00000014 .*00000007 .*--fall_back=nothing"):
            run(tmp_path, program, config=with_checkpoints(7), fall_back=flag)
    found = run(tmp_path, program, config=with_checkpoints(7), fall_back="nothing")
    assert found["resumes"] == []
    assert checkpoint.steps(tmp_path) == [21, 24]  # the newest that it wrote, not those of the highest number
    assert sorted(path.name for path in (tmp_path / sealed.FOLDER).glob("*.aside")) == ["00000007.aside", "00000014.aside"]
    assert_same_run(tmp_path, found, straight, program)


def test_checkpoints_without_a_record_are_nobodys(tmp_path, program):
    with pytest.raises(SystemExit):
        run(tmp_path, program, SignalStream(at=5))
    (tmp_path / record.FILE).unlink()
    with pytest.raises(UserError, match=r"run\.json"):
        run(tmp_path, program)


def test_several_processes_are_refused(tmp_path, program, monkeypatch):
    monkeypatch.setattr("jax.process_count", lambda: 2)
    with pytest.raises(UserError, match="2 processes"):
        run(tmp_path, program)


def test_two_processes_do_not_share_a_directory(tmp_path, program):
    with record.locked(tmp_path), pytest.raises(UserError, match=str(tmp_path)):
        run(tmp_path, program)


def test_a_full_disk_is_one_line(tmp_path, program, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "replace", full)
    with pytest.raises(UserError, match="No space left"):
        run(tmp_path, program)


def test_a_directory_that_cannot_be_made_is_one_line(tmp_path, program):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file"):
        run(tmp_path / "file" / "run", program)


def test_tensorboard_and_profile_files_appear(tmp_path, program):
    config = dataclasses.replace(CONFIG, log=dataclasses.replace(CONFIG.log, tensorboard=True), train_tokens=8 * 64)
    found = run(tmp_path, program, config=config, profile=(2, 4))
    assert found["steps"] == 8
    (events,) = tmp_path.glob("events.out.tfevents.*")
    assert events.stat().st_size > 100
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))
    with pytest.raises(UserError, match="--profile=24:30"):
        run(tmp_path / "late", program, profile=(24, 30))
