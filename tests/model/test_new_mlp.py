"""A kind of feed-forward layer that only this file knows: everything that counts, checks and chooses knows it too."""

import dataclasses
import math
from typing import Any, ClassVar, Union

import jax
import pytest
from model.counting import check_parameters, check_products
from model.ledger_cases import LLAMA
from model.test_memory import PLAIN, allocated

import lm.config as config_lib
from lm.errors import UserError
from lm.hf import families
from lm.mesh import MeshConfig
from lm.model.activations import activate
from lm.model.config import MLPConfig, ModelConfig
from lm.model.memory import activation_bytes
from lm.model.parts.component import FeedForward, LinearSpec, Refusals, sizes_of
from lm.preflight.formula import guess
from lm.preflight.topologies import parse
from lm.rows import RowShape
from lm.sharding import make_mesh
from lm.train import mesh_fit
from lm.train.config import RunConfig


@dataclasses.dataclass(frozen=True)
class Deep(FeedForward):
    """Three layers: down(relu(middle(relu(up(x)))))."""

    name: ClassVar[str] = "deep"
    d_ff: int = 16
    d_middle: int = 8

    def apply(self, layer: Any, x_BTD: Any) -> Any:
        return layer.down(activate(layer.middle(layer.split(activate(layer.up(x_BTD), "relu"))), "relu"))

    def linears(self, width: int, out_gain: float = 1.0) -> dict[str, LinearSpec]:
        return {
            "up": LinearSpec({"embed": width}, {"ffn": self.d_ff}),
            "middle": LinearSpec({"ffn": self.d_ff}, {"features": self.d_middle}, bias=True),
            "down": LinearSpec({"features": self.d_middle}, {"embed": width}, gain=out_gain),
        }

    def kept(self, width: int, queries: int, keys: int, *, rotated: bool) -> tuple[int, int]:
        hidden = self.d_ff + self.d_middle
        return queries * (3 * width + 2 * hidden), queries * (hidden + width)

    def tensor_sizes(self) -> dict[str, int]:
        return {"d_ff": self.d_ff}

    def split(self, ways: int) -> "Deep":
        return dataclasses.replace(self, d_ff=math.ceil(self.d_ff / ways))

    def refusals(self, path: str) -> Refusals:
        return sizes_of(path, {"d_ff": self.d_ff, "d_middle": self.d_middle})


# The field as a second entry in lm.model.config.MLP would make it.
@dataclasses.dataclass(frozen=True)
class Model(ModelConfig):
    mlp: Union[MLPConfig, Deep] = MLPConfig()


@dataclasses.dataclass(frozen=True)
class Run(RunConfig):
    model: Model = Model()


def with_deep(config: ModelConfig, mlp: FeedForward) -> Model:
    return Model(**{field.name: getattr(config, field.name) for field in dataclasses.fields(config)} | {"mlp": mlp})


@pytest.mark.parametrize("architecture", ["decoder", "encoder_decoder"])
def test_the_ledger_counts_it_as_it_is_built(architecture):
    config = dataclasses.replace(with_deep(LLAMA, Deep()), architecture=architecture)
    check_parameters(config)
    check_products(config, RowShape(7, encoder_length=5 if architecture == "encoder_decoder" else 0))


def test_the_memory_estimate_is_near_the_compiler():
    config, row = with_deep(PLAIN, Deep(d_ff=512, d_middle=64)), RowShape(128)
    found = allocated(config, 4, row, "none")
    assert found / 1.5 < activation_bytes(config, 4, row) < found * 1.5


def test_an_export_that_no_family_holds_is_refused():
    with pytest.raises(UserError, match="would change mlp: deep -> dense"):
        families.for_config(with_deep(LLAMA, Deep()))


def test_options_are_refused_and_the_mesh_is_checked():
    with pytest.raises(UserError, match=r"model\.mlp\.d_middle=0"):
        check_parameters(with_deep(LLAMA, Deep(d_middle=0)))
    with pytest.raises(UserError, match=r"head_transform takes the activation of model\.mlp, and a layer of kind deep has none"):
        check_parameters(dataclasses.replace(with_deep(LLAMA, Deep()), head_transform=True))
    mesh = make_mesh(MeshConfig(data=1, tensor=2), jax.devices()[:2])
    run = Run(model=with_deep(PLAIN, Deep(d_ff=31)))
    with pytest.raises(UserError, match=r"model\.mlp\.d_ff=31.*mesh\.tensor=2"):
        mesh_fit.check_mesh_fit(run, mesh)


def test_preflight_guesses_more_for_more():
    topology = parse("gpu:h100:1x1")
    small, large = (guess(Run(model=with_deep(PLAIN, Deep(d_middle=size)), mesh=MeshConfig(data=1)), topology) for size in (8, 4096))
    assert large.memory > small.memory
    assert large.seconds > small.seconds


def test_it_is_chosen_by_name_and_the_dense_layer_keeps_its_ids():
    overrides = ["model.mlp.d_ff=32", "model.d_model=128"]
    assert config_lib.identity(config_lib.apply_overrides(Run(), overrides)) == config_lib.identity(
        config_lib.apply_overrides(RunConfig(), overrides)
    )
    assert config_lib.to_dict(Run())["model"]["mlp"] == config_lib.to_dict(RunConfig())["model"]["mlp"]
    deep = config_lib.apply_overrides(Run(), ["model.mlp=deep", "model.mlp.d_middle=5"])
    assert deep.model.mlp == Deep(d_middle=5)
    for config in (Run(), deep):
        assert config_lib.from_dict(Run, config_lib.to_dict(config)) == config
    assert config_lib.apply_overrides(deep, ["model.mlp=dense"]) == Run()
    assert config_lib.identity(deep) != config_lib.identity(Run())
    with pytest.raises(UserError, match=r"d_middle.*deep.*dense"):
        config_lib.apply_overrides(Run(), ["model.mlp.d_middle=5"])
