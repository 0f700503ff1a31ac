"""Counts of optimized HLO: on text small enough to count by hand, and on a step that the CPU's compiler made."""

import dataclasses
import types

import jax
import pytest
from layouts.cases import CASES

from lm.mesh import MeshConfig
from lm.model.flops import ledger
from lm.preflight.hlo import Collective, analyse
from lm.preflight.hlo_text import parse
from lm.train import derived, program
from lm.train.build import build
from lm.train.config import ExecutionConfig

MESH = types.SimpleNamespace(shape={"data": 2, "fsdp": 1, "tensor": 4})
ARRAY = "f32[8,16]{1,0}"


def module(body: str, others: str = "") -> str:
    """A module whose entry has parameters a [8, 16] and b [16, 32]."""
    start = f"  %a = {ARRAY} parameter(0)\n  %b = f32[16,32]{{1,0}} parameter(1)\n"
    return f"HloModule m, is_scheduled=true\n\n{others}\nENTRY %main (a: f32[8,16], b: f32[16,32]) -> f32[8,32] {{\n{start}{body}\n}}\n"


def flops(body: str, others: str = "") -> float:
    return analyse(module(body, others), MESH).flops


def one(body: str, others: str = "") -> Collective:
    (found,) = analyse(module(body, others), MESH).collectives
    return found


DOT = "  ROOT %dot.1 = f32[8,32]{1,0:T(8,128)(2,1)S(1)} dot(%a, %b), lhs_contracting_dims={1}, rhs_contracting_dims={0}"
PRODUCT = 2.0 * 8 * 16 * 32


def test_a_product_counts_two_for_each_multiplication():
    assert flops(DOT) == PRODUCT
    call = '  ROOT %g = (f32[8,32]{1,0}, s8[64]{0}) custom-call(%a, %b), custom_call_target="__cublas$gemm", backend_config='
    assert flops(call + '{"dot_dimension_numbers":{"lhs_contracting_dimensions":["1"],"rhs_contracting_dimensions":["0"]}}') == PRODUCT


def test_a_convolution_counts_the_places_where_its_window_meets_something():
    plain = "  ROOT %c = f32[8,32]{1,0} convolution(%a, %b), dim_labels=bf_io->bf"
    assert flops(plain) == PRODUCT
    # A full convolution of 8 places with a window of 16: each pair of place and window position meets once.
    full = "  ROOT %c = f32[23,1,1]{2,1,0} convolution(%x, %w), window={size=16 pad=15_15}, dim_labels=0bf_0io->0bf"
    cast = "  %x = f32[8,1,1]{2,1,0} bitcast(%a)\n  %w = f32[16,1,1]{2,1,0} bitcast(%b)\n"
    assert flops(cast + full) == 2 * 8 * 16
    # Two batched products as one convolution, where dilation keeps them apart.
    batched = "  ROOT %c = f32[4,2,3]{2,1,0} convolution(%x, %w), window={size=4 stride=3 lhs_dilate=4}, dim_labels=0bf_0io->0bf"
    cast = "  %x = f32[4,2,5]{2,1,0} bitcast(%a)\n  %w = f32[4,5,3]{2,1,0} bitcast(%b)\n"
    assert flops(cast + batched) == 4 * 2 * 2 * 5 * 3


FUSED = """%fused (p: f32[8,16], q: f32[16,32]) -> f32[8,32] {
  %p = f32[8,16]{1,0} parameter(0)
  %q = f32[16,32]{1,0} parameter(1)
  ROOT %d = f32[8,32]{1,0} dot(%p, %q), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}
"""


def loop(bound: str, start: str = "0", known: str = "") -> str:
    condition = f"""%condition (c: (s32[], f32[8,16], f32[16,32])) -> pred[] {{
  %c = (s32[], f32[8,16]{{1,0}}, f32[16,32]{{1,0}}) parameter(0)
  %i = s32[] get-tuple-element(%c), index=0
  %n = s32[] {bound}
  ROOT %less = pred[] compare(%i, %n), direction=LT
}}
"""
    body = """%body (c: (s32[], f32[8,16], f32[16,32])) -> (s32[], f32[8,16], f32[16,32]) {
  %c = (s32[], f32[8,16]{1,0}, /*index=2*/f32[16,32]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%c), index=0
  %x = f32[8,16]{1,0} get-tuple-element(%c), index=1
  %y = f32[16,32]{1,0} get-tuple-element(%c), index=2
  %two = s32[] constant(2)
  %next = s32[] add(%i, %two)
  %f = f32[8,32]{1,0} fusion(%x, %y), kind=kOutput, calls=%fused
  %r = f32[8,16]{1,0} all-reduce(%x), channel_id=1, replica_groups={{0,1,2,3},{4,5,6,7}}, use_global_device_ids=true, to_apply=%add
  ROOT %t = (s32[], f32[8,16]{1,0}, f32[16,32]{1,0}) tuple(%next, %r, %y)
}
"""
    entry = f"""  %start = s32[] constant({start})
  %t = (s32[], f32[8,16]{{1,0}}, f32[16,32]{{1,0}}) tuple(%start, %a, %b)
  ROOT %w = (s32[], f32[8,16]{{1,0}}, f32[16,32]{{1,0}}) while(%t), condition=%condition, body=%body{known}
"""
    return module(entry, FUSED + condition + body)


@pytest.mark.parametrize(
    ("text", "trips"),
    [
        (loop("constant(10)"), 5),
        (loop("constant(10)", start="3"), 4),
        (loop("get-tuple-element(%c), index=1"), 1),
        (loop("constant(10)", known=', backend_config={"known_trip_count":{"n":"7"}}'), 7),
    ],
    ids=["condition", "start", "unknown", "said"],
)
def test_a_loop_counts_its_body_as_often_as_it_runs(text, trips):
    found = analyse(text, MESH)
    assert found.flops == trips * PRODUCT
    (reduced,) = found.collectives
    assert (reduced.kind, reduced.axes, reduced.count) == ("all-reduce", ("tensor",), trips)
    assert (reduced.payload, reduced.wire) == (trips * 512, trips * 512 * 3 // 4 * 2)


def test_a_conditional_counts_its_most_expensive_branch():
    idle = "%idle (p: f32[8,16], q: f32[16,32]) -> f32[8,32] {\n  ROOT %k = f32[8,32]{1,0} constant(0)\n}\n"
    entry = "  %i = s32[] constant(0)\n  ROOT %c = f32[8,32]{1,0} conditional(%i, %a, %a), branch_computations={%idle, %fused}"
    assert flops(entry, FUSED + idle) == PRODUCT
    # cuDNN's attention beside what serves rows that it cannot: it counts, though the other takes more FLOPs.
    call = 'custom-call(%p, %q), custom_call_target="__cudnn$fmhaSoftmax"'
    kernel = "%kernel (p: f32[8,16], q: f32[16,32]) -> f32[8,32] {\n"
    kernel += f"  %p = f32[8,16]{{1,0}} parameter(0)\n  %q = f32[16,32]{{1,0}} parameter(1)\n  ROOT %k = f32[8,32]{{1,0}} {call}\n}}\n"
    assert flops(entry.replace("%idle", "%kernel"), FUSED + kernel) == 0


@pytest.mark.parametrize(
    ("groups", "axes"),
    [
        ("{{0,1,2,3},{4,5,6,7}}", ("tensor",)),
        ("{{0,4},{1,5},{2,6},{3,7}}", ("data",)),
        ("[2,4]<=[8]", ("tensor",)),
        ("[4,2]<=[2,4]T(1,0)", ("data",)),
        ("{}", ("data", "tensor")),
        ("mesh['axis_0'=2,'axis_1'=4] {'axis_1'}", ("tensor",)),
        ("mesh['axis_0'=2,'axis_1'=4] {'axis_0','axis_1'}", ("data", "tensor")),
        ("mesh['axis_0'=4,'axis_1'=2], device_ids=([2,4]T(1,0)) {'axis_1'}", ("data",)),
        ("mesh['axis_0'=8] {'axis_0':(1)2}", ("data",)),
        ("mesh['axis_0'=8] {'axis_0':(2)4}", ("tensor",)),
    ],
)
def test_groups_of_devices_are_mesh_axes(groups, axes):
    found = one(
        f"  ROOT %g = f32[8,16]{{1,0}} all-to-all(%a), channel_id=1, replica_groups={groups}, use_global_device_ids=true, dimensions={{0}}"
    )
    assert found.axes == axes


def test_bytes_of_each_kind():
    groups = "channel_id=1, replica_groups={{0,1,2,3},{4,5,6,7}}, use_global_device_ids=true, dimensions={0}"
    gathered = one(f"  ROOT %g = f32[32,16]{{1,0}} all-gather(%a), {groups}")
    assert (gathered.payload, gathered.wire) == (2048, 1536)
    started = one(
        f"  %s = (f32[8,16]{{1,0}}, f32[32,16]{{1,0}}) all-gather-start(%a), {groups}\n  ROOT %g = f32[32,16]{{1,0}} all-gather-done(%s)"
    )
    assert started == gathered
    scattered = one(f"  ROOT %g = f32[2,16]{{1,0}} reduce-scatter(%a), {groups}, to_apply=%add")
    assert (scattered.payload, scattered.wire) == (512, 384)
    sent = one("  ROOT %g = f32[8,16]{1,0} collective-permute(%a), channel_id=1, source_target_pairs={{0,1},{1,2},{2,3},{3,0}}")
    assert (sent.kind, sent.axes, sent.payload, sent.wire) == ("collective-permute", ("tensor",), 512, 512)
    alone = "  ROOT %g = f32[8,16]{1,0} all-reduce(%a), channel_id=1, replica_groups={{0},{1},{2},{3},{4},{5},{6},{7}}, to_apply=%add"
    assert analyse(module(alone), MESH).collectives == ()


def test_what_is_reduced_and_cut_in_one_fusion_is_scattered():
    fused = """%all-reduce-scatter.1 (p: f32[8,16]) -> f32[2,16] {
  %p = f32[8,16]{1,0} parameter(0)
  %r = f32[8,16]{1,0} all-reduce(%p), channel_id=1, replica_groups={{0,1,2,3},{4,5,6,7}}, use_global_device_ids=true, to_apply=%add
  %i = u32[] partition-id()
  ROOT %s = f32[2,16]{1,0} dynamic-slice(%r, %i, %i), dynamic_slice_sizes={2,16}
}
"""
    found = one("  ROOT %f = f32[2,16]{1,0} fusion(%a), kind=kCustom, calls=%all-reduce-scatter.1", fused)
    assert (found.kind, found.payload, found.wire) == ("reduce-scatter", 512, 384)


def test_pieces_of_one_collective_in_several_fusions_count_once():
    piece = """%fused.{n} (p: f32[8,16]) -> f32[32,16] {{
  %p = f32[8,16]{{1,0}} parameter(0)
  ROOT %g.{n} = f32[32,16]{{1,0}} all-gather(%p), channel_id=2, replica_groups=[2,4]<=[8], frontend_attributes={{chain_id="0"}}
}}
"""
    calls = "  %f = f32[32,16]{1,0} fusion(%a), calls=%fused.1\n  ROOT %h = f32[32,16]{1,0} fusion(%a), calls=%fused.2"
    assert one(calls, piece.format(n=1) + piece.format(n=2)).count == 1


def test_traffic_is_what_main_memory_gives_and_takes():
    def moved(body: str, others: str = "") -> float:
        return analyse(module(body, others), MESH).bytes_moved

    assert moved(DOT.replace("S(1)", "")) == 4 * (8 * 16 + 16 * 32 + 8 * 32)
    assert moved(DOT) == 4 * (8 * 16 + 16 * 32)  # the result stays in another memory
    assert moved("  ROOT %t = (f32[8,16]{1,0}) tuple(%a)") == 0
    fused = """%fused (p: f32[8,16], q: f32[16,32], i: s32[]) -> f32[8,16] {
  %p = f32[8,16]{1,0} parameter(0)
  %q = f32[16,32]{1,0} parameter(1)
  %i = s32[] parameter(2)
  %s = f32[1,16]{1,0} dynamic-slice(%q, %i, %i), dynamic_slice_sizes={1,16}
  ROOT %u = f32[8,16]{1,0} dynamic-update-slice(%p, %s, %i, %i)
}
"""
    entry = "  %i = s32[] constant(0)\n  ROOT %f = f32[8,16]{1,0} fusion(%a, %b, %i), kind=kLoop, calls=%fused"
    assert moved(entry, fused) == 4 * (16 + 16 + 1)  # a row read, a row written, and the index


def test_fused_attention_by_shapes():
    array = "bf16[2,64,4,16]{3,2,1,0}"
    cast = f"  %q = {array} bitcast(%a)\n"
    config = '{"intermediate_tensor_shape":{"element_type":"BF16","dimensions":["2","4","64","64"]},"mask_type":"MASK"}'
    forward = (
        f'  ROOT %c = ({array}, u8[0]{{0}}) custom-call(%q, %q, %q), custom_call_target="__cudnn$fmhaSoftmax", backend_config={config}'
    )
    weights = 2 * 4 * 64 * 64
    assert flops(cast + forward.replace('"MASK"', '"NO_MASK"')) == 4 * weights * 16
    assert flops(cast + forward.replace('"MASK"', '"CAUSAL"')) == 2 * weights * 16
    spaced = forward.replace(config, config.replace(":", ": ").replace(",", ", ").replace("MASK", "PADDING_CAUSAL"))
    assert flops(cast + spaced) == 2 * weights * 16
    backward = forward.replace("fmhaSoftmax", "fmhaSoftmaxBackward").replace('"MASK"', '"NO_MASK"')
    assert flops(cast + backward) == 10 * weights * 16
    for name, products in (("fwd", 2), ("dq", 3), ("dkv", 4)):
        heads_first = "bf16[2,4,64,16]{3,2,1,0}"
        kernel = f'  ROOT %splash_mha_{name}.1 = {heads_first} custom-call(%q, %q, %q), custom_call_target="tpu_custom_call"'
        assert flops(f"  %q = {heads_first} bitcast(%a)\n" + kernel) == 2 * products * weights * 16


def test_text_that_is_no_module_is_refused():
    with pytest.raises(ValueError, match="no ENTRY"):
        parse("HloModule empty\n")


def test_a_compiled_step_has_the_products_of_the_ledger():
    """Its layers and its micro-batches are loops."""
    case = CASES["decoder"]
    how = ExecutionConfig(unroll=False, micro_batches=2, attention="xla")
    config = dataclasses.replace(case.config, mesh=MeshConfig(data=1), execution=how, batch_size=4)
    parts = build(config, jax.devices()[:1])
    lowered = program.lower(config, parts.model, parts.mesh)
    with jax.set_mesh(parts.mesh):
        text = lowered.run.compile({"xla_backend_optimization_level": 0}).as_text()
    row = derived.row_of(config)
    expected = ledger(config.model, row).flops_per_token["matmul_full"] * row.text * config.batch_size
    assert analyse(text, parts.mesh).flops == pytest.approx(expected, rel=1e-12)
