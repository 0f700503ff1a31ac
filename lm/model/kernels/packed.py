"""cuDNN's fused attention over packed documents, each of which sees itself alone, without a [T, S] mask.

cuDNN takes where each document begins and how long it is, from compute capability 9.0 (Hopper) on. `jax.nn.dot_product_attention` does not
offer this yet, so that JAX's own function below it is called.
"""

import contextlib
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Optional

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Int

from lm.errors import UserError
from lm.model.execution import ATTENDED
from lm.model.kernels import blockwise
from lm.model.kernels.devices import on_each_device
from lm.model.mask import Mask
from lm.sharding import Rules

MOST = 64  # documents of a row that cuDNN is given; it holds [B MOST, N, T] float32 log-sum-exps for the backward pass of one layer
AGREE = 0.03  # largest difference from blockwise attention, as a share of the largest value: bfloat16 keeps 8 bits


class Documents(NamedTuple):
    """The documents of each row, in order: the runs of one segment, padding as one of them, so that every token is in one.

    `number` counts them; `start` is the index of each one's first token and `length` its tokens, with -1 where a row has no more.
    `fit` says whether no row has more than the arrays have room for.
    """

    number_BT: Int[Array, "B T"]
    start_BM: Int[Array, "B M1"]  # one more than `length` has; the last is -1
    length_BM: Int[Array, "B M"]
    fit: Bool[Array, ""]


def documents_of(segment_BT: Int[Array, "B T"], most: int) -> Documents:
    """Returns the documents of rows, for at most `most` of them in each."""
    changes = segment_BT[:, 1:] != segment_BT[:, :-1]
    number_BT = jnp.pad(jnp.cumsum(changes, axis=1, dtype=jnp.int32), [(0, 0), (1, 0)])
    count_B1 = number_BT[:, -1:] + 1
    places = jnp.arange(most + 1)
    start_BM = jnp.sum(number_BT[:, :, None] < places, axis=1, dtype=jnp.int32)  # tokens before it; all of them where there is none
    length_BM = jnp.where(places[:-1] < count_B1, start_BM[:, 1:] - start_BM[:, :-1], -1)
    return Documents(number_BT, jnp.where(places < count_B1, start_BM, -1), length_BM, jnp.all(count_B1 <= most))


def attention(
    q_BTNH: jax.Array, k_BTKH: jax.Array, v_BTKH: jax.Array, mask: Mask, rules: Rules, *, scale: Optional[float] = None
) -> jax.Array:
    """Returns attended_BTNH of self-attention under a mask that `choose` lets through: causal or full within documents, in their order.

    Rows with more than MOST documents are served by blockwise attention, on the device that has them.
    """
    assert mask.q_segment_BT is not None
    scale = 1 / math.sqrt(q_BTNH.shape[-1]) if scale is None else scale
    segment_BT = jnp.broadcast_to(jnp.asarray(mask.q_segment_BT), q_BTNH.shape[:2])
    local = functools.partial(_local, mask.kind == "causal", scale)
    return checkpoint_name(on_each_device(local, [q_BTNH, k_BTKH, v_BTKH, segment_BT], rules), ATTENDED)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _local(causal: bool, scale: float, q_BTNH: jax.Array, k_BTKH: jax.Array, v_BTKH: jax.Array, segment_BT: jax.Array) -> jax.Array:
    documents = documents_of(segment_BT, MOST)
    return jax.lax.cond(documents.fit, *_two(causal, scale, documents), q_BTNH, k_BTKH, v_BTKH)


def _forward(causal: bool, scale: float, *arrays: jax.Array) -> tuple[jax.Array, Any]:
    return _local(causal, scale, *arrays), arrays


def _backward(causal: bool, scale: float, arrays: Any, cotangent_BTNH: jax.Array) -> Any:
    """Computes the forward pass again, in the branch that is taken: kept from before, the results of both would lie in memory."""
    *qkv, segment_BT = arrays
    documents = documents_of(segment_BT, MOST)

    def back(attend: Callable) -> Callable:
        return lambda cotangent_BTNH, *qkv: jax.vjp(attend, *qkv)[1](cotangent_BTNH)

    two = (back(attend) for attend in _two(causal, scale, documents))
    return (*jax.lax.cond(documents.fit, *two, cotangent_BTNH, *qkv), None)


_local.defvjp(_forward, _backward)


def _two(causal: bool, scale: float, documents: Documents) -> tuple[Callable, Callable]:
    """Returns cuDNN's attention and the blockwise one, as functions of queries, keys and values."""
    return functools.partial(_fused, causal, scale, documents), functools.partial(_blocks, causal, scale, documents)


def _fused(causal: bool, scale: float, documents: Documents, q_BTNH: jax.Array, k_BTKH: jax.Array, v_BTKH: jax.Array) -> jax.Array:
    groups = q_BTNH.shape[2] // k_BTKH.shape[2]
    if groups > 1 and jax.__version_info__ < (0, 12):  # which takes the number of query heads for that of the keys'
        k_BTKH, v_BTKH = (jnp.repeat(x, groups, axis=2) for x in (k_BTKH, v_BTKH))
    from jax._src.cudnn import fused_attention_stablehlo as stablehlo  # no part of JAX's promises: asked for where it is needed alone

    length_BM, start_BM = documents.length_BM, documents.start_BM
    with _of_hopper(stablehlo):
        return stablehlo.dot_product_attention(
            q_BTNH, k_BTKH, v_BTKH, q_seqlen=length_BM, kv_seqlen=length_BM, q_offsets=start_BM, kv_offsets=start_BM, scale=scale,
            mask_type=stablehlo.MaskType.PADDING_CAUSAL if causal else stablehlo.MaskType.PADDING,
        )  # fmt: skip


def _blocks(causal: bool, scale: float, documents: Documents, q_BTNH: jax.Array, k_BTKH: jax.Array, v_BTKH: jax.Array) -> jax.Array:
    number_BT = documents.number_BT
    index_BT = jnp.arange(q_BTNH.shape[1])[None]
    mask = Mask(index_BT, index_BT, number_BT, number_BT, None, index_BT, index_BT, kind="causal" if causal else "full")
    return blockwise.attention(q_BTNH, k_BTKH, v_BTKH, mask, scale=scale)[0]


@contextlib.contextmanager
def _of_hopper(stablehlo: Any) -> Iterator[None]:
    """Answers JAX's question for the GPU's capability, which `choose` has asked of the mesh's devices.

    JAX asks it of this machine's own, and a program may be compiled for others.
    """
    asked = stablehlo.check_compute_capability
    stablehlo.check_compute_capability = lambda capability: True
    try:
        yield
    finally:
        stablehlo.check_compute_capability = asked


def prove(dtype: Any, *, causal: bool, heads: int, kv_heads: int, head_dim: int) -> None:
    """Compares cuDNN's packed attention with the blockwise one on this machine's device, in values and gradients.

    Raises UserError where they differ by more than bfloat16 explains, so that no run trains on a kernel that is wrong there.
    """
    keys = jax.random.split(jax.random.key(0), 4)
    q, g = (jax.random.normal(key, (2, 256, heads, head_dim), dtype) for key in keys[:2])
    k, v = (jax.random.normal(key, (2, 256, kv_heads, head_dim), dtype) for key in keys[2:])
    documents = documents_of(jnp.asarray([[1] * 100 + [2] + [3] * 130 + [0] * 25, [1] * 256]), MOST)

    @jax.jit
    def differences(q: jax.Array, k: jax.Array, v: jax.Array, g: jax.Array) -> jax.Array:
        results = []
        for attend in _two(causal, head_dim**-0.5, documents):
            attended, back = jax.vjp(attend, q, k, v)
            results.append([x.astype(jnp.float32) for x in (attended, *back(g))])
        apart = [jnp.abs(a - b) / jnp.max(jnp.abs(b)) for a, b in zip(*results, strict=True)]
        return jnp.stack([jnp.max(jnp.where(jnp.isfinite(x), x, jnp.inf)) for x in apart])

    found = jax.device_get(differences(q, k, v, g))
    if found.max() > AGREE:
        raise UserError(
            f"cuDNN's packed attention differs from blockwise attention on this GPU by {found.max():.1%} of the largest value"
            f" ({heads} heads of {head_dim}, {jnp.dtype(dtype).name}): use --config.execution.attention=blockwise"
        )
