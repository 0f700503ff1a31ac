"""The cover of `make test`: which axes, options and families meet."""

import dataclasses
import itertools

from layouts.cases import CASES
from layouts.laws import Layout
from layouts.table import COVER

from lm.train.config import ExecutionConfig

NEEDS = {  # options that are refused without a mesh axis, and the axis
    "sequence_parallel": "tensor", "shard_optimizer": "data", "pipeline_repeats": "stage", "pipeline_micro_batches": "stage",
}  # fmt: skip
AXES = ("data", "fsdp", "stage", "tensor", "context", "ring")
FREE = ("offload_optimizer", "micro_batches", "remat")
EVERYWHERE = {*AXES, *NEEDS, "micro_batches", "remat"}  # offloading knows no family


def axes_of(layout: Layout) -> set[str]:
    """Mesh axes of more than one device; "ring" is the context axis with ring attention."""
    sizes = dataclasses.asdict(layout.mesh)
    ring = layout.execution.get("context_attention") == "ring"
    return {"ring" if axis == "context" and ring else axis for axis, size in sizes.items() if size > 1}


def options_of(layout: Layout) -> set[str]:
    default = {"context_attention": layout.execution.get("context_attention"), "unroll": False}
    return {name for name, value in layout.execution.items() if value != default.get(name, getattr(ExecutionConfig, name))}


def test_every_family_meets_every_axis_and_every_option():
    assert set(COVER) == set(CASES)
    for family, layouts in COVER.items():
        met = set().union(*(axes_of(layout) | options_of(layout) for layout in layouts.values()))
        assert met >= EVERYWHERE, (family, EVERYWHERE - met)


def test_every_two_axes_meet_and_every_option_meets_every_axis():
    layouts = [layout for family in COVER.values() for layout in family.values()]
    axes = {frozenset(pair) for layout in layouts for pair in itertools.combinations(axes_of(layout), 2)}
    assert axes == {frozenset(pair) for pair in itertools.combinations(AXES, 2)} - {frozenset(("context", "ring"))}
    beside = {(option, axis) for layout in layouts for option in options_of(layout) for axis in axes_of(layout)}
    assert beside >= set(itertools.product((*NEEDS, *FREE), AXES)), set(itertools.product((*NEEDS, *FREE), AXES)) - beside
    assert any("unroll" in options_of(layout) for layout in layouts)


def test_four_devices_stand_on_each_axis_where_order_matters():
    layouts = [layout for family in COVER.values() for layout in family.values()]
    fours = {axis for layout in layouts for axis in axes_of(layout) if getattr(layout.mesh, axis.replace("ring", "context")) == 4}
    assert fours >= {"stage", "tensor", "context", "ring"}
