"""Three terms, and the bandwidth between devices, worked out by hand."""

import pytest

from lm.preflight import refusal
from lm.preflight.roofline import Place, bandwidth, estimate
from lm.preflight.topologies import CHIPS

H100, V5P = CHIPS["h100"], CHIPS["v5p"]


def test_the_longest_term_is_the_step():
    times = estimate(H100, flops=989e12, bytes_moved=3.35e12 / 4, network=[(450e9, 450e9), (50e9, 50e9)], model_flops={"model": 494.5e12})
    assert times["compute_seconds"] == pytest.approx(1)
    assert times["memory_seconds"] == pytest.approx(0.25)
    assert times["network_seconds"] == times["step_seconds"] == pytest.approx(2)
    assert times["bound_by"] == "network"
    assert times["mfu_bound"] == {"model": pytest.approx(0.25)}  # half the products of a step, in twice the time
    assert "estimate" in times["note"]


def test_gpus_of_one_node_use_nvlink_and_of_several_the_adapters_of_all():
    assert bandwidth(H100, [Place(0)] * 8) == H100.link
    assert bandwidth(H100, [Place(0), Place(1)]) == H100.node  # one GPU of each node: one adapter
    assert bandwidth(H100, [Place(node) for node in (0, 1) for _ in range(8)]) == 8 * H100.node
    assert bandwidth(CHIPS["b200"], [Place(node) for node in (0, 1) for _ in range(8)]) == 8 * 50e9


def test_a_group_uses_the_links_of_the_dimensions_that_it_extends_over():
    row = [Place(0, (x, 0, 0)) for x in range(4)]
    assert bandwidth(V5P, row) == 2 * V5P.link
    assert bandwidth(V5P, row[:2]) == V5P.link
    assert bandwidth(V5P, [Place(0, (x, y, z)) for x in range(4) for y in range(4) for z in range(4)]) == 6 * V5P.link


@pytest.mark.parametrize(
    ("message", "what", "size"),
    [
        (
            "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries (157.50G) exceeds available HBM"
            " (95.74G).",
            "temporaries",
            157.5 * 2**30,
        ),
        ("RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 17.5G of 15.75G hbm. Exceeded", "total", 17.5 * 2**30),
        ("RESOURCE_EXHAUSTED: something else", "unknown", None),
    ],
)
def test_what_compilers_say_of_memory(message, what, size):
    needs = refusal.out_of_memory(message)
    assert needs is not None
    assert (needs["what"], needs["bytes"]) == (what, size)


def test_other_errors_are_no_refusals():
    assert refusal.out_of_memory("INVALID_ARGUMENT: a shape") is None
