"""Laws of bad steps: they change nothing, bounds end a run, a rewind is a run on other batches, spikes are those of the definition."""

import dataclasses
import gc
import json
import math
import shutil

import jax
import numpy as np
import pytest

from lm.config import experiment_part, identity
from lm.errors import UserError
from lm.train import bundle, checkpoint, metrics, record, sealed, spikes
from lm.train.bad_steps import BadSteps, Rewind
from lm.train.checks import check_bad_steps
from lm.train.config import BadStepsConfig
from lm.train.derived import hyper_of, shape_of
from lm.train.feed import to_device
from lm.train.loop import train
from lm.train.program import compile_program
from tests.train.conftest import CONFIG, FACTS
from tests.train.stub import StubModel, StubStream


@dataclasses.dataclass(frozen=True)
class OddStream(StubStream):
    """Multiplies the weights of one target of some batches by a factor. `passed` batches are not there at all."""

    odd: tuple[tuple[int, float], ...] = ()
    passed: range = range(0)

    def __getitem__(self, k):
        k += len(self.passed) if k >= self.passed.start and self.passed else 0
        batch, factor = super().__getitem__(k), dict(self.odd).get(k)
        if factor is not None:
            batch.weights[1, 3] *= factor
        return batch


@dataclasses.dataclass(frozen=True)
class KilledStream(OddStream):
    at: int = 0

    def iterate(self, start, stop):
        for k in range(start, stop):
            if k == self.at:
                raise KeyboardInterrupt
            yield self[k]


def run(workdir, program, stream, config=CONFIG, **bad_steps):
    config = dataclasses.replace(config, bad_steps=BadStepsConfig(**bad_steps))
    return train(config, workdir, stream, program, facts=FACTS)


def with_saves(every, keep=2):
    return dataclasses.replace(CONFIG, checkpoint=dataclasses.replace(CONFIG.checkpoint, every_steps=every, keep=keep))


def arrays(workdir, program):
    state, _ = checkpoint.restore(workdir, program.abstract)
    return checkpoint.named_arrays(state)


def assert_equal_arrays(found, expected):
    assert list(found) == list(expected)
    for name in found:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


@pytest.mark.parametrize("factor", [math.nan, math.inf, 1e38])
def test_a_bad_step_changes_the_count_of_steps_and_nothing_else(program, factor):
    """The last factor is finite, and so is the loss; the norm of the gradient is not."""
    batches, hyper = OddStream(odd=((2, factor),)), hyper_of(CONFIG)
    state, seen = program.init(np.uint32(0)), []
    for k in range(4):
        seen.append(jax.device_get(state))
        state, scalars, _ = program.run(state, None, to_device([batches[k]], 4, program.batch_shardings), hyper, np.int32(1))
        by_name = dict(zip(program.scalars, np.asarray(scalars)[0], strict=True))
        assert by_name["skipped"] == (k == 2)
        assert np.isfinite([by_name["loss"], by_name["grad_norm"]]).all() == (k != 2)
    jax.tree.map(np.testing.assert_array_equal, (seen[3].params, seen[3].opt_state), (seen[2].params, seen[2].opt_state))
    assert seen[3].step == 3
    assert not np.array_equal(state.params["embed"]["table"], seen[3].params["embed"]["table"])


def test_a_run_goes_on_past_bad_steps_and_says_which(tmp_path, program):
    """Killed and continued, it is the same run bit for bit, its counts too."""
    odd = ((3, math.nan), (9, math.inf), (17, math.nan))
    found = run(tmp_path / "whole", program, OddStream(odd=odd))
    assert (found["status"], found["steps"], found["tokens"]["loss"]) == ("completed", 24, 21 * 64)
    assert found["bad_steps"]["count"] == 3
    assert [one["step"] for one in found["bad_steps"]["listed"]] == [4, 10, 18]
    lines = metrics.read(tmp_path / "whole")
    assert [row.get("skipped") for row in lines] == [1, 1, None, 1, None]
    assert all(math.isfinite(row["loss"]) for row in lines)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed", program, KilledStream(odd=odd, at=15), with_saves(6))
    again = run(tmp_path / "killed", program, OddStream(odd=odd), with_saves(6))
    assert again["resumes"][0]["step"] == 12
    assert again["bad_steps"] == found["bad_steps"]
    assert again["tokens"] == found["tokens"]
    assert_equal_arrays(arrays(tmp_path / "killed", program), arrays(tmp_path / "whole", program))
    assert [row["loss"] for row in metrics.read(tmp_path / "killed")] == [row["loss"] for row in lines]


def test_what_reproduces_a_bad_step_is_kept(tmp_path, program):
    odd = tuple((k, math.nan) for k in (1, 8, 12, 16, 20))
    run(tmp_path, program, OddStream(odd=odd), with_saves(6, keep=1))
    folders = sorted(path.name for path in (tmp_path / bundle.FOLDER).iterdir())
    assert folders == ["00000002", "00000009", "00000013"]  # and no more than three
    step, (batch,) = bundle.read(tmp_path / bundle.FOLDER / "00000009")
    assert (step["step"], step["batch"], step["seed"], step["loss"], step["checkpoint"]) == (9, 8, 0, "nan", 6)
    for name, value in batch.items():
        np.testing.assert_array_equal(value, getattr(OddStream(odd=odd)[8], name))
    assert checkpoint.steps(tmp_path) == [24]
    state, _ = checkpoint.restore(tmp_path / bundle.FOLDER / "00000009", program.abstract)  # though the run has removed its own
    assert int(state.step) == 6
    assert json.loads((tmp_path / bundle.FOLDER / "00000009" / record.FILE).read_text())["bad_steps"]["count"] == 2


def test_bounds_end_a_run(tmp_path, program):
    def ended(name, bad, **how):
        found = run(tmp_path / name, program, OddStream(odd=tuple((k, math.nan) for k in bad)), **how)
        return found["status"], found["steps"]

    assert ended("row", range(6, 20), in_a_row=3) == ("diverged", 9)
    assert ended("apart", (6, 7, 9, 10, 12, 13), in_a_row=3) == ("completed", 24)
    assert ended("share", (2, 5, 8, 11), share=0.3, window=10) == ("diverged", 12)
    assert ended("few", (2, 5, 12, 15), share=0.3, window=10) == ("completed", 24)
    assert ended("stop", (6,), policy="stop") == ("diverged", 7)
    for wrong in ({"in_a_row": 0}, {"window": 1}, {"spike": 0.0}, {"share": -0.1}, {"rewind_every": 0}):
        with pytest.raises(UserError, match=f"bad_steps.{next(iter(wrong))}"):
            check_bad_steps(BadStepsConfig(**wrong))


def test_a_run_that_goes_back_is_the_run_on_the_batches_that_are_left(tmp_path, program):
    """Batch 12 is bad and step 10 the state before it: batches 10, 11 and 12 are passed over. Killed at any time, it does the same."""
    stream = OddStream(odd=((12, math.nan),))
    straight = run(tmp_path / "straight", program, OddStream(passed=range(10, 13)))
    found = run(tmp_path / "back", program, stream, policy="rewind", rewind_every=5)
    assert found["bad_steps"]["rewinds"] == [{"step": 13, "to": 10, "batch": 13}]
    assert found["tokens"] == straight["tokens"]
    expected = arrays(tmp_path / "straight", program)
    assert_equal_arrays(arrays(tmp_path / "back", program), expected)
    wanted = [(row["step"], row["loss"]) for row in metrics.read(tmp_path / "straight")]
    assert [(row["step"], row["loss"]) for row in metrics.read(tmp_path / "back")] == wanted
    for at in (12, 22):  # before the bad step is known; long after it
        workdir = tmp_path / f"killed{at}"
        with pytest.raises(KeyboardInterrupt):
            run(workdir, program, KilledStream(odd=stream.odd, at=at), with_saves(3, keep=1), policy="rewind", rewind_every=5)
        again = run(workdir, program, stream, with_saves(3, keep=1), policy="rewind", rewind_every=5)
        assert again["resumes"]
        assert again["bad_steps"]["rewinds"] == found["bad_steps"]["rewinds"]
        assert_equal_arrays(arrays(workdir, program), expected)
        assert [(row["step"], row["loss"]) for row in metrics.read(workdir)] == wanted


def test_a_step_that_is_bad_again_on_another_batch_has_a_bundle_of_its_own(tmp_path, program):
    """Batches 2 and 5 are bad; without batches 0 to 2 the third step is on batch 5."""
    found = run(tmp_path, program, OddStream(odd=((2, math.nan), (5, math.nan))), policy="rewind", rewind_every=10)
    assert [one["step"] for one in found["bad_steps"]["listed"]] == [3, 3]
    bundles = {path.name: bundle.read(path)[0]["batch"] for path in (tmp_path / bundle.FOLDER).iterdir()}
    assert bundles == {"00000003": 2, "00000003-batch-5": 5}


def test_going_back_has_bounds_and_may_reach_the_start(tmp_path, program):
    found = run(tmp_path / "start", program, OddStream(odd=((2, math.nan),)), policy="rewind", rewind_every=10)
    assert found["status"] == "completed"
    assert_equal_arrays(
        arrays(tmp_path / "start", program),
        run(tmp_path / "other", program, OddStream(passed=range(3))) and arrays(tmp_path / "other", program),
    )
    found = run(tmp_path / "ever", program, OddStream(odd=tuple((k, math.nan) for k in range(12, 99))), policy="rewind", in_a_row=3)
    assert (found["status"], found["bad_steps"]["count"]) == ("diverged", 3)


def test_going_back_takes_the_state_that_it_was_to_take_or_a_flag_says_which(tmp_path, program):
    """Step 23 is bad and the checkpoint of step 20 damaged: nothing is removed. With the flag it is the run without batches 10 to 22."""

    class Damaging(OddStream):
        def iterate(self, start, stop):
            for k in range(start, stop):
                if k == 21:  # the save of step 21 has waited for that of step 20
                    (checkpoint.path_of(tmp_path, 20) / "meta.json").write_bytes(b"")
                yield self[k]

    odd, config, how = ((22, math.nan),), with_saves(7, keep=9), {"policy": "rewind", "rewind_every": 10}
    for stream, words in ((Damaging(odd=odd), "00000020.*=older"), (OddStream(odd=odd), "00000020.*=older")):
        with pytest.raises(UserError, match=words):
            run(tmp_path, program, stream, config, **how)
        assert checkpoint.steps(tmp_path) == [7, 10, 14, 20, 21]
    config = dataclasses.replace(config, bad_steps=BadStepsConfig(**how))
    found = train(config, tmp_path, OddStream(odd=odd), program, facts=FACTS, fall_back="older")
    assert found["bad_steps"]["rewinds"] == [{"step": 23, "to": 10, "batch": 23}]
    assert {path.name for path in (tmp_path / sealed.FOLDER).glob("*.aside")} == {f"{step:08d}.aside" for step in (14, 20, 21)}
    run(tmp_path / "straight", program, OddStream(passed=range(10, 23)))
    assert_equal_arrays(arrays(tmp_path, program), arrays(tmp_path / "straight", program))


def test_going_back_needs_a_state_and_holds_one_at_a_time(tmp_path, program, monkeypatch):
    """The checkpoint of step 20 is gone: the start is no substitute unless a flag says so."""
    held, restore, shape = [], checkpoint.restore, program.abstract.params["embed"]["table"].shape

    def tables():
        return sum(one.shape == shape for one in jax.live_arrays())

    def counted(*args, **how):
        held.append(tables())
        return restore(*args, **how)

    class Losing(OddStream):
        def iterate(self, start, stop):
            for k in range(start, stop):
                if k == 23:
                    shutil.rmtree(checkpoint.path_of(tmp_path, 20))
                yield self[k]

    gc.collect()
    before = tables()
    monkeypatch.setattr(checkpoint, "restore", counted)
    config, how = with_saves(23), {"policy": "rewind", "rewind_every": 20}
    with pytest.raises(UserError, match=r"step 24 is bad.* step 20 .*=nothing"):
        run(tmp_path, program, Losing(odd=((23, math.nan),)), config, **how)
    assert checkpoint.steps(tmp_path) == [23]
    config = dataclasses.replace(config, bad_steps=BadStepsConfig(**how))
    found = train(config, tmp_path, OddStream(odd=((23, math.nan),)), program, facts=FACTS, fall_back="nothing")
    assert found["bad_steps"]["rewinds"] == [{"step": 24, "to": 0, "batch": 24}]
    assert held[-1] <= before


def test_batches_of_steps_after_several_returns():
    seen = BadSteps(BadStepsConfig(policy="rewind", rewind_every=5))
    for step, to in ((13, 10), (12, 10), (18, 15)):
        seen.add(step, "")
        with pytest.raises(Rewind):
            seen.judge("")
        seen.go_back(step, to)
    # batches 10..12 are passed over, then 13 and 14, and later those of steps 16 to 18
    assert [seen.batch_of(done) for done in (0, 9, 10, 14, 15, 20)] == [0, 9, 15, 19, 23, 28]
    assert list(seen.batches(8, 17)) == [(8, 10), (15, 20), (23, 25)]
    assert list(BadSteps(seen._config, json.loads(json.dumps(seen.carried()))).batches(8, 17)) == list(seen.batches(8, 17))


def test_the_window_is_robust_and_takes_sound_steps_only():
    rng = np.random.default_rng(0)
    window, values = spikes.empty(32), rng.normal(3.5, 0.2, (200, 2)).astype(np.float32)
    values[[50, 90, 91]] = [[10.0, 3.5], [np.nan, 3.5], [3.5, 6.0]]
    is_spike, with_step = jax.jit(spikes.is_spike, static_argnums=2), jax.jit(spikes.with_step)
    taken: list = []
    for k, value in enumerate(values):
        last = np.asarray(taken[-32:])
        middle = np.median(last, axis=0) if taken else 0.0
        scale = np.maximum(1.4826 * np.median(np.abs(last - middle), axis=0), 0.01) if taken else 0.0
        expected = len(taken) >= spikes.FEWEST and bool((value > middle + 6 * scale).any())
        assert bool(is_spike(window, value, 6.0)) == expected == (k in (50, 91))
        sound = not expected and bool(np.isfinite(value).all())
        window = with_step(window, value, np.bool_(sound))
        taken += [value] if sound else []
    assert int(window.steps) == 197
    np.testing.assert_array_equal(np.sort(window.values_2W[0]), np.sort(np.asarray(taken[-32:])[:, 0]))


def test_a_batch_of_nonsense_is_a_spike_and_enters_neither_weights_nor_window(tmp_path, mesh):
    """Targets of one batch are shuffled; one is not finite. The state carries the window, so a killed run goes on the same."""

    @dataclasses.dataclass(frozen=True)
    class Nonsense(KilledStream):
        def __getitem__(self, k):
            batch = super().__getitem__(k)
            return dataclasses.replace(batch, targets=batch.targets[:, ::-1].copy()) if k == 90 else batch

    config = dataclasses.replace(CONFIG, train_tokens=120 * 64, bad_steps=BadStepsConfig(spike=6.0, window=24))
    program = compile_program(config, StubModel(), mesh)
    assert shape_of(config) != shape_of(CONFIG)
    stream = Nonsense(odd=((60, math.nan),), at=999)
    found = run(tmp_path / "whole", program, stream, config, spike=6.0, window=24)
    assert [one["step"] for one in found["bad_steps"]["listed"]] == [61, 91]
    saving = dataclasses.replace(config, checkpoint=dataclasses.replace(config.checkpoint, every_steps=80))
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed", program, dataclasses.replace(stream, at=100), saving, spike=6.0, window=24)
    again = run(tmp_path / "killed", program, stream, config, spike=6.0, window=24)
    assert again["bad_steps"] == found["bad_steps"]
    expected = arrays(tmp_path / "whole", program)
    assert int(expected["spikes/steps"]) == 118
    assert_equal_arrays(arrays(tmp_path / "killed", program), expected)


def test_settings_are_part_of_what_a_run_is_and_their_defaults_are_not():
    """Runs of before have the same id, and so has a study; other settings are another run."""
    default = identity(CONFIG)
    assert "bad_steps" in experiment_part(CONFIG)
    assert identity(dataclasses.replace(CONFIG, bad_steps=BadStepsConfig())) == default
    for field in dataclasses.fields(BadStepsConfig):
        other = BadStepsConfig(**{field.name: "stop" if field.name == "policy" else 7})
        assert identity(dataclasses.replace(CONFIG, bad_steps=other)) != default


def test_a_diverged_run_that_is_opened_again_goes_on_from_its_newest_checkpoint(tmp_path, program):
    """Its numbers were bad on a faulty device; on a sound one it is the undisturbed run bit for bit."""
    run(tmp_path / "sound", program, StubStream(), policy="stop")
    found = run(tmp_path / "again", program, OddStream(odd=((15, math.nan),)), with_saves(6), policy="stop")
    assert (found["status"], found["steps"]) == ("diverged", 16)
    assert run(tmp_path / "again", program, StubStream(), with_saves(6), policy="stop") == found  # not unless it is asked for
    record.write(tmp_path / "again", record.reopened(found))
    assert run(tmp_path / "again", program, StubStream(), with_saves(6), policy="stop")["resumes"][0]["step"] == 12
    assert_equal_arrays(arrays(tmp_path / "again", program), arrays(tmp_path / "sound", program))


@pytest.mark.parametrize("damage", ["cut", "flip", "list", "key"])
def test_a_damaged_bundle_is_refused_in_one_line(tmp_path, damage):
    step = {"step": 8, "batch": 7, "loss": "nan", "grad_norm": "nan", "checkpoint": None}
    np.savez(tmp_path / "batch.npz", tokens=np.zeros((8, 32), np.int32))
    whole = (tmp_path / "batch.npz").read_bytes()
    if damage in ("cut", "flip"):
        at = len(whole) // 2
        (tmp_path / "batch.npz").write_bytes(whole[:at] + (b"" if damage == "cut" else bytes([whole[at] ^ 255]) + whole[at + 1 :]))
    content = [step] if damage == "list" else {k: v for k, v in step.items() if k != "batch"} if damage == "key" else step
    (tmp_path / "step.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"step\.json|cannot be read"):
        bundle.read(tmp_path)
