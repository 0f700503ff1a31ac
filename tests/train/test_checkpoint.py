"""Checkpoints: every bit comes back, under its name; damage and misfits are found."""

import dataclasses
import shutil
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from lm.errors import UserError
from lm.train import checkpoint, checks, checksum, manifest, sealed
from lm.train.placement import abstract_state
from tests.train.conftest import CONFIG
from tests.train.stub import StubModel

RELEASED = [Path(__file__).parent / name for name in ("format_1", "format_2")]  # written by releases 0.5 and 0.6


@pytest.fixture
def saved(tmp_path, program):
    state = program.init(np.uint32(5))
    checkpoint.save(tmp_path, state, {"note": [0.1, 1e-30]}, keep=2)
    return tmp_path, state


def largest(workdir, step=0):
    return max((workdir / "checkpoints" / f"{step:08d}" / "state").rglob("*"), key=lambda path: path.is_file() and path.stat().st_size)


def test_everything_comes_back_by_name(saved, program):
    workdir, state = saved
    restored = checkpoint.restore(workdir, program.abstract)
    assert restored.host == {"note": [0.1, 1e-30]}
    assert jax.tree.structure(restored.state) == jax.tree.structure(state)
    for name, leaf in checkpoint.named_arrays(restored.state).items():
        np.testing.assert_array_equal(leaf, checkpoint.named_arrays(state)[name], err_msg=name)
        assert leaf.sharding == checkpoint.named_arrays(program.abstract)[name].sharding
    params, step = checkpoint.restore_params(workdir, program.abstract.params)
    assert step == 0
    jax.tree.map(np.testing.assert_array_equal, params, state.params)


def test_a_restore_moves_between_meshes(saved):
    from lm.mesh import MeshConfig
    from lm.sharding import make_mesh

    workdir, state = saved
    config = dataclasses.replace(CONFIG, batch_size=8)
    target = abstract_state(config, StubModel(), make_mesh(MeshConfig(data=4, fsdp=2)))
    restored = checkpoint.restore(workdir, target)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(restored.state), jax.device_get(state))


def test_checkpoints_behind_a_link_are_refused_and_left_alone(tmp_path, program):
    theirs = tmp_path / "theirs"
    (theirs / "00000007.tmp").mkdir(parents=True)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoints").symlink_to(theirs)
    with pytest.raises(UserError, match=str(theirs)):
        checkpoint.save(tmp_path / "run", program.init(np.uint32(0)), {}, keep=1)
    with pytest.raises(UserError, match=str(theirs)):
        checks.check_workdir(CONFIG, tmp_path / "run")
    assert (theirs / "00000007.tmp").is_dir()


def test_a_link_among_checkpoints_is_removed_and_not_its_target(tmp_path, program):
    state, theirs = program.init(np.uint32(0)), tmp_path / "theirs"
    checkpoint.save(tmp_path, state, {}, keep=1)
    (tmp_path / "checkpoints" / "00000000").rename(theirs)
    for name in ("00000001", "00000002.tmp"):
        (tmp_path / "checkpoints" / name).symlink_to(theirs)
    checkpoint.save(tmp_path, dataclasses.replace(state, step=np.int32(3)), {}, keep=1)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["00000003"]
    assert (theirs / "manifest.json").is_file()


def test_the_newest_are_kept(tmp_path, program):
    state = program.init(np.uint32(0))
    for step in (1, 2, 3, 10):
        checkpoint.save(tmp_path, dataclasses.replace(state, step=np.int32(step)), {}, keep=2)
    assert checkpoint.steps(tmp_path) == [3, 10]


@pytest.mark.parametrize("harm", ["flip", "truncate", "delete", "zero"])
def test_damage_is_named_and_not_restored(saved, program, harm):
    workdir, _ = saved
    path = largest(workdir)
    content = bytearray(path.read_bytes())
    if harm == "delete":
        path.unlink()
    elif harm == "truncate":
        path.write_bytes(content[: len(content) // 2])
    else:
        middle = len(content) // 2
        content[middle : middle + 64] = bytes(64) if harm == "zero" else bytes([content[middle] ^ 1]) + content[middle + 1 : middle + 64]
        path.write_bytes(content)
    with pytest.raises(UserError, match=path.name):
        checkpoint.restore(workdir, program.abstract)
    assert checkpoint.steps(workdir) == [0]
    said = []
    assert checkpoint.restore(workdir, program.abstract, said.append, fall_back="nothing") is None
    assert path.name in said[0]
    assert [entry.name for entry in (workdir / "checkpoints").iterdir()] == ["00000000.aside"]


def test_damage_keeps_weights_from_being_read(saved, program):
    workdir, _ = saved
    largest(workdir).unlink()
    with pytest.raises(UserError, match="damaged"):
        checkpoint.restore_params(workdir, program.abstract.params)


def unreadable(path):
    """Puts a file in the place of another that the system cannot read: EIO. Returns what mends that."""
    kept = path.rename(path.with_name("kept"))
    path.symlink_to("/proc/self/mem")
    return lambda: kept.rename(path)


@pytest.mark.parametrize("name", ["manifest.json", "meta.json", "state/_METADATA"])
def test_an_error_of_reading_is_no_damage(saved, program, monkeypatch, name):
    workdir, _ = saved
    mend, pauses = unreadable(workdir / "checkpoints" / "00000000" / name), []
    monkeypatch.setattr(time, "sleep", pauses.append)
    with pytest.raises(UserError, match="Input/output error"):
        checkpoint.restore(workdir, program.abstract, fall_back="nothing")
    assert (len(pauses), checkpoint.steps(workdir)) == (3, [0])
    monkeypatch.setattr(time, "sleep", lambda seconds: mend())
    assert checkpoint.restore(workdir, program.abstract) is not None


def test_a_directory_that_cannot_be_listed_is_no_empty_one(tmp_path, program, monkeypatch):
    (tmp_path / "checkpoints").symlink_to("checkpoints")  # ELOOP
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with pytest.raises(UserError, match="symbolic links"):
        checkpoint.restore(tmp_path, program.abstract, fall_back="nothing")


def test_every_byte_of_a_manifest_counts(saved):
    workdir, _ = saved
    path = workdir / "checkpoints" / "00000000" / "manifest.json"
    content = path.read_bytes()
    for place in {*range(0, len(content), 97), len(content) - 1}:
        path.write_bytes(content[:place] + content[place + 1 :])
        assert sealed.verify(workdir, 0), place
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        assert sealed.verify(workdir, 0), place
    path.write_bytes(content)
    assert not sealed.verify(workdir, 0)


def test_values_are_compared_with_those_that_were_saved(saved, program, monkeypatch, capsys):
    """The files are sound and give other values than the digest of one array is of, as if Orbax had written or read them wrongly."""
    workdir, state = saved
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    folder = workdir / "checkpoints" / "00000000"
    arrays = {name: checksum.of(leaf) for name, leaf in checkpoint.named_arrays(state).items()}
    manifest.seal(folder, arrays | {"params/norm/scale": arrays["params/embed/table"]})
    assert not sealed.verify(workdir, 0)
    with pytest.raises(UserError, match="params/norm/scale"):
        checkpoint.restore(workdir, program.abstract, fall_back="nothing")
    assert checkpoint.main(["verify", str(workdir)]) == 1
    assert "params/norm/scale" in capsys.readouterr().out


def test_the_command_names_every_damage(saved, monkeypatch, capsys):
    workdir, _ = saved
    folder = workdir / "checkpoints" / "00000000"
    for place in (workdir, folder.parent, folder):
        assert checkpoint.main(["verify", str(place)]) == 0
        assert str(folder) in capsys.readouterr().out
    (folder / "state" / "more").touch()
    (folder / "meta.json").unlink()
    assert checkpoint.main(["verify", str(workdir)]) == 1
    said = capsys.readouterr().out
    assert "state/more" in said
    assert "meta.json" in said
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    unreadable(folder / "state" / "_METADATA")
    assert checkpoint.main(["verify", str(workdir)]) == 2
    with pytest.raises(UserError):
        checkpoint.main(["verify", str(workdir / "none")])


def test_only_what_is_sound_is_removed(saved, program):
    """A run that knows none of the older checkpoints removes the sound ones, as far as they are more than it keeps."""
    workdir, state = saved
    for step in (1, 2, 3):
        checkpoint.save(workdir, dataclasses.replace(state, step=np.int32(step)), {}, keep=4)
    largest(workdir, 2).unlink()
    checkpoint.save(workdir, dataclasses.replace(state, step=np.int32(4)), {}, keep=1)
    assert checkpoint.steps(workdir) == [4]
    assert [path.name for path in (workdir / "checkpoints").glob("*.aside")] == ["00000002.aside"]


@pytest.mark.parametrize("workdir", RELEASED, ids=lambda path: path.name)
def test_a_checkpoint_of_an_earlier_release_is_restored(program, workdir):
    restored = checkpoint.restore(workdir, program.abstract)
    assert restored.host == {"note": [0.1, 1e-30]}
    values = {name: np.asarray(leaf, np.float64).sum() for name, leaf in checkpoint.named_arrays(restored.state).items()}
    assert values["params/blocks/up"] == pytest.approx(0.47755423735361546, abs=1e-12)
    assert values["params/norm/scale"] == 8
    assert checkpoint.main(["verify", str(workdir)]) == 0


def test_values_of_the_second_format_are_compared(program, tmp_path, monkeypatch):
    shutil.copytree(RELEASED[1], tmp_path, dirs_exist_ok=True)
    folder = tmp_path / "checkpoints" / "00000000"
    content = manifest.read(folder)
    content["arrays"]["params/norm/scale"] = content["arrays"]["params/embed/table"]
    (folder / manifest.FILE).write_text(manifest._text({**content, "sha256": manifest._own(content)}))
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with pytest.raises(UserError, match="params/norm/scale"):
        checkpoint.restore(tmp_path, program.abstract)


def test_an_unfinished_checkpoint_is_invisible_and_swept(saved, program):
    workdir, state = saved
    torn = workdir / "checkpoints" / "00000008.tmp"
    torn.mkdir()
    (torn.parent / "mine.tmp").mkdir()
    assert checkpoint.steps(workdir) == [0]
    checkpoint.save(workdir, dataclasses.replace(state, step=np.int32(7)), {}, keep=2)
    assert checkpoint.steps(workdir) == [0, 7]
    assert [path.name for path in torn.parent.glob("*.tmp")] == ["mine.tmp"]


def test_a_save_does_not_meet_threads_of_one_that_failed(saved, program):
    """They may write to its folder, and make that anew, while the next save of the same step is under way: that has a folder of its own."""
    workdir, state = saved
    names = []
    for _ in range(2):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(checkpoint, "_orbax_save", lambda path, tree: names.append(path.parent.name))
            with pytest.raises(UserError):
                checkpoint.save(workdir, dataclasses.replace(state, step=np.int32(9)), {}, keep=2)
    assert len(set(names)) == 2
    checkpoint.save(workdir, dataclasses.replace(state, step=np.int32(9)), {}, keep=2)
    assert checkpoint.steps(workdir) == [0, 9]


def test_a_checkpoint_whose_name_cannot_be_flushed_counts_and_no_older_one_is_removed(saved, program):
    workdir, state = saved
    flush = manifest.flush

    def failing(folder):
        if folder.name == "checkpoints":
            raise OSError(5, "Input/output error")
        flush(folder)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifest, "flush", failing)
        assert not checkpoint.save(workdir, dataclasses.replace(state, step=np.int32(9)), {}, keep=1)
    assert checkpoint.steps(workdir) == [0, 9]
    assert checkpoint.save(workdir, dataclasses.replace(state, step=np.int32(10)), {}, keep=1, known=[0, 9])
    assert [path.name for path in (workdir / "checkpoints").iterdir()] == ["00000010"]


def test_another_model_is_refused_by_the_name_of_a_weight(saved, program, mesh):
    workdir, _ = saved
    wider = abstract_state(CONFIG, StubModel(width=16), mesh)
    with pytest.raises(UserError, match=r"params/blocks/bias .*\[2,16\].*\[2,32\]"):
        checkpoint.restore(workdir, wider)
    params = dict(program.abstract.params) | {"extra": wider.params["norm"]}
    with pytest.raises(UserError, match="extra"):
        checkpoint.restore_params(workdir, params)


def test_missing_ones_are_named(tmp_path, program):
    assert checkpoint.restore(tmp_path, program.abstract) is None
    with pytest.raises(UserError, match=str(tmp_path)):
        checkpoint.restore_params(tmp_path, program.abstract.params)
    with pytest.raises(UserError, match="step 5"):
        checkpoint.restore_params(tmp_path, program.abstract.params, step=5)


def test_a_disk_without_room_is_found_before_writing(saved, program, monkeypatch):
    workdir, state = saved
    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 10}))
    with pytest.raises(UserError, match="10 bytes"):
        checkpoint.save(workdir, dataclasses.replace(state, step=np.int32(9)), {}, keep=1)
    assert checkpoint.steps(workdir) == [0]
