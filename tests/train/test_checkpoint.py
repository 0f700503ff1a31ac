"""Checkpoints: every bit comes back, under its name; damage and misfits are found."""

import dataclasses

import jax
import numpy as np
import pytest

from lm.errors import UserError
from lm.train import checkpoint
from lm.train.placement import abstract_state
from tests.train.conftest import CONFIG
from tests.train.stub import StubModel


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
    said = []
    assert checkpoint.restore(workdir, program.abstract, said.append) is None
    assert path.name in said[0]
    with pytest.raises(UserError, match="damaged"):
        checkpoint.restore_params(workdir, program.abstract.params)


def test_an_unfinished_checkpoint_is_invisible_and_swept(saved, program):
    workdir, state = saved
    torn = workdir / "checkpoints" / "00000007"
    torn.mkdir()
    (torn.parent / "00000008.tmp").mkdir()
    assert checkpoint.steps(workdir) == [0]
    checkpoint.save(workdir, dataclasses.replace(state, step=np.int32(7)), {}, keep=2)
    assert checkpoint.steps(workdir) == [0, 7]
    assert not list(torn.parent.glob("*.tmp"))


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
