"""The mask's description, the choice of a kernel, and the products against a loop written from the definition."""

import dataclasses
import math
import re
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from model.small import LLAMA

from lm.data.config import DataConfig
from lm.data.objectives.config import NextToken, SpanCorruption
from lm.errors import UserError
from lm.mesh import MeshConfig
from lm.model.config import ModelConfig
from lm.model.kernels.choose import AMPERE, choose, platform_of
from lm.model.kernels.plain import xla_attention
from lm.model.mask import Mask
from lm.model.positions import rope, rotate
from lm.train.build import build
from lm.train.config import ExecutionConfig, RunConfig


def mask(**changes):
    positions = jnp.arange(6, dtype=jnp.int32)[None]
    return Mask(positions, positions, **changes)


def test_a_mask_is_what_its_docstring_draws():
    segments = jnp.array([[1, 1, 2, 2]])
    positions = jnp.array([[0, 1, 0, 1]])
    packed = Mask(positions, positions, segments, segments).visible()
    np.testing.assert_array_equal(packed[0].astype(int), [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1]])
    line = jnp.arange(4)[None]
    window = Mask(line, line, window=2).visible()
    np.testing.assert_array_equal(window[0].astype(int), [[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]])
    assert Mask(line, line, kind="full").bias() is None


def test_grouped_attention_is_the_definition():
    rng = np.random.default_rng(0)
    q, k, v = (rng.standard_normal((2, 6, heads, 8)).astype(np.float32) for heads in (4, 2, 2))
    found = xla_attention(jnp.asarray(q), jnp.asarray(k), jnp.asarray(v), mask())
    for row, head, query in np.ndindex(2, 4, 6):
        logits = k[row, : query + 1, head // 2] @ q[row, query, head] / np.sqrt(8)
        weights = np.exp(logits - logits.max())
        expected = weights / weights.sum() @ v[row, : query + 1, head // 2]
        np.testing.assert_allclose(found[row, query, head], expected, atol=2e-6)


def test_rotary_products_depend_on_distance_only_and_keep_length():
    rng = np.random.default_rng(0)
    q, k = (jnp.asarray(np.tile(rng.standard_normal((1, 1, 1, 8)), (1, 6, 1, 1)), jnp.float32) for _ in range(2))
    table = rope(jnp.arange(6)[None], dataclasses.replace(LLAMA, attention=dataclasses.replace(LLAMA.attention, head_dim=8)))
    products = np.einsum("BTNH,BSNH->TS", rotate(q, table), rotate(k, table))
    np.testing.assert_allclose(products[1:, 1:], products[:-1, :-1], atol=1e-5)
    np.testing.assert_allclose(jnp.linalg.norm(rotate(q, table), axis=-1), jnp.linalg.norm(q, axis=-1), rtol=1e-6)


LINE = jnp.arange(128)[None]
SEGMENTS = {"q_segment_BT": jnp.ones((1, 128), int), "k_segment_BS": jnp.ones((1, 128), int)}


def placed(**changes):
    return Mask(LINE, LINE, **{"q_original_index_BT": LINE, "k_original_index_BS": LINE, **changes})


ORDER = "takes indices for positions"
# mask, why cudnn refuses it, why splash does
MASKS = {
    "causal": (placed(), None, None),
    "full": (placed(kind="full"), None, None),
    "window": (placed(window=2), None, None),
    "two-sided window": (placed(kind="full", window=2), "reaches forward", None),
    "segments": (placed(**SEGMENTS), None, None),
    "full segments": (placed(kind="full", **SEGMENTS), None, None),
    "segments, window": (placed(window=2, **SEGMENTS), "document boundaries", None),
    "prefix": (placed(k_prefix_BS=LINE), "no prefix", "no prefix"),
    "cache": (Mask(LINE[:, :1], LINE), ORDER, "multiple of 128"),
    "cache of as many": (Mask(LINE, LINE), ORDER, ORDER),
    "permuted": (placed(permuted=True), ORDER, ORDER),
    "permuted, full": (placed(kind="full", permuted=True), None, None),
}
DEVICES = {"cudnn": ("gpu", jnp.bfloat16, jnp.float16), "splash": ("tpu", jnp.bfloat16, jnp.float32)}


def kernel(asked, described, dtype, platform, reason=None, head_dim=64, **how):
    """The choice, or None where it is refused for the reason."""
    if reason is None:
        return choose(asked, described, dtype, platform, head_dim=head_dim, **how)
    with pytest.raises(UserError, match=reason):
        choose(asked, described, dtype, platform, head_dim=head_dim, **how)
    return None


@pytest.mark.parametrize("fused", DEVICES)
@pytest.mark.parametrize("kind", MASKS)
def test_mask_and_backend_give_a_kernel_or_a_reason(kind, fused):
    described, *refusals = MASKS[kind]
    reason = refusals[list(DEVICES).index(fused)]
    platform, *dtypes = DEVICES[fused]
    for dtype in dtypes:
        assert kernel(fused, described, dtype, platform, reason) == (None if reason else fused)
        assert kernel("auto", described, dtype, platform) == ("xla" if reason else fused)
    # A mask's own refusal is named before that of a bias or of a split sequence, but for what concerns indices, and prefixes beside a bias.
    biased = reason if reason == "reaches forward" else "bias of relative positions"
    apart = "mesh.context splits it" if reason in (None, ORDER) else reason
    for how, why in ({"relative": True}, biased), ({"ways": 2}, apart):
        kernel(fused, described, dtypes[0], platform, why, **how)
        assert kernel("auto", described, dtypes[0], platform, **how) == "xla"
    kernel(fused, described, jnp.bfloat16, "cpu", "runs on .* and this is cpu")
    kernel(fused, described, jnp.float64, platform, "compute_dtype is float64")
    for other in ("xla", "blockwise"):
        assert kernel(other, described, dtypes[0], platform, relative=True, ways=2) == other


def test_gpus_that_the_fused_kernel_does_not_serve_have_another_name():
    def device(platform, version="", capability=None):
        return types.SimpleNamespace(
            platform=platform, compute_capability=capability, client=types.SimpleNamespace(platform_version=version)
        )

    assert platform_of(device("gpu", "PJRT C API\ncuda 13000", "9.0")) == platform_of(device("gpu")) == "gpu"
    for other in (device("gpu", "PJRT C API\nrocm 70000", "gfx942"), device("gpu", "cuda 13000", "7.5")):
        assert kernel("cudnn", placed(), jnp.bfloat16, platform_of(other), "from Ampere on and this is (rocm|a GPU of .* 7.5)") is None
        assert kernel("auto", placed(), jnp.bfloat16, platform_of(other)) == "xla"
    before = platform_of(device("gpu", "cuda 13000", "8.9"))  # fused, but for packed documents
    assert kernel("auto", placed(), jnp.bfloat16, before) == "cudnn"
    assert kernel("cudnn", placed(**SEGMENTS), jnp.bfloat16, before, "from Hopper on") is None
    assert platform_of(device("tpu")) == "tpu"


def test_sizes_and_rings_have_their_kernels():
    long = jax.ShapeDtypeStruct((1, 4096), jnp.int32)
    texts = Mask(long, long, long, long, None, long, long)
    for platform, expected in {"cpu": "blockwise", "gpu": "cudnn", AMPERE: "blockwise", "tpu": "splash"}.items():
        assert kernel("auto", texts, jnp.bfloat16, platform) == expected
    for how in {"cross": True}, {"staged": True}:
        kernel("cudnn", texts, jnp.bfloat16, "gpu", "document boundaries", **how)
        assert kernel("auto", texts, jnp.bfloat16, "gpu", **how) == "blockwise"
    assert kernel("auto", texts, jnp.bfloat16, "tpu", ways=2) == kernel("auto", texts, jnp.bfloat16, "tpu", relative=True) == "blockwise"
    assert kernel("auto", Mask(LINE[:, :1], long), jnp.float32, "cpu") == "xla"  # a step of decoding
    odd = Mask(LINE[:, :100], LINE[:, :100], None, None, None, LINE[:, :100], LINE[:, :100])
    kernel("splash", odd, jnp.bfloat16, "tpu", "lengths of a multiple of 128")
    for head_dim in (4, 60, 136):
        kernel("cudnn", placed(), jnp.bfloat16, "gpu", "head_dim is", head_dim=head_dim)
    for asked in ("xla", "cudnn", "splash"):
        kernel(asked, placed(), jnp.bfloat16, "gpu", "passes them round", ways=2, ring=True)
    assert kernel("auto", placed(), jnp.bfloat16, "gpu", ways=2, ring=True) == "blockwise"
    assert kernel("auto", placed(), jnp.bfloat16, "gpu", ways=1, ring=True) == "cudnn"


def test_the_page_of_models_holds_the_same_table():
    """docs/models.md and the docstring: mask by mask, who serves it and who refuses."""

    def cells(line, separator):
        return [cell.partition(":")[0] for cell in re.split(rf"\s*{separator}\s*", line.strip(" |"))]

    page = (Path(__file__).parents[2] / "docs/models.md").read_text(encoding="utf-8")
    drawn = [cells(line, r"\|") for line in page.splitlines() if re.match(r"\| .* \| (yes|no) \| yes \|", line)]
    stated = [cells(line, r"\s{2,}") for line in choose.__doc__.splitlines() if re.match(r"    [a-z].{39}(yes|no) ", line)]
    assert drawn == stated
    assert len(drawn) == 10


def test_a_prefix_window_and_bias_are_the_definition():
    """Prefix keys are seen by every query of their segment; a window is then two-sided; the bias is added and hidden keys stay hidden."""
    line, segment, prefix = jnp.arange(6)[None], jnp.array([[1, 1, 1, 1, 2, 2]]), jnp.array([[1, 1, 0, 0, 1, 1]])
    described = Mask(line, line, segment, segment, prefix, window=3)
    expected = [[(k <= q or prefix[0, k]) and abs(q - k) < 3 and segment[0, q] == segment[0, k] for k in range(6)] for q in range(6)]
    np.testing.assert_array_equal(described.visible()[0], np.array(expected))
    rng = np.random.default_rng(0)
    q, k, v = (rng.standard_normal((1, 6, 2, 4)).astype(np.float32) for _ in range(3))
    bias = rng.standard_normal((1, 2, 6, 6)).astype(np.float32)
    found = xla_attention(*map(jnp.asarray, (q, k, v)), described, bias_BNTS=jnp.asarray(bias), scale=0.7)
    logits = np.where(expected, 0.7 * np.einsum("BTNH,BSNH->BNTS", q, k) + bias, -np.inf)
    weights = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(found, np.einsum("BNTS,BSNH->BTNH", weights, v), atol=2e-6)


def test_a_run_names_the_kernels_of_its_stacks():
    """run.json's words, from the very masks of training."""

    def named(architecture, objective, sizes, **how):
        model = ModelConfig(architecture=architecture, positions="relative" if architecture == "encoder_decoder" else "rope")
        data = DataConfig(sequence_length=128, objective=objective)
        config = RunConfig(model=model, data=data, mesh=MeshConfig(**sizes), execution=ExecutionConfig(**how))
        return build(config, jax.devices()[: math.prod(sizes.values())]).attention

    assert named("decoder", NextToken(), {"data": 1}) == "xla"
    assert named("decoder", NextToken(), {"data": 1}, attention="blockwise", context_attention="gather") == "blockwise"
    assert named("decoder", NextToken(), {"data": 1, "context": 2}) == "xla"
    assert named("decoder", NextToken(), {"data": 1, "context": 2}, context_attention="ring") == "blockwise ring"
    both = named("encoder_decoder", SpanCorruption(), {"data": 1}, attention="blockwise")
    assert both == "decoder blockwise, encoder blockwise, cross blockwise"
    with pytest.raises(UserError, match="passes them round"):
        named("decoder", NextToken(), {"data": 1, "context": 2}, attention="xla", context_attention="ring")
