"""Activation memory of a device, on meshes that split them in different ways."""

import dataclasses

import pytest

from configs import decoder
from lm.model.memory import activation_bytes
from lm.rows import RowShape
from lm.train.memory import kept_bytes

CONFIG = dataclasses.replace(decoder.get_config("tiny"), batch_size=64)
ROW, ONE = RowShape(128), {"data": 1, "fsdp": 1, "stage": 1, "context": 1, "tensor": 1}


def kept(remat="none", micro_batches=1, flow=None, **sizes):
    how = dataclasses.replace(CONFIG.execution, remat=remat, micro_batches=micro_batches, pipeline_micro_batches=flow)
    return kept_bytes(dataclasses.replace(CONFIG, execution=how), ONE | sizes, ROW, fused=True)


def test_rows_and_heads_are_split_as_ever():
    for tensor in (1, 2):
        expected = activation_bytes(CONFIG.model.split(tensor), 64 // 8, ROW, remat="none", fused=True)
        assert kept(data=2, fsdp=2, micro_batches=2, tensor=tensor) == expected


def test_the_sequence_is_split_over_context():
    assert kept(data=2, context=4) == pytest.approx(kept(data=2) / 4)


def test_a_pipeline_keeps_its_idle_ticks_but_not_what_it_computes_again():
    head = activation_bytes(CONFIG.model, 64, ROW, fused=True, times=0)
    layers = activation_bytes(CONFIG.model, 64, ROW, remat="dots", fused=True, times=1) - activation_bytes(
        CONFIG.model, 64, ROW, remat="dots", fused=True, times=0
    )
    largest = activation_bytes(CONFIG.model, 64, ROW, remat="dots", fused=True, times=0) - head
    assert kept("dots", stage=2, flow=4) == pytest.approx((5 / 4 * layers + largest + head) / 2, rel=1e-3)
    assert kept("none", stage=2, flow=8) < kept("none", stage=2, flow=2) < kept("none", data=2)
