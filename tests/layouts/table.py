"""The layouts: a cover for `make test`, and every family on every layout for LAYOUTS=all, which is nightly."""

import os

import pytest
from layouts.laws import Layout, agree, of, reference, run

# Every family meets every mesh axis and every option that treats rows or layers, every two axes stand together once, and every option
# stands beside every axis that it can go with (tests/layouts/test_layouts_cover.py). Axes on which the order of devices matters have four
# once.
COVER: dict[str, dict[str, Layout]] = {
    "decoder": {
        "data_context_tensor": of(
            data=2, context=2, tensor=2, sequence_parallel=True, shard_optimizer=True, offload_optimizer=True, remat="full", unroll=True
        ),
        "fsdp_stage4": of(fsdp=2, stage=4, pipeline_micro_batches=2),
        "stage_ring_tensor": of(
            stage=2, context=2, tensor=2, context_attention="ring", pipeline_repeats=2, pipeline_micro_batches=4, micro_batches=2,
            offload_optimizer=True,
        ),
    },
    "prefix_lm": {
        "fsdp_tensor_stage": of(
            fsdp=2, tensor=2, stage=2, sequence_parallel=True, pipeline_repeats=2, pipeline_micro_batches=4, remat="dots"
        ),
        "data_fsdp_ring": of(data=2, fsdp=2, context=2, context_attention="ring", shard_optimizer=True, micro_batches=2),
        "fsdp_context4": of(fsdp=2, context=4, offload_optimizer=True, micro_batches=2),
    },
    "encoder_decoder": {
        "fsdp_ring_tensor": of(fsdp=2, context=2, tensor=2, context_attention="ring", sequence_parallel=True, micro_batches=2),
        "data_stage_context": of(
            data=2, stage=2, context=2, pipeline_repeats=2, pipeline_micro_batches=4, shard_optimizer=True, remat="full"
        ),
    },
    "encoder": {
        "data_stage_context": of(data=2, stage=2, context=2, pipeline_repeats=2, pipeline_micro_batches=4, shard_optimizer=True),
        "fsdp_tensor4": of(fsdp=2, tensor=4, sequence_parallel=True, micro_batches=2),
        "data_ring4": of(data=2, context=4, context_attention="ring", remat="full"),
    },
}  # fmt: skip
LAYOUTS: dict[str, Layout] = {
    "data": of(data=8),
    "fsdp": of(fsdp=8),
    "data_fsdp": of(data=2, fsdp=4),
    "zero1": of(data=8, shard_optimizer=True),
    "zero1_fsdp": of(data=2, fsdp=4, shard_optimizer=True),
    "zero1_tensor": of(data=4, tensor=2, shard_optimizer=True),
    "zero1_fsdp_sequence": of(data=2, fsdp=2, tensor=2, shard_optimizer=True, sequence_parallel=True),
    "offload_fsdp": of(fsdp=8, offload_optimizer=True),
    "offload_zero1": of(data=8, shard_optimizer=True, offload_optimizer=True),
    "tensor2": of(data=4, tensor=2),
    "tensor4": of(data=2, tensor=4),
    "sequence": of(data=2, tensor=4, sequence_parallel=True),
    "fsdp_tensor": of(fsdp=4, tensor=2),
    "fsdp_sequence": of(data=2, fsdp=2, tensor=2, sequence_parallel=True),
    "context": of(data=2, context=4),
    "context_fsdp": of(fsdp=4, context=2),
    "context_tensor_fsdp": of(fsdp=2, context=2, tensor=2),
    "context_sequence_fsdp": of(fsdp=2, context=2, tensor=2, sequence_parallel=True),
    "ring": of(data=2, context=4, context_attention="ring"),
    "ring_fsdp": of(fsdp=4, context=2, context_attention="ring"),
    "ring_sequence_fsdp": of(fsdp=2, context=2, tensor=2, sequence_parallel=True, context_attention="ring"),
    "stage2": of(data=4, stage=2),
    "stage4": of(fsdp=2, stage=4, pipeline_micro_batches=2),
    "stage2_repeats": of(fsdp=4, stage=2, pipeline_repeats=2),
    "stage_fsdp_tensor": of(fsdp=2, stage=2, tensor=2, pipeline_micro_batches=4),
    "stage_sequence": of(stage=2, tensor=4, sequence_parallel=True, pipeline_repeats=2),
    "stage_context": of(fsdp=2, stage=2, context=2),
    "stage_ring": of(stage=2, context=2, tensor=2, context_attention="ring"),
    "stage_zero1": of(data=4, stage=2, shard_optimizer=True),
    "stage_accumulation": of(stage=2, tensor=4, micro_batches=2, remat="full"),
    "accumulation": of(fsdp=4, tensor=2, micro_batches=2),
    "accumulation_zero1": of(data=4, tensor=2, micro_batches=2, shard_optimizer=True),
    "remat_fsdp": of(fsdp=8, remat="full"),
    "remat_sequence": of(data=2, tensor=4, sequence_parallel=True, remat="dots"),
    "unrolled": of(fsdp=4, tensor=2, unroll=True),
}


def chosen(family: str) -> dict[str, Layout]:
    return COVER[family] | (LAYOUTS if os.environ.get("LAYOUTS") == "all" else {})


def proof(family: str):
    """The test of one family, for a file of its own: files run side by side, and each has one reference."""
    layouts = chosen(family)

    @pytest.mark.parametrize("layout", layouts.values(), ids=layouts)
    def test_eight_devices_are_one(layout):
        agree(run(family, layout), reference(family))

    return test_eight_devices_are_one
