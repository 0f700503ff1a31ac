"""Grouped-query attention, within one stream or from one to another."""

from typing import Any, NamedTuple, Optional

import jax
from flax import nnx

from lm.model.cache import Values, write, write_all
from lm.model.config import ModelConfig
from lm.model.execution import Execution
from lm.model.kernels import context as context_parallel
from lm.model.kernels import cudnn, packed, rows, splash
from lm.model.kernels.choose import Kernel, choose
from lm.model.kernels.context import context_ways
from lm.model.kernels.plain import xla_attention
from lm.model.mask import Mask
from lm.model.norm import RMSNorm
from lm.model.positions import Rope, rotate
from lm.model.relative import Relative
from lm.model.weights import Linear, key_for
from lm.sharding import constrain, resplit

KeyValue = tuple[jax.Array, jax.Array]  # keys and values, BSKH
StoredPair = tuple[Values, Values]  # those of all layers, in a cache


class Context(NamedTuple):
    """The masks, positions and memory that all layers of one call share."""

    mask: Mask
    rope: Optional[Rope] = None
    relative: Optional[Relative] = None  # T5's bias, added to the logits of self-attention
    bias_BNTS: Optional[jax.Array] = None  # the same as an array, where the kernel wants one; a leading axis of 1 serves all rows
    slot_BT: Optional[jax.Array] = None  # where the cache keeps this call's keys and values
    attend_cache: bool = False  # whether queries see the cache's keys, or this call's only
    memory_BSD: Optional[jax.Array] = None  # what cross-attention reads; None: the keys and values that the cache holds
    memory_mask: Optional[Mask] = None  # None: there is no cross-attention


class Attention(nnx.Module):
    """Attention, softmax(scale q k + mask) v, in which each group of N / K query heads shares one key/value head (Ainslie et al. 2023).

    Calls are (x, context, stored, layer) -> (x, stored), with the cache's keys and values of all layers. `cross` attention takes keys and
    values from the memory, once for all steps of decoding, and knows no positions.
    """

    def __init__(self, config: ModelConfig, execution: Execution, *, key: jax.Array, cross: bool = False):
        attention, rules = config.attention, execution.rules
        self.execution, self.cross = execution, cross
        self.scale = attention.scale
        linears = attention.linears(config.d_model, config.out_gain)
        self.query, self.key, self.value, self.out = (
            Linear(linears[name], key=key_for(key, name), rules=rules, on_cpu=execution.on_cpu) for name in ("query", "key", "value", "out")
        )
        norms = {name: RMSNorm(size, config.norm_epsilon, key=key, rules=rules) for name, size in attention.norm_sizes().items()}
        self.query_norm, self.key_norm = norms.get("query"), norms.get("key")

    def __call__(
        self, x_BTD: jax.Array, context: Context, stored: Optional[StoredPair], layer: Any
    ) -> tuple[jax.Array, Optional[StoredPair]]:
        q_BTNH = self.query(x_BTD)
        if self.query_norm is not None:
            q_BTNH = _normed(self.query_norm, q_BTNH)
        if context.rope is not None and not self.cross:
            q_BTNH = rotate(q_BTNH, context.rope)
        q_BTNH = constrain(q_BTNH, "act_batch", "act_length", "act_heads", None, rules=self.execution.rules)
        if self.cross:
            (k_BSKH, v_BSKH), stored = self._cross_keys(x_BTD.dtype, context, stored, layer)
            mask = context.memory_mask
        else:
            (k_BSKH, v_BSKH), stored = self._own_keys(x_BTD, context, stored, layer)
            mask = context.mask
        assert mask is not None
        attended_BTNH = self._attend(q_BTNH, k_BSKH, v_BSKH, mask, context)
        # Stated here too, for the gradient that comes back: the residual stream may be split otherwise.
        return self.out(constrain(attended_BTNH, "act_batch", "act_length", "act_heads", None, rules=self.execution.rules)), stored

    def _attend(self, q_BTNH: jax.Array, k_BSKH: jax.Array, v_BSKH: jax.Array, mask: Mask, context: Context) -> jax.Array:
        relative, bias_BNTS = (None, None) if self.cross else (context.relative, context.bias_BNTS)
        arrays, rules = (q_BTNH, k_BSKH, v_BSKH), self.execution.rules
        kernel = choose_for(mask, q_BTNH.dtype, self.execution, q_BTNH.shape[-1], relative=relative is not None, cross=self.cross)
        if kernel == "cudnn" and mask.q_segment_BT is not None:
            return packed.attention(*arrays, mask, rules, scale=self.scale)
        if kernel == "cudnn":
            return cudnn.attention(*arrays, mask, scale=self.scale)
        if kernel == "splash":
            return splash.attention(*arrays, mask, rules, scale=self.scale)
        if kernel == "blockwise":
            ring = self.execution.context == "ring"
            return context_parallel.attention(*arrays, mask, relative=relative, scale=self.scale, ring=ring)
        if self.execution.on_cpu and bias_BNTS is None and rows.serves(q_BTNH.shape[1], k_BSKH.shape[1]):
            return rows.attention(*arrays, mask, scale=self.scale)
        # Every query's device needs all keys.
        split, whole = ("act_batch", "act_length", "act_kv_heads", None), ("act_batch", None, "act_kv_heads", None)
        k_BSKH, v_BSKH = (resplit(x, split, whole, rules=rules) for x in (k_BSKH, v_BSKH))
        return xla_attention(q_BTNH, k_BSKH, v_BSKH, mask, bias_BNTS=bias_BNTS, scale=self.scale)

    def _own_keys(
        self, x_BTD: jax.Array, context: Context, stored: Optional[StoredPair], layer: Any
    ) -> tuple[KeyValue, Optional[StoredPair]]:
        k_BSKH, v_BSKH = self._keys_of(x_BTD, context.rope)
        if stored is not None and context.slot_BT is not None:
            stored = (write(stored[0], k_BSKH, layer, context.slot_BT), write(stored[1], v_BSKH, layer, context.slot_BT))
            if context.attend_cache:
                k_BSKH, v_BSKH = (y[layer].astype(x_BTD.dtype) for y in stored)
        return (k_BSKH, v_BSKH), stored

    def _cross_keys(self, dtype: Any, context: Context, stored: Optional[StoredPair], layer: Any) -> tuple[KeyValue, Optional[StoredPair]]:
        if context.memory_BSD is None:
            assert stored is not None, "cross-attention needs a memory or a cache that holds its keys"
            return (stored[0][layer].astype(dtype), stored[1][layer].astype(dtype)), stored
        k_BSKH, v_BSKH = self._keys_of(context.memory_BSD, None)
        if stored is not None:
            stored = (write_all(stored[0], k_BSKH, layer), write_all(stored[1], v_BSKH, layer))
        return (k_BSKH, v_BSKH), stored

    def _keys_of(self, x_BSD: jax.Array, table: Optional[Rope]) -> KeyValue:
        k_BSKH, v_BSKH = self.key(x_BSD), self.value(x_BSD)
        if self.key_norm is not None:
            k_BSKH = _normed(self.key_norm, k_BSKH)
        if table is not None:
            k_BSKH = rotate(k_BSKH, table)
        rules = self.execution.rules
        k_BSKH = constrain(k_BSKH, "act_batch", "act_length", "act_kv_heads", None, rules=rules)
        return k_BSKH, constrain(v_BSKH, "act_batch", "act_length", "act_kv_heads", None, rules=rules)


def _normed(norm: RMSNorm, x_BTNH: jax.Array) -> jax.Array:
    """Normalises each head, or all heads together, as the norm has scales for."""
    size = norm.scale.shape[-1]
    return norm(x_BTNH.reshape(*x_BTNH.shape[:2], -1, size)).reshape(x_BTNH.shape)


def choose_for(mask: Mask, dtype: Any, execution: Execution, head_dim: int, *, relative: bool, cross: bool = False) -> Kernel:
    """Returns the kernel of a call under the current mesh. Raises UserError when the one asked for cannot serve it."""
    return choose(
        execution.attention,
        mask,
        dtype,
        execution.platform or jax.default_backend(),
        head_dim=head_dim,
        relative=relative,
        ways=context_ways(),
        ring=execution.context == "ring",
        cross=cross,
        staged=execution.pipeline is not None,
    )


def with_bias(context: Context, relative: Relative, dtype: Any, execution: Execution, head_dim: int) -> Context:
    """Returns the context with T5's bias. The plain kernel gets the bias as an array, made once for all layers."""
    bias_BNTS = None
    if choose_for(context.mask, dtype, execution, head_dim, relative=True) == "xla":
        bias_BNTS = relative.bias_BNTS(*context.mask.distance_indices())
    return context._replace(relative=relative, bias_BNTS=bias_BNTS)
