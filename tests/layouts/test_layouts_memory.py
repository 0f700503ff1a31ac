"""A layout keeps its promises of memory and traffic: bytes per device, the largest array of a step, and the bytes of collectives."""

import dataclasses
import functools
import os
from typing import Any

import jax
import pytest
from layouts.cases import CASES
from layouts.laws import lowered
from layouts.table import LAYOUTS

from lm.preflight.hlo import analyse
from lm.preflight.hlo_text import parse
from lm.sharding import RULES
from lm.train.build import build
from lm.train.derived import row_of
from lm.train.feed import abstract_batch
from lm.train.placement import abstract_state, on_one_device

EXACT = 1.05  # scales and biases without a width are whole everywhere
ROWS, LENGTH, VOCAB, LAYERS, WIDTH, HIDDEN = 8, 16, 1056, 16, 128, 512
KERNEL = WIDTH * HIDDEN  # the largest weight of a layer
LLAMA = CASES["decoder"].model
WIDE = dataclasses.replace(
    LLAMA, vocab_size=VOCAB, d_model=WIDTH, num_layers=LAYERS, mlp=dataclasses.replace(LLAMA.mlp, d_ff=HIDDEN),
    attention=dataclasses.replace(LLAMA.attention, num_kv_heads=8, head_dim=16),
)  # fmt: skip
# Parts of weights (and of gradients where they are summed over micro-batches), and of moments: layers, and the vocabulary's tables.
WAYS = {
    "data": ((1, 1), (1, 1)), "fsdp": ((8, 8), (8, 8)), "data_fsdp": ((4, 4), (4, 4)), "zero1": ((1, 1), (8, 8)),
    "zero1_fsdp": ((4, 4), (8, 8)), "zero1_tensor": ((2, 2), (8, 8)), "accumulation_zero1": ((2, 2), (8, 8)),
    "tensor4": ((4, 4), (4, 4)), "sequence": ((4, 4), (4, 4)), "fsdp_tensor": ((8, 8), (8, 8)),
    "fsdp_sequence": ((4, 4), (4, 4)), "context_tensor_fsdp": ((4, 4), (4, 4)),
    "zero1_fsdp_sequence": ((4, 4), (8, 8)),
    "stage2": ((2, 1), (2, 1)), "stage_fsdp_tensor": ((8, 4), (8, 4)), "stage_zero1": ((2, 1), (8, 4)),
}  # fmt: skip
QUICK = ("zero1_fsdp_sequence", "stage_fsdp_tensor")
COMPILED = [name for name in WAYS if name in QUICK or os.environ.get("LAYOUTS") == "all"]


def parts_of(layout: str):
    data = dataclasses.replace(CASES["decoder"].data, sequence_length=LENGTH)
    return build(dataclasses.replace(LAYOUTS[layout].config("decoder"), model=WIDE, data=data, batch_size=ROWS))


@functools.cache
def compiled(layout: str) -> tuple[Any, Any]:
    parts = parts_of(layout)
    with jax.set_mesh(parts.mesh):
        return parts, lowered(parts.config, parts.model, parts.mesh).run.compile({"xla_backend_optimization_level": 0})


def promised(params: Any, ways: tuple[int, int]) -> float:
    """Bytes of one number for each weight on one device."""
    tables = sum(x.size for name, part in params.items() if name != "decoder" for x in jax.tree.leaves(part))
    layers = sum(x.size for x in jax.tree.leaves(params["decoder"]))
    return 4 * (layers / ways[0] + tables / ways[1])


@pytest.mark.parametrize("layout", WAYS)
def test_a_device_holds_its_part_of_the_state(layout):
    parts, (weights, moments) = parts_of(layout), WAYS[layout]
    state = abstract_state(parts.config, parts.model, parts.mesh)
    assert 1 <= on_one_device(state.params) / promised(state.params, weights) <= EXACT
    assert 1 <= on_one_device(state.opt_state) / (2 * promised(state.params, moments)) <= EXACT


@pytest.mark.parametrize("layout", COMPILED)
def test_the_compiled_step_holds_no_more(layout):
    """The arguments of the step that is run with gradients for moments; no copy is made of what is donated."""
    parts, program = compiled(layout)
    state = abstract_state(parts.config, parts.model, parts.mesh).params
    batch = on_one_device(abstract_batch(row_of(parts.config), (1, ROWS), parts.mesh))
    most = EXACT * sum(promised(state, ways) for ways in WAYS[layout]) + batch
    memory = program.memory_analysis()
    assert memory.argument_size_in_bytes <= most
    assert memory.alias_size_in_bytes >= 0.99 * (memory.argument_size_in_bytes - batch)


@pytest.mark.parametrize("layout", COMPILED)
def test_no_array_is_larger_than_the_layout_says(layout):
    """Nothing holds all layers of a weight that is split, a table is whole where fsdp gathers it, and logits never where they are split."""
    parts, program = compiled(layout)
    mesh, (layers, _) = parts.mesh.shape, WAYS[layout][0]
    arrays = {a for c in parse(program.as_text()).computations.values() for i in c.instructions.values() for a in i.result}
    table = VOCAB // mesh["tensor"] * WIDTH
    activations = LAYERS * ROWS * LENGTH * HIDDEN // RULES.batch_ways(parts.mesh) // mesh["context"] // mesh["tensor"]
    most = max(table, LAYERS * KERNEL // layers, activations)
    assert most < LAYERS * KERNEL // mesh["tensor"] // mesh["stage"] or mesh["fsdp"] == 1  # gathered for all layers at once
    assert max(a.size for a in arrays) <= most
    if mesh["tensor"] > 1:
        assert not [a for a in arrays if VOCAB in a.dims and a.size > VOCAB]


@pytest.mark.parametrize("layout", COMPILED)
def test_no_collective_carries_the_tree(layout):
    parts, program = compiled(layout)
    whole = 4 * sum(x.size for x in jax.tree.leaves(parts.model.abstract()))
    found = analyse(program.as_text(), parts.mesh).collectives
    assert found
    assert max(c.largest for c in found) < whole / 4
    gathered = [c.largest for c in found if c.kind == "all-gather" and "fsdp" in c.axes and "data" not in c.axes]
    assert bool(gathered) == (parts.mesh.shape["fsdp"] > 1)
    assert all(largest <= 4 * max(KERNEL, VOCAB * WIDTH) for largest in gathered)  # one layer's, or a table
