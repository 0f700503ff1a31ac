"""Attention in blocks is attention, never holds all pairs and passes over no block that somebody sees; splash, step by step, too."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.errors import UserError
from lm.model.kernels import blockwise, cudnn, packed, splash
from lm.model.kernels.blocks import BLOCK, Rule, block_of
from lm.model.kernels.plain import xla_attention
from lm.model.mask import HIDDEN, Mask
from lm.model.relative import Relative
from lm.sharding import RULES
from lm.train.zigzag import zigzag

BATCH, LENGTH, HEADS, KV_HEADS, SIZE = 2, 14, 4, 2, 4
LINE = jnp.arange(LENGTH, dtype=jnp.int32)[None]
PLACED = {"q_original_index_BT": LINE, "k_original_index_BS": LINE}
PACKED = jnp.array([[1] * 5 + [2] * 6 + [0] * 3, [1] * LENGTH])
RESTARTED = jnp.where(PACKED == 1, LINE, jnp.where(PACKED == 2, LINE - 5, LINE - 11))
TEXTS = {"q_segment_BT": PACKED, "k_segment_BS": PACKED}
PREFIX = {"k_prefix_BS": (LINE % 7 < 3).astype(int)}
MASKS = {
    "causal": Mask(LINE, LINE, **PLACED),
    "full": Mask(LINE, LINE, **PLACED, kind="full"),
    "window": Mask(LINE, LINE, **PLACED, window=3),
    "two-sided window": Mask(LINE, LINE, **PLACED, window=4, kind="full"),
    "packed": Mask(RESTARTED, RESTARTED, **TEXTS, **PLACED),
    "packed, full": Mask(RESTARTED, RESTARTED, **TEXTS, **PLACED, kind="full"),
    "prefix, packed": Mask(RESTARTED, RESTARTED, **TEXTS, **PREFIX, **PLACED),
    "prefix, window": Mask(LINE, LINE, **PREFIX, **PLACED, window=5),
    "rows of their own": Mask(RESTARTED, RESTARTED),
}
QUICK = {"xla_backend_optimization_level": 0}  # half the time to compile
WAYS = {"causal": False, "full": True}


def arrays(dtype, queries=LENGTH, keys=LENGTH):
    rng = np.random.default_rng(0)
    shapes = (queries, HEADS), (keys, KV_HEADS), (keys, KV_HEADS)
    return tuple(jnp.asarray(rng.standard_normal((BATCH, length, heads, SIZE)), dtype) for length, heads in shapes)


def both(mask, block, dtype, biased):
    """Value and gradients of a function of the attended values: in blocks, and as products."""
    q, k, v = arrays(dtype)
    table = jnp.asarray(np.random.default_rng(1).standard_normal((8, HEADS)), dtype) if biased else None

    def in_blocks(table, *qkv):
        relative = None if table is None else Relative(table, 8, 10, both_ways=WAYS[mask.kind])
        attended, _ = blockwise.attention(*qkv, mask, relative=relative, scale=0.7, block=block)
        return jnp.sum(jnp.sin(attended)), attended

    def as_products(table, *qkv):
        relative = None if table is None else Relative(table, 8, 10, both_ways=WAYS[mask.kind])
        bias = None if relative is None else relative.bias_BNTS(*mask.distance_indices())
        attended = xla_attention(*qkv, mask, bias_BNTS=bias, scale=0.7)
        return jnp.sum(jnp.sin(attended)), attended

    where = (1, 2, 3) if table is None else (0, 1, 2, 3)
    two = [jax.value_and_grad(attend, where, has_aux=True) for attend in (in_blocks, as_products)]
    return jax.jit(lambda *arguments: [attend(*arguments) for attend in two])(table, q, k, v)


# Blocks that divide the length and others, with a bias and without.
CASES = [(kind, 7 if i % 2 else 4, i % 4 in (1, 2)) for i, kind in enumerate(MASKS)]


@pytest.mark.parametrize(("kind", "block", "biased"), CASES)
def test_blocks_are_the_whole(kind, block, biased):
    with jax.enable_x64(True):
        found, expected = both(MASKS[kind], block, jnp.float64, biased)
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            assert a.dtype == jnp.float64
            np.testing.assert_allclose(a, b, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize(("dtype", "tolerance", "block"), [(jnp.float32, 1e-5, 512), (jnp.bfloat16, 0.03, 4)])
def test_sums_are_at_least_float32(dtype, tolerance, block):
    found, expected = both(MASKS["packed"], block, dtype, biased=False)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(np.float32(a), np.float32(b), atol=tolerance * float(jnp.abs(b).max()))


def test_parts_are_merged_by_their_log_sum_exp():
    """exp(log_sum) weighs two parts of the keys; its gradient is right too."""
    with jax.enable_x64(True):
        q, k, v = arrays(jnp.float64)

        def halves(q, k, v):
            parts = []
            for first in (0, 6):
                keys = slice(first, first + 8 if first else 6)
                mask = Mask(LINE, LINE[:, keys], q_original_index_BT=LINE, k_original_index_BS=LINE[:, keys])
                parts.append(blockwise.attention(q, k[:, keys], v[:, keys], mask, block=4))
            total = jnp.logaddexp(parts[0][1], parts[1][1])
            return sum(x * jnp.exp(log_sum - total)[..., None] for x, log_sum in parts)

        def whole(*qkv):
            return xla_attention(*qkv, MASKS["causal"])

        two = [jax.value_and_grad(lambda *qkv, attend=attend: jnp.sum(jnp.sin(attend(*qkv))), (0, 1, 2)) for attend in (halves, whole)]
        found, expected = jax.jit(lambda *qkv: [attend(*qkv) for attend in two])(q, k, v)
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-12)


@pytest.mark.parametrize("block", [4, 512])
def test_a_query_that_sees_nothing_attends_to_nothing(block):
    q, k, v = arrays(jnp.float32, keys=9)
    segments = jnp.where(PACKED == 0, 3, PACKED)
    mask = Mask(LINE, LINE[:, :9], segments, jnp.ones((1, 9), int), kind="full")

    def loss(q, k, v):
        attended, log_sum = blockwise.attention(q, k, v, mask, block=block)
        return jnp.sum(jnp.square(attended)), (attended, log_sum)

    (_, (attended, log_sum)), gradients = jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))(q, k, v)
    hidden = np.asarray(segments != 1)
    assert np.all(np.asarray(attended)[hidden] == 0)
    assert np.all(np.asarray(log_sum)[hidden] == np.float32(HIDDEN))
    assert np.all(np.asarray(gradients[0])[hidden] == 0)
    assert all(np.isfinite(x).all() and np.abs(x).max() > 0 for x in gradients)


@pytest.mark.parametrize(("policy", "biased"), [(None, True), ("dots_saveable", False)])
def test_memory_grows_with_the_length_and_not_its_square(policy, biased):
    """Value and gradient take the same bytes per token at every length, whatever a policy of rematerialisation would keep."""

    def temporaries(length):
        shapes = [(1, length, heads, SIZE) for heads in (HEADS, KV_HEADS, KV_HEADS)]
        q, k, v = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)
        line = jax.ShapeDtypeStruct((1, length), jnp.int32)
        table = jax.ShapeDtypeStruct((8, HEADS), jnp.float32)

        def loss(q, k, v, table, line):
            mask = Mask(line, line, line, line, q_original_index_BT=line, k_original_index_BS=line)
            relative = Relative(table, 8, 10, both_ways=False) if biased else None
            return jnp.sum(jnp.sin(blockwise.attention(q, k, v, mask, relative=relative, block=64)[0]))

        if policy is not None:
            loss = jax.checkpoint(loss, policy=getattr(jax.checkpoint_policies, policy))
        step = jax.jit(jax.value_and_grad(loss, (0, 1, 2, 3)), compiler_options=QUICK)
        return step.lower(q, k, v, table, line).compile().memory_analysis().temp_size_in_bytes

    assert temporaries(8192) / 8192 < 1.05 * temporaries(2048) / 2048


@pytest.mark.parametrize("kind", ["causal", "full"])
@pytest.mark.parametrize("window", [None, 1, 5])
@pytest.mark.parametrize("prefix", [False, True])
def test_no_block_that_a_query_sees_is_passed_over(kind, window, prefix):
    rng, rule = np.random.default_rng(0), Rule(kind, window, 1.0, by_original_index=True)
    for _ in range(30):
        q, k = (rng.permutation(24)[None, :4] for _ in range(2))
        mask = Mask(q, k, k_prefix_BS=np.ones((1, 4), int) if prefix else None, kind=kind, window=window)
        visible = mask.visible()
        if visible is None or visible.any():
            assert rule.needed(q, k, prefix)


@pytest.mark.parametrize(("ways", "chunk"), [(4, 8), (4, 512), (4, 576), (2, 640), (4, 1026)])
def test_zigzag_gives_each_device_the_same_work(ways, chunk):
    """Under a causal mask: as many pairs on each device, half of all and half of the blocks on the diagonal."""
    block = block_of(chunk, BLOCK)
    blocks = zigzag(2 * ways * chunk, ways).reshape(2 * ways, -1, block)  # chunk by chunk
    early, late = blocks.min(axis=-1).ravel(), blocks.max(axis=-1).ravel()
    rule = Rule("causal", None, 1.0, by_original_index=True)
    ends = np.stack([early, late], axis=1)
    needed = np.array([[bool(rule.needed(q[None], k[None], prefix=False)) for k in ends] for q in ends])
    count = len(ends) // ways
    work = needed.reshape(ways, -1).sum(axis=1)
    assert np.all(work == work[0])
    assert work.sum() == ways * count * (ways * count + 1) / 2


@pytest.mark.parametrize("most", [8, 512])
def test_a_block_fills_a_chunk_or_is_not_small(most):
    for chunk in range(1, 3 * most):
        block = block_of(chunk, most)
        assert block <= min(chunk, most)
        assert chunk % block == 0 or block > most / 2


TILED = jnp.arange(256, dtype=jnp.int32)[None]
SORTED = jnp.asarray(np.sort(np.random.default_rng(0).integers(0, 4, (BATCH, 256))))
SPLASHED = {
    "packed": Mask(TILED, TILED, SORTED, SORTED),
    "two-sided": Mask(TILED, TILED, SORTED, SORTED, window=30, kind="full"),
    "window": Mask(TILED, TILED, window=30),
    "full": Mask(TILED, TILED, kind="full"),
}


@pytest.mark.parametrize("kind", SPLASHED)
def test_splash_is_attention(kind):
    mask, qkv = SPLASHED[kind], arrays(jnp.float32, 256, 256)

    def tried(*qkv):
        return splash.attention(*qkv, mask, RULES, scale=0.7, interpret=True)

    def plain(*qkv):
        return xla_attention(*qkv, mask, scale=0.7)

    def with_gradients(attend):
        return jax.value_and_grad(lambda *qkv: jnp.sum(jnp.sin(attend(*qkv))), (0, 1, 2))

    # Kernels of the backward pass get the forward one's mask: the two that hold all of its parts stand for it.
    wrap = with_gradients if kind in ("packed", "two-sided") else lambda attend: attend
    two = [wrap(attend) for attend in (tried, plain)]
    found, expected = jax.jit(lambda *qkv: [attend(*qkv) for attend in two])(*qkv)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("described", [Mask(LINE, LINE), Mask(LINE, LINE, kind="full"), Mask(LINE, LINE, window=3)])
def test_cudnn_is_asked_for_the_mask(monkeypatch, described):
    """Its arguments, carried out by XLA: a CPU has no cuDNN."""
    attend = jax.nn.dot_product_attention
    monkeypatch.setattr(jax.nn, "dot_product_attention", lambda *x, implementation, **how: attend(*x, implementation="xla", **how))
    qkv = arrays(jnp.float32)
    found, expected = jax.jit(lambda *qkv: (cudnn.attention(*qkv, described, scale=0.7), xla_attention(*qkv, described, scale=0.7)))(*qkv)
    np.testing.assert_allclose(found, expected, atol=2e-6)


ROWS = [[1] * 5 + [2] + [3] * 7 + [0] * 3, [4] * 16, [*range(1, 17)]]  # documents and padding; one document; 16 of one token


def as_cudnn(q, k, v, *, q_seqlen, kv_seqlen, q_offsets, kv_offsets, scale, mask_type):
    """Stands for cuDNN: only what the lengths and the offsets of each row say, and NaN in tokens that they leave out."""
    assert q_seqlen is kv_seqlen
    assert q_offsets is kv_offsets
    assert q_offsets.shape[1] == q_seqlen.shape[1] + 1
    index = jnp.arange(q.shape[1])
    inside = (index >= q_offsets[:, :-1, None]) & (index < (q_offsets[:, :-1] + q_seqlen)[:, :, None]) & (q_seqlen >= 0)[:, :, None]
    number = jnp.where(inside.any(1), jnp.argmax(inside, axis=1), -1)
    mask = Mask(index[None], index[None], number, number, kind="causal" if mask_type.name == "PADDING_CAUSAL" else "full")
    return jnp.where((number >= 0)[:, :, None, None], xla_attention(q, k, v, mask, scale=scale), jnp.nan)


@pytest.mark.parametrize(("kind", "most"), [("causal", 16), ("full", 4)])
def test_cudnn_is_told_where_documents_begin(monkeypatch, kind, most):
    """Its arguments, carried out by XLA; of more documents than it has room for, blocks."""
    called = []
    stablehlo = pytest.importorskip("jax._src.cudnn.fused_attention_stablehlo")
    monkeypatch.setattr(stablehlo, "dot_product_attention", lambda *x, **how: called.append(1) or as_cudnn(*x, **how))
    monkeypatch.setattr(packed, "MOST", most)
    segments, line = jnp.asarray(ROWS), jnp.arange(16)[None]
    mask = Mask(line, line, segments, segments, None, line, line, kind=kind)
    q, k, v = (jnp.asarray(x, jnp.float32) for x in np.random.default_rng(0).normal(size=(3, 3, 16, 4, 8)))
    qkv = (q, k[:, :, :2], v[:, :, :2])
    seen = (segments > 0)[:, :, None, None]

    def with_gradients(attend):
        return jax.value_and_grad(lambda *qkv: jnp.sum(jnp.where(seen, jnp.sin(attend(*qkv)), 0)), (0, 1, 2))

    fused, plain = (
        with_gradients(attend)
        for attend in (lambda *qkv: packed.attention(*qkv, mask, RULES, scale=0.7), lambda *qkv: xla_attention(*qkv, mask, scale=0.7))
    )
    found, expected = jax.jit(lambda *qkv: (fused(*qkv), plain(*qkv)))(*qkv)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5, rtol=1e-5)
    assert called
    documents = packed.documents_of(segments, most)
    assert bool(documents.fit) == (most == 16)
    assert documents.start_BM[0].tolist() == [0, 5, 6, 13, *[-1] * (most - 3)]
    assert documents.length_BM[0].tolist() == [5, 1, 7, 3, *[-1] * (most - 4)]


@pytest.mark.parametrize("wrong", [0.0, float("nan")])
def test_a_kernel_that_is_wrong_on_a_device_is_refused(monkeypatch, wrong):
    stablehlo = pytest.importorskip("jax._src.cudnn.fused_attention_stablehlo")
    monkeypatch.setattr(stablehlo, "dot_product_attention", lambda *x, **how: as_cudnn(*x, **how) * (1 + wrong))
    with contextlib.nullcontext() if wrong == 0 else pytest.raises(UserError, match="attention=blockwise"):
        packed.prove(jnp.bfloat16, causal=True, heads=4, kv_heads=2, head_dim=16)
