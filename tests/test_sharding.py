"""Rules, meshes and what they refuse."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, PartitionSpec

from lm.errors import UserError
from lm.mesh import AXES, MeshConfig
from lm.sharding import RULES, Rules, constrain, is_split, make_mesh, placed, shardings

MESH = MeshConfig(data=2, fsdp=2, tensor=2)


def test_a_mesh_has_all_axes_and_they_are_auto():
    mesh = make_mesh(MESH)
    assert mesh.axis_names == AXES
    assert dict(mesh.shape) == {"data": 2, "fsdp": 2, "stage": 1, "expert": 1, "context": 1, "tensor": 2}
    assert set(mesh.axis_types) == {AxisType.Auto}
    assert make_mesh(MeshConfig(fsdp=2)).shape["data"] == 4
    assert make_mesh(MeshConfig(), jax.devices()[:1]).size == 1


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (MeshConfig(data=3), "data=3 .*8"),
        (MeshConfig(fsdp=16), "fsdp=16"),
        (MeshConfig(tensor=0), "mesh.tensor=0"),
        (MeshConfig(expert=2), "mesh.expert=2"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(config, message):
    with pytest.raises(UserError, match=message):
        make_mesh(config)


@dataclasses.dataclass(frozen=True)
class Chip:
    """The attributes of a device that a mesh reads."""

    id: int
    platform: str
    device_kind: str
    slice_index: int = 0
    coords: tuple[int, ...] = ()
    core_on_chip: int = 0
    process_index: int = 0


@pytest.mark.parametrize("sizes", [(64,), (16, 4), (32, 2), (8, 8), (2, 2, 16)])
def test_a_torus_takes_any_mesh_of_its_size(sizes):
    """Also axes that are no product of its sides."""
    chips = [Chip(i, "tpu", "TPU v5", coords=at) for i, at in enumerate(itertools.product(range(4), repeat=3))]
    found = placed(sizes, chips)
    assert found.shape == sizes
    assert sorted(chip.id for chip in found.flat) == list(range(64))


def test_a_mesh_holds_gpus_of_several_nodes_and_tpus_of_one_slice():
    gpus = [Chip(i, "gpu", "NVIDIA H100", slice_index=i // 8) for i in range(16)]
    assert [[gpu.id for gpu in row] for row in placed((2, 8), gpus)] == [list(range(8)), list(range(8, 16))]
    with pytest.raises(UserError, match="2 TPU slices"):
        placed((2, 8), [dataclasses.replace(gpu, platform="tpu") for gpu in gpus])


def test_rules_split_by_name_and_refuse_collisions():
    assert RULES.spec(("embed", "heads", None)) == PartitionSpec("fsdp", "tensor", None)
    assert RULES.gathered().spec(("embed", "heads", None)) == PartitionSpec(None, "tensor", None)
    with pytest.raises(UserError, match="'tensor'"):
        dataclasses.replace(RULES, embed="tensor").spec(("embed", "heads"))
    with pytest.raises(AttributeError):
        RULES.spec(("hedas",))
    with pytest.raises(TypeError):
        Rules(hedas="tensor")  # type: ignore[call-arg]


def test_optimizer_state_is_split_over_data_too():
    assert RULES.optimizer().spec(("embed", "heads", None)) == PartitionSpec(("fsdp", "data"), "tensor", None)
    assert RULES.optimizer().spec(("norm",)) == PartitionSpec(None)
    with pytest.raises(UserError, match="'data'"):
        dataclasses.replace(RULES, ffn="data").optimizer().spec(("embed", "ffn"))


def test_what_is_split_follows_the_current_mesh():
    assert not is_split("act_vocab")
    with jax.set_mesh(make_mesh(MESH)):
        assert is_split("act_vocab")
        assert not is_split("act_length")


def test_splits_must_divide():
    mesh, axes = make_mesh(MESH), {"a": {"kernel": ("embed", "ffn")}}
    fits = {"a": {"kernel": jax.ShapeDtypeStruct((4, 6), jnp.float32)}}
    assert shardings(axes, mesh, abstract=fits)["a"]["kernel"].shard_shape((4, 6)) == (2, 3)
    with pytest.raises(UserError, match="a/kernel: axis 'ffn' of size 5 cannot be split 2 ways"):
        shardings(axes, mesh, abstract={"a": {"kernel": jax.ShapeDtypeStruct((4, 5), jnp.float32)}})


def test_constraints_hold_on_a_mesh_and_vanish_without():
    x = jnp.ones((4, 6, 8))
    assert constrain(x, "act_batch", "act_length", "act_ffn") is x
    with jax.set_mesh(make_mesh(MESH)):
        placed = jax.jit(lambda x: constrain(x * 1, "act_batch", "act_length", "act_ffn"))(x)
        assert placed.sharding.shard_shape(x.shape) == (1, 6, 4)
        with pytest.raises(UserError, match="'act_batch' of size 3"):
            jax.jit(lambda x: constrain(x, "act_batch", None, None))(x[:3])
