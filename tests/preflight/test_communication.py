"""What the layouts promise to send, on programs compiled for a TPU and a GPU topology: upper bounds, with a reason for each."""

import json
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from lm.model.counts import parameters
from lm.preflight.wheels import MODULES, installed
from tests.preflight.programs import FAMILIES, HEAD_DIM, HEADS, HIDDEN, LAYERS, LENGTH, NAMES, ROWS, TOPOLOGIES, VOCAB, WIDTH, analyses
from tests.preflight.write_golden import path, rows

SMALL = 2**16  # bytes of norms' gradients, statistics and scalars, over any axes
BF16, F32 = 2, 4
BLOCKS = LAYERS * (4 * WIDTH * HEADS * HEAD_DIM + 3 * WIDTH * HIDDEN)  # weights
TABLE = HEAD = VOCAB * WIDTH
TOKENS = ROWS * LENGTH
STREAM = BF16 * TOKENS * WIDTH  # bytes of the residual stream of the whole batch
KEYS = BF16 * TOKENS * HEADS * HEAD_DIM  # bytes of one layer's keys, or values
GRADIENTS = BF16 * (BLOCKS + TABLE) + F32 * HEAD
STATISTICS = 3 * F32 * TOKENS  # greatest logit, sum of exponentials, target's logit


class Bound(NamedTuple):
    kind: str
    axes: str
    payload: float  # bytes
    reason: str


def fsdp(ways: int = 8, tensor: int = 1) -> Iterator[Bound]:
    yield Bound(
        "all-gather",
        "fsdp",
        (2 * BF16 * BLOCKS + BF16 * TABLE + F32 * HEAD) / tensor + F32 * TOKENS,
        "weights of blocks for the forward and again for the backward pass, in the compute dtype; table and head once; ids",
    )
    yield Bound("reduce-scatter", "fsdp", GRADIENTS / tensor, "every gradient once, in the dtype of its product")
    yield Bound("all-to-all", "fsdp", STREAM / ways, "the table's gradient: each device's rows for its part of the width")


def tensor(batch_ways: int = 1) -> Iterator[Bound]:
    """Bounds tensor parallelism with sequence parallelism; a block has two parts, attention and feed-forward."""
    parts = 2 * LAYERS
    yield Bound(
        "all-gather",
        "tensor",
        (3 * parts + 3) * STREAM / batch_ways,
        "the stream before each part, and in its backward pass again with the gradient of what it adds; the table's gradient; the"
        " head's states, in float32 at most",
    )
    yield Bound(
        "reduce-scatter",
        "tensor",
        (2 * parts + 3) * STREAM / batch_ways + BF16 * TABLE / 2,
        "what each part adds to the stream, its gradient by the stream; looked up tokens, and the table's gradient; the gradient of the"
        " head's states in float32",
    )
    yield Bound("all-reduce", "tensor", STATISTICS / batch_ways, "statistics of the softmax over the vocabulary, never its logits")


TICKS, MICRO = 2 * 4 - 1, STREAM / (2 * 4)  # of 4 micro-batches through 4 stages; bytes of one on a device, of 2 that share the rows
BOUNDS: dict[str, list[Bound]] = {
    "data": [Bound("all-reduce", "data", GRADIENTS, "every gradient once")],
    "zero1": [
        Bound("reduce-scatter", "data", GRADIENTS, "every gradient once, to those who update its part"),
        # The table's in bfloat16 on the TPU, and the head's on the GPU: a compiler does not see that of this sum a part is kept.
        Bound("all-reduce", "data", F32 * HEAD, "the gradient of one of table and head"),
        Bound("all-gather", "data", F32 * (BLOCKS + TABLE + HEAD), "every updated weight once, in the float32 in which it is kept"),
    ],
    "fsdp": [*fsdp()],
    "tensor": [
        Bound(
            "all-reduce",
            "tensor",
            (4 * LAYERS + 3) * STREAM + STATISTICS,
            "what attention and feed-forward add to the stream, and their gradients by it; looked up tokens; in float32 the gradient of the"
            " head's states; statistics of the softmax over the vocabulary, never its logits",
        )
    ],
    "sequence": [*tensor()],
    "context": [
        Bound("all-gather", "context", LAYERS * 2 * KEYS + 4 * F32 * TOKENS, "keys and values of each layer once; indices and segments"),
        Bound("reduce-scatter", "context", LAYERS * 2 * 2 * KEYS, "their gradients, in float32 at most"),
        Bound("all-reduce", "context", GRADIENTS, "every gradient of a weight once"),
    ],
    "ring": [
        Bound(
            "collective-permute",
            "context",
            LAYERS * (2 * 7 * 2 + 8 * 2 * 2) * KEYS / 8 * 1.03,
            "keys and values to 7 others in each pass, their gradients in float32 to 8; what describes the keys, 3% of it",
        ),
        Bound("all-reduce", "context", GRADIENTS, "every gradient of a weight once"),
    ],
    "stage": [
        Bound("collective-permute", "stage", (4 * TICKS - 2) * MICRO, "a micro-batch each tick, and rows to the first stage, both ways"),
        Bound("all-gather", "stage", STREAM / 2 + F32 * TOKENS, "the last states to those who compute the loss of their rows; ids"),
        Bound("reduce-scatter", "stage", STREAM / 2, "gradients of these"),
        Bound("all-reduce", "stage", STREAM / 2, "the last states"),
        # The GPU's compiler adds them over the ticks first and sends them once.
        Bound("all-reduce", "data", TICKS * BF16 * BLOCKS / 4, "gradients of a stage's own layers, at each tick"),
        Bound("all-reduce", "data stage", F32 * (HEAD + TABLE), "gradients of head and table, which all stages hold"),
    ],
    "product": [
        *fsdp(4, tensor=2),
        *tensor(batch_ways=4),
        # The TPU's compiler does not see that of its sum a part is kept.
        Bound("all-reduce", "fsdp", BF16 * LAYERS * WIDTH * HEADS * HEAD_DIM / 2, "gradients of attention's last weight"),
    ],
}


@pytest.fixture(params=list(TOPOLOGIES), scope="module")
def kind(request):
    if not installed(MODULES[request.param][0]):
        pytest.skip(f"the compiler for {request.param} is not installed")
    return request.param


@pytest.mark.parametrize("layout", [layout for layout in BOUNDS if f"decoder-{layout}" in NAMES])
def test_a_layout_sends_what_it_promises_and_no_more(kind, layout):
    bounds = {(bound.kind, bound.axes): bound for bound in BOUNDS[layout]}
    for found in analyses(kind)[f"decoder-{layout}"].collectives:
        bound = bounds.get((found.kind, " ".join(found.axes)))
        allowed = SMALL + (bound.payload if bound else 0)
        assert found.payload <= allowed, f"{found} is beyond {allowed:,.0f} bytes: {bound.reason if bound else 'norms and scalars'}"


@pytest.mark.parametrize("family", [family for family in FAMILIES if f"{family}-product" in NAMES])
def test_every_family_sends_no_more_than_its_weights_and_its_stream(kind, family):
    """The mesh is fsdp=4, tensor=2 with sequence parallelism; cross-attention is a third part of a block, with the memory of its own."""
    model, weights = FAMILIES[family][0], parameters(FAMILIES[family][0])["total"]
    both = model.architecture == "encoder_decoder"
    parts, stream = (2 + 4) * LAYERS if both else 2 * LAYERS, STREAM / 4 * 1.05  # rows of pairs and of masked text are a little longer
    allowed = {
        ("all-gather", "fsdp"): (2 * BF16 * weights + F32 * weights / 4) / 2,
        ("reduce-scatter", "fsdp"): (BF16 * weights + F32 * weights / 4) / 2,
        ("all-gather", "tensor"): (3 * parts + 4) * stream,
        ("reduce-scatter", "tensor"): (2 * parts + 4) * stream,
        # The TPU's compiler sums whole where a part would not fill its tiles, and some gradients whose part it does not see.
        ("all-reduce", "tensor"): (2 * parts + 4) * stream,
        ("all-reduce", "fsdp"): F32 * weights / 8,
    }
    for found in analyses(kind)[f"{family}-product"].collectives:
        bound = allowed.get((found.kind, " ".join(found.axes)), STREAM / 4 + F32 * TABLE / 2)
        assert found.payload <= bound + SMALL, f"{found} is beyond {bound:,.0f} bytes"


@pytest.mark.parametrize("name", NAMES)
def test_no_collective_carries_a_whole_tree_of_weights(kind, name):
    """But the gather of updated weights under ZeRO-1, which the GPU's compiler combines into one: its result is the tree that every device
    keeps in any case, so that it takes a second one's memory no longer than the update."""
    family, layout = name.split("-")
    weights = BF16 * parameters(FAMILIES[family][0])["total"]
    free = ("collective-permute", "all-gather") if layout == "zero1" else ("collective-permute",)
    assert all(found.largest < weights for found in analyses(kind)[name].collectives if found.kind not in free)


def test_collectives_are_those_of_the_golden_file(kind):
    """`python -m tests.preflight.write_golden` shows every difference, and with --write makes it the new truth."""
    if not path(kind).exists():
        pytest.skip(f"no golden file of this version: {path(kind).name}")
    golden = json.loads(path(kind).read_text(encoding="utf-8"))
    assert rows(analyses(kind)) == {name: golden[name] for name in NAMES}
