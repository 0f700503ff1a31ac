"""Ids: what changes them and what does not; ten are held fixed."""

import dataclasses
from typing import Optional, Union

import pytest
from small_config import Circle, Part, Square, Whole

from lm import config as C
from lm.train.config import RunConfig


def with_new_field(cls, hint, default, execution=False):
    """`cls` as a later version of the code declares it, with one more field."""
    metadata = {"part": "execution"} if execution else {}
    return dataclasses.make_dataclass(
        cls.__name__, [("added", hint, dataclasses.field(default=default, metadata=metadata))], bases=(cls,), frozen=True
    )


def test_a_new_field_with_its_default_changes_no_id_and_another_value_does():
    for cls, config in [(Whole, Whole(count=4)), (Part, Part(size=2))]:
        grown = with_new_field(cls, Optional[int], None)
        values = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
        assert C.identity(grown(**values)) == C.identity(config) != C.identity(grown(**values, added=1))


def test_a_new_field_inside_a_group_a_strategy_or_a_list_changes_no_id():
    new_part, new_circle = with_new_field(Part, bool, False), with_new_field(Circle, str, "x")

    @dataclasses.dataclass(frozen=True)
    class Holder:
        part: Part = Part()
        parts: tuple[Part, ...] = (Part(),)
        shape: Union[Circle, Square] = Circle()

    @dataclasses.dataclass(frozen=True)
    class Grown:
        part: new_part = new_part()
        parts: tuple[new_part, ...] = (new_part(),)
        shape: Union[new_circle, Square] = new_circle()

    for cls, p, c in [(Holder, Part, Circle), (Grown, new_part, new_circle)]:
        assert C.identity(cls()) == C.identity(Holder())
        assert C.identity(cls(part=p(size=3), parts=(p(), p(size=2)), shape=c(radius=2.0))) == C.identity(
            Holder(part=Part(size=3), parts=(Part(), Part(size=2)), shape=Circle(radius=2.0))
        )


def test_execution_fields_change_no_id_at_any_depth():
    @dataclasses.dataclass(frozen=True)
    class Inner:
        size: int = 1
        path: str = dataclasses.field(default="a", metadata={"part": "execution"})

    @dataclasses.dataclass(frozen=True)
    class Outer:
        inner: Inner = Inner()

    assert C.identity(Outer(Inner(path="b"))) == C.identity(Outer()) != C.identity(Outer(Inner(size=2)))
    assert C.execution_part(Outer(Inner(path="b"))) == {"inner": {"path": "b"}}


def test_an_id_depends_on_the_data_and_not_on_how_numbers_are_written():
    assert C.identity(RunConfig(), fingerprint="a") != C.identity(RunConfig(), fingerprint="b")
    assert C.identity(Whole(rate=2)) == C.identity(Whole(rate=2.0))


# Ids of finished runs must name them for ever. A change here is a change of what runs are: raise lm.config.SCHEMA and say why.
GOLDEN = [
    ([], "", "5160744dedac"),
    ([], "a", "d9c8c7662211"),
    (["seed=1"], "", "e162edf36482"),
    (["mesh.fsdp=8", "data_dir=elsewhere", "execution.remat=full"], "", "5160744dedac"),
    (["optim.schedule=cosine"], "", "9bed762febb5"),
    (["optim.schedule.cooldown=0.2", "optim.clip_norm=none"], "", "b3bb5d73e925"),
    (["data.tokenizer=sentencepiece", "data.components.1.corpus=tfds:lm1b", "data.components.0.weight=3"], "a", "901fd5048d05"),
    (["model.d_model=128", "model.attention.num_heads=8", "model.mlp.gated=true", "model.mlp.activation=silu"], "a", "08ee56ef34d7"),
    (["model.norm=layernorm", "model.positions=learned", "model.tied_head=true", "model.attention.window=64"], "a", "44d7dba1b54a"),
    (
        ["compute_dtype=bfloat16", "train_tokens=1e9", "batch_size=256", "optim.learning_rate=1e-3", "evaluation.stride=128"],
        "a",
        "931c789fd3af",
    ),
]


@pytest.mark.parametrize(("overrides", "fingerprint", "expected"), GOLDEN)
def test_ten_ids_stay_as_they_are(overrides, fingerprint, expected):
    assert C.identity(C.apply_overrides(RunConfig(), list(overrides)), fingerprint=fingerprint) == expected
