"""Silent corruption: a bit that flips in the weights in memory is found within the period, and nothing of it is saved."""

import dataclasses
import signal

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from lm.errors import UserError
from lm.mesh import MeshConfig
from lm.sharding import make_mesh
from lm.train import checkpoint, checksum, copies, integrity, record, signals, watchdog
from lm.train.config import IntegrityConfig
from lm.train.program import compile_program
from tests.train.conftest import CONFIG
from tests.train.stub import StubModel
from tests.train.test_loop import assert_same_run, run, with_checkpoints

EXPONENT = 30  # the highest bit of a float32's exponent
SPECS = [
    PartitionSpec(),
    PartitionSpec("fsdp"),
    PartitionSpec(None, "fsdp"),
    PartitionSpec("fsdp", "data"),
    PartitionSpec(("data", "fsdp")),
]


@pytest.fixture(scope="module")
def straight(tmp_path_factory, program):
    workdir = tmp_path_factory.mktemp("straight")
    return workdir, run(workdir, program)


@pytest.fixture(scope="module")
def replicated():
    """The program of four devices that all hold the whole state."""
    return compile_program(CONFIG, StubModel(), make_mesh(MeshConfig(data=4), devices=jax.devices()[:4]))


def flipped(leaf, device, bit=EXPONENT):
    """The array with one bit of its largest number flipped in the memory of one device; of a smaller one updates may round it away."""
    parts = [np.array(part.data) for part in leaf.addressable_shards]
    numbers = parts[device].reshape(-1)
    numbers.view(np.uint32)[np.abs(numbers).argmax()] ^= np.uint32(1) << np.uint32(bit)
    on = [jax.device_put(part, shard.device) for part, shard in zip(parts, leaf.addressable_shards, strict=True)]
    return jax.make_array_from_single_device_arrays(leaf.shape, leaf.sharding, on)


def flipping(program, at, device=0, **how):
    """The program, but for a bit that flips in params/blocks/up after step `at`."""

    def run(state, *rest):
        state, *results = program.run(state, *rest)
        if int(state.step) == at:
            params = state.params | {"blocks": state.params["blocks"] | {"up": flipped(state.params["blocks"]["up"], device, **how)}}
            state = dataclasses.replace(state, params=params)
        return state, *results

    return dataclasses.replace(program, run=run)


def checked(every, saves=None, **how):
    return dataclasses.replace(with_checkpoints(saves), integrity=IntegrityConfig(every_steps=every, **how))


@pytest.mark.parametrize("dtype", [np.float32, jax.numpy.bfloat16, np.int8, np.bool_])
def test_devices_find_the_checksum_of_the_host(dtype):
    mesh = make_mesh(MeshConfig(data=2, fsdp=2), devices=jax.devices()[:4])
    array = np.random.default_rng(0).integers(-9, 9, (8, 4, 3)).astype(dtype)
    leaves = [jax.device_put(array, NamedSharding(mesh, spec)) for spec in SPECS]
    found = copies.sums(leaves)
    assert not copies.difference(found)
    np.testing.assert_array_equal(copies.by_devices(leaves), found.of)
    for leaf, sums in zip(leaves, found.of, strict=True):
        index = leaf.sharding.devices_indices_map(leaf.shape)
        parts = {str(index[device]): tuple(map(int, sums[place])) for place, device in enumerate(mesh.devices.flat)}
        assert checksum.text(checksum.added(list(parts.values()))) == checksum.of(array)
    assert copies.share(leaves) == 3 / 5


def test_devices_find_a_copy_that_differs():
    mesh = make_mesh(MeshConfig(data=4), devices=jax.devices()[:4])
    leaf = flipped(jax.device_put(np.ones((8, 4), np.float32), NamedSharding(mesh, PartitionSpec())), 2)
    found = copies.Sums((jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding),), copies.by_devices([leaf]))
    assert [(one.leaf, one.others) for one in copies.difference(found)] == [(0, (jax.devices()[2],))]


@pytest.mark.parametrize("bit", [0, EXPONENT, 31])
def test_a_copy_with_a_flipped_bit_is_found_and_its_device_named(tmp_path, replicated, bit):
    """It flips after step 10; step 8 was saved and checked. The weights of one device go another way from there, and step 12 finds it."""
    with pytest.raises(UserError, match=r"after step 12: .* on \S*3 differs .*sound after step 8"):
        run(tmp_path, flipping(replicated, 10, device=3, bit=bit), config=checked(6, saves=8))
    assert checkpoint.steps(tmp_path) == [8]
    found = run(tmp_path, replicated, config=checked(6, saves=8))
    assert (found["status"], found["resumes"][0]["step"]) == ("completed", 8)
    assert {name: found["integrity"][name] for name in ("to", "share_with_copies", "replayed_steps")} == {
        "to": 24, "share_with_copies": 1.0, "replayed_steps": 0,
    }  # fmt: skip


def test_a_checkpoint_between_checks_is_checked_too(tmp_path, replicated):
    with pytest.raises(UserError, match="after step 14"):
        run(tmp_path, flipping(replicated, 13, device=1), config=checked(24, saves=7))
    assert checkpoint.steps(tmp_path) == [7]


def test_without_copies_repeated_steps_find_a_flipped_bit(tmp_path, program, straight):
    """The weights flip after step 9 and are trained on. All steps are repeated, and those up to step 12 give others."""
    with pytest.raises(UserError, match=r"after step 12: .*the last 6 steps, repeated.*sound after step 6"):
        run(tmp_path, flipping_once(program, 10), config=checked(6, saves=6, replay_steps=6))
    assert checkpoint.steps(tmp_path) == [6]
    found = run(tmp_path, program, config=checked(6, saves=6, replay_steps=6))
    assert found["integrity"]["replayed_steps"] == 24
    assert_same_run(tmp_path, found | {"integrity": None}, (straight[0], straight[1] | {"integrity": None}), program)


def flipping_once(program, at, **how):
    """As `flipping`, but not when the step is repeated."""
    flip, runs = flipping(program, at, **how), []

    def run(state, *rest):
        first = int(state.step)
        runs.append(first)
        return (flip if runs.count(first) == 1 else program).run(state, *rest)

    return dataclasses.replace(program, run=run)


def asking(program, count):
    """The program, but for a signal that comes when steps up to 12 are made for this time; and what the watchdog has seen at each."""
    seen = []

    def run(state, *rest):
        if int(state.step) == 6:
            seen.append([])
            if len(seen) == count:
                signals.current.ask(signal.SIGTERM)
        if seen and int(state.step) < 12:
            seen[-1].append(watchdog._signs)
        return program.run(state, *rest)

    return dataclasses.replace(program, run=run), seen


def test_steps_that_are_repeated_count_for_the_watchdog_and_are_given_up_after_a_signal(tmp_path, program, straight):
    """The state is saved, because nothing is known against it."""
    config = checked(6, replay_steps=6)
    asked, seen = asking(program, 2)
    with pytest.raises(SystemExit):
        run(tmp_path, asked, config=config)
    assert checkpoint.steps(tmp_path) == [12]
    assert [len(turn) for turn in seen] == [2, 1]  # of 4 and 2 steps
    watched, seen = asking(program, None)
    found = run(tmp_path / "whole", watched, config=config)
    assert [len(turn) for turn in seen] == [2, 2]
    assert seen[1][0] < seen[1][1]
    found = run(tmp_path, program, config=config)
    assert_same_run(tmp_path, found | {"integrity": None}, (straight[0], straight[1] | {"integrity": None}), program)


def test_what_was_given_otherwise_once_is_not_saved_after_a_signal(tmp_path, program):
    asked, seen = asking(flipping_once(program, 10), 3)
    with pytest.raises(UserError, match=r"after step 12: the last 6 steps, repeated, .*had to end"):
        run(tmp_path, asked, config=checked(6, replay_steps=6))
    assert (checkpoint.steps(tmp_path), [len(turn) for turn in seen]) == ([], [2, 2, 1])


def test_by_default_the_last_step_of_a_period_is_repeated_where_nothing_has_copies(tmp_path, program, straight):
    found = run(tmp_path, program, config=checked(8))
    assert {name: found["integrity"][name] for name in ("to", "checks", "replayed_steps", "replay_steps")} == {
        "to": 24, "checks": 3, "replayed_steps": 3, "replay_steps": 1,
    }  # fmt: skip
    assert_same_run(tmp_path, found | {"integrity": None}, (straight[0], straight[1] | {"integrity": None}), program)
    with pytest.raises(UserError, match="the last step, repeated"):
        run(tmp_path / "broken", flipping_once(program, 16), config=checked(8))


def test_what_repeats_never_is_an_alarm(tmp_path, program, straight):
    """A device that computes otherwise every time cannot be told from operations whose order is not fixed."""
    bits = iter(range(20))

    def run_unsteadily(state, *rest):
        return flipping(program, 8, bit=next(bits)).run(state, *rest)

    said = []
    found = run(tmp_path, dataclasses.replace(program, run=run_unsteadily), config=checked(8), log=said.append)
    assert [line for line in said if line.startswith("ALARM")]
    assert (found["status"], found["integrity"]["replay_steps"]) == ("completed", 0)


def test_devices_in_the_places_of_their_neighbours(tmp_path, replicated):
    """A program gives the same bits there; where all parts of one always come out otherwise, a device is at fault."""
    config = checked(12, replay_steps=2, replay_elsewhere=True)
    found = run(tmp_path / "sound", replicated, config=config)
    assert (found["integrity"]["replayed_steps"], found["integrity"]["elsewhere"]) == (4, True)
    moved = integrity._moved(replicated)
    for device in range(4):
        moved = flipping(moved, 12, device=device, bit=3)
    with pytest.raises(UserError, match="when devices change places"):
        run(tmp_path / "wrong", dataclasses.replace(replicated, on=lambda mesh: moved), config=config)


def test_a_short_run_is_not_checked(tmp_path, program):
    assert "integrity" not in run(tmp_path, program, config=checked(25))
    assert "integrity" not in record.read(tmp_path)


def test_neighbours_need_several_devices(tmp_path, program):
    with pytest.raises(UserError, match="replay_elsewhere=false"):
        run(tmp_path, program, config=checked(8, replay_elsewhere=True))
