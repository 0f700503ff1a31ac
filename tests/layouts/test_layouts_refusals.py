"""Configurations that do not fit a mesh are refused before anything is compiled, in one line that names the options."""

import dataclasses

import pytest
from layouts.laws import of

from lm.errors import UserError
from lm.train.build import build


def changed(part: str, **fields):
    """A change of a part of the configuration, such as model.attention."""

    def within(owner, names):
        if not names:
            return dataclasses.replace(owner, **fields)
        return dataclasses.replace(owner, **{names[0]: within(getattr(owner, names[0]), names[1:])})

    return lambda config: within(config, part.split("."))


def rows(count: int):
    return lambda config: dataclasses.replace(config, batch_size=count)


CASES = [
    ({"data": 8, "sequence_parallel": True}, None, "execution.sequence_parallel .*mesh.tensor is 1"),
    ({"data": 8, "context_attention": "ring"}, None, "execution.context_attention=ring .*mesh.context is 1"),
    ({"data": 8, "pipeline_repeats": 2}, None, "execution.pipeline_repeats=2 .*mesh.stage is 1"),
    ({"data": 8, "pipeline_micro_batches": 2}, None, "execution.pipeline_micro_batches=2 .*mesh.stage is 1"),
    ({"fsdp": 8, "shard_optimizer": True}, None, "execution.shard_optimizer .*mesh.data is 1"),
    ({"data": 4, "stage": 2, "pipeline_repeats": 0}, None, "execution.pipeline_repeats=0: give 1 or more"),
    ({"data": 8, "steps_per_dispatch": 0}, None, "execution.steps_per_dispatch=0: give 1 or more"),
    ({"data": 3}, None, "3 devices and there are 8"),
    ({"tensor": 8}, changed("model.attention", num_heads=12, num_kv_heads=8), "model.attention.num_heads=12 .*mesh.tensor=8"),
    ({"tensor": 8}, None, "model.attention.num_kv_heads=4 .*mesh.tensor=8"),
    ({"data": 2, "tensor": 4}, changed("model.mlp", d_ff=66), "model.mlp.d_ff=66 .*mesh.tensor=4"),
    ({"data": 2, "tensor": 4}, changed("model", vocab_size=270), "model.vocab_size=270 .*mesh.tensor=4"),
    ({"fsdp": 8}, changed("model", d_model=36), "model.d_model=36 .*mesh.fsdp=8"),
    ({"data": 8, "shard_optimizer": True}, changed("model", d_model=36), r"model.d_model=36 .*fsdp x mesh.data .*shard_optimizer.=8"),
    ({"data": 2, "stage": 4}, changed("model", num_layers=6), "model.num_layers=6 .*mesh.stage=4"),
    ({"data": 4, "stage": 2, "pipeline_repeats": 4}, None, "model.num_layers=4 .*mesh.stage x execution.pipeline_repeats=8"),
    ({"data": 8}, rows(12), "batch_size=12 must be a multiple of 8"),
    ({"data": 8, "micro_batches": 2}, None, "batch_size=8 must be a multiple of 16: 2 micro-batches x 8 devices"),
    ({"data": 4, "stage": 2, "pipeline_micro_batches": 4}, None, "batch_size=8 must be a multiple of 16: 4 groups of 2 stages"),
    ({"context": 8}, changed("data", sequence_length=24), "24 positions.* 2 x mesh.context=16"),
    ({"data": 2, "tensor": 4, "sequence_parallel": True}, changed("data", sequence_length=30), "30 positions.* mesh.tensor=4"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "change", "message"), CASES)
def test_what_does_not_fit_is_refused_by_name(options, change, message):
    config = of(**options).config("decoder")
    with pytest.raises(UserError, match=message) as caught:
        build(change(config) if change else config)
    assert "\n" not in str(caught.value)
