"""Every layout and its sensible products, and which families `make test` tries on each."""

import os

import pytest
from layouts.laws import Layout, agree, of, reference, run

LAYOUTS: dict[str, Layout] = {
    "data": of(data=8),
    "fsdp": of(fsdp=8),
    "data_fsdp": of(data=2, fsdp=4),
    "zero1": of(data=8, shard_optimizer=True),
    "zero1_fsdp": of(data=2, fsdp=4, shard_optimizer=True),
    "zero1_tensor": of(data=4, tensor=2, shard_optimizer=True),
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
# In `make test` each layout has one family, the cheapest unless another asks more of it; `make layouts` tries all.
ASKING = {
    "encoder_decoder": ("sequence", "context", "ring_fsdp", "stage2_repeats", "stage_context"),
    "encoder": ("zero1_fsdp", "context_sequence_fsdp", "ring", "stage_fsdp_tensor"),
    "prefix_lm": ("tensor4", "context_fsdp", "ring_sequence_fsdp", "stage4", "stage_ring", "accumulation"),
}
COVER = dict.fromkeys(LAYOUTS, "decoder") | {layout: family for family, layouts in ASKING.items() for layout in layouts}


def chosen(family: str) -> list[str]:
    return [name for name in LAYOUTS if COVER[name] == family or os.environ.get("LAYOUTS") == "all"]


def proof(family: str):
    """The test of one family, for a file of its own: files run side by side, and each has one reference."""

    @pytest.mark.parametrize("layout", chosen(family))
    def test_eight_devices_are_one(layout):
        agree(run(family, LAYOUTS[layout]), reference(family))

    return test_eight_devices_are_one
