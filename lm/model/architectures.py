"""`build` and `Model`, through which everything outside this folder sees a Transformer: pure functions over a dict of parameters."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh
from jax.tree_util import keystr
from jaxtyping import Array, Float, Int

from lm.errors import UserError
from lm.model import cache as kv
from lm.model.attention import Context
from lm.model.block import Stored
from lm.model.config import ModelConfig
from lm.model.execution import Execution
from lm.model.mask import Mask
from lm.model.parts.positions import limit
from lm.model.positions import order, original_index_of
from lm.model.transformer import Transformer
from lm.model.weights import merge
from lm.sharding import STACK_AXES, Names, shardings
from lm.types import Inputs, Outputs, Params


class Model:
    """A Transformer as pure functions over a nested dict of parameters (float32, unless the execution says float64). `build` makes it."""

    def __init__(self, config: ModelConfig, execution: Execution):
        self.config = config
        self.execution = execution
        module = nnx.eval_shape(lambda: Transformer(config, execution, key=jax.random.key(0)))
        self._graphdef, state = nnx.split(module, nnx.Param)
        dtype = jnp.dtype(execution.param_dtype)
        self._abstract: Params = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, dtype), nnx.to_pure_dict(state))
        self._metadata: dict[str, Any] = {}  # by "a/b/c"
        for path, param in nnx.to_flat_state(state):
            self._metadata["/".join(map(str, path))] = param.get_metadata()

    def init(self, key: jax.Array) -> Params:
        """Returns initial parameters, a function of the key alone.

        `jax.jit(model.init, out_shardings=model.shardings(mesh))` makes each part on the device that holds it.
        """
        params = nnx.to_pure_dict(nnx.state(Transformer(self.config, self.execution, key=key), nnx.Param))
        return jax.tree.map(lambda x: x.astype(self.execution.param_dtype), params)

    def abstract(self) -> Params:
        """Returns the shapes and dtypes of the parameters."""
        return self._abstract

    def axes(self) -> dict[str, Any]:
        """Returns the logical axes of every parameter: the tree of the parameters with tuples of names as leaves."""

        def names(path: Any, leaf: Any) -> Names:
            axes = self._metadata[keystr(path, simple=True, separator="/")]["axes"]
            stacked = len(leaf.shape) - len(axes)  # 1, or 3 in a pipeline
            return (*STACK_AXES[-stacked:], *axes) if stacked else axes

        return jax.tree.map_with_path(names, self._abstract)

    def initials(self) -> dict[str, Any]:
        """Returns the initial distribution of every parameter: the tree of the parameters with distributions of lm.model.weights."""
        return jax.tree.map_with_path(lambda path, _: self._metadata[keystr(path, simple=True, separator="/")]["initial"], self._abstract)

    def shardings(self, mesh: Mesh) -> Any:
        """Returns a NamedSharding for every parameter. Raises UserError if a split does not divide its dimension."""
        return shardings(self.axes(), mesh, self.execution.rules, abstract=self._abstract)

    def apply(self, params: Params, inputs: Inputs, *, compute_dtype: Any = jnp.float32) -> Outputs:
        """Returns everything that the model predicts for some rows; see Inputs and Outputs.

        `attention.documents = joined` ignores segments and positions: a row is then one text, as in GPT-2, whose padding, if any, is at
        its end. Raises UserError for rows that the architecture cannot read.
        """
        module = merge(self._graphdef, self._abstract, params)
        context, aux, encoded_BSD = Context(self._mask(inputs)), {}, None
        positions_BT = context.mask.q_position_BT
        tokens_BT, types_BT = inputs.tokens, inputs.token_types
        if self.config.architecture == "encoder":
            x_BTD, aux = module.encode(tokens_BT, positions_BT, context, types_BT, compute_dtype)
        else:
            if self.config.architecture == "encoder_decoder":
                encoded_BSD, aux = self._encode(module, inputs, compute_dtype)
                context = context._replace(memory_BSD=encoded_BSD, memory_mask=self._memory_mask(inputs, context.mask))
            x_BTD, _, own = module.decode(tokens_BT, positions_BT, context, Stored(), types_BT, compute_dtype)
            aux = {**{f"encoder_{name}": value for name, value in aux.items()}, **own}
        heads, pooled_BMD = module.read_out(x_BTD, lambda token: _sequence_positions(inputs, token))
        logits_BPV, factors = None, None
        if self.config.vocabulary_head:
            x_BPD = x_BTD if inputs.predict is None else jnp.take_along_axis(x_BTD, inputs.predict[..., None], axis=1)
            logits_BPV, factors = module.logits(x_BPD), module.factors(x_BPD)
        return Outputs(logits_BPV, x_BTD, aux, heads, pooled_BMD, encoded_BSD, factors)

    def _mask(self, inputs: Inputs) -> Mask:
        """Returns which tokens of their own stream the queries of the decoder, or of the only stack, see."""
        self._check_inputs(inputs)
        joined = self.config.attention.documents == "joined"
        segments_BT, positions_BT = (None, None) if joined else (inputs.segments, inputs.positions)
        prefix_BT = inputs.prefix if self.config.architecture == "prefix_lm" else None
        kind: Any = "full" if self.config.architecture == "encoder" else "causal"
        return self._within(inputs.tokens, segments_BT, positions_BT, inputs.original_index, kind, prefix_BT)

    def _within(
        self, tokens_BT: Any, segments_BT: Any, positions_BT: Any, original_index_BT: Any, kind: Any, prefix_BT: Any = None
    ) -> Mask:
        """Returns the mask within one stream. Positions without segments may count anything: the original index then tells nothing."""
        index_BT = original_index_of(original_index_BT, tokens_BT.shape[1])
        known_BT = index_BT if positions_BT is None or segments_BT is not None else None
        positions_BT = index_BT if positions_BT is None else positions_BT
        window, permuted = self.config.attention.window, original_index_BT is not None
        twice = (positions_BT, positions_BT, segments_BT, segments_BT, prefix_BT, known_BT, known_BT)
        return Mask(*twice, kind=kind, window=window, permuted=permuted)

    def _encode(self, module: Any, inputs: Inputs, dtype: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
        tokens_BS, segments_BS = inputs.encoder_tokens, inputs.encoder_segments
        assert tokens_BS is not None
        mask = self._within(tokens_BS, segments_BS, inputs.encoder_positions, inputs.encoder_original_index, "full")
        return module.encode(tokens_BS, mask.q_position_BT, Context(mask), None, dtype)

    def _memory_mask(self, inputs: Inputs, mask: Mask) -> Mask:
        """Returns the mask of cross-attention: a query sees the encoder's tokens of its segment, or without segments those of the first."""
        assert inputs.encoder_tokens is not None
        q_segment_BT, k_segment_BS = mask.q_segment_BT, inputs.encoder_segments
        if k_segment_BS is None:
            q_segment_BT = None
        elif q_segment_BT is None:
            q_segment_BT = jnp.ones_like(mask.q_position_BT)
        k_position_BS = original_index_of(inputs.encoder_original_index, inputs.encoder_tokens.shape[1])  # which decide nothing
        return Mask(mask.q_position_BT, k_position_BS, q_segment_BT, k_segment_BS, kind="full")

    def init_cache(self, batch: int, length: int, dtype: Any = jnp.float32, *, memory: int = 0) -> kv.Cache:
        """Returns an empty cache for `batch` rows of up to `length` tokens; with a window it holds the window only.

        `memory` is the length of an encoder-decoder's encoder's stream. Raises UserError for an encoder, which generates nothing, and in a
        pipeline.
        """
        if self.execution.pipeline is not None:
            raise UserError("a pipeline trains and scores and continues no texts: build the model without one (checkpoints serve both)")
        self._check_length(length)
        if self.config.architecture == "encoder":
            raise UserError("an encoder-only model does not continue texts: it has no causal stack")
        attention, layers = self.config.attention, self.config.num_layers
        slots = min(length, attention.window or length)
        memory_slots = memory if self.config.architecture == "encoder_decoder" else None
        listed = self.execution.listed
        return kv.empty(layers, batch, slots, attention.kv_heads, attention.head_dim, dtype, memory=memory_slots, listed=listed)

    def prefill(
        self, params: Params, inputs: Inputs, lengths_B: Int[Array, " B"], cache: kv.Cache, *, compute_dtype: Any = jnp.float32
    ) -> tuple[Float[Array, "B V"], kv.Cache]:
        """Reads prompts into an empty cache and returns (logits after each row's last token, cache).

        Row b is inputs.tokens[b, :lengths_B[b]], at least one token; what follows it is padding. A prefix LM's whole prompt is prefix; an
        encoder-decoder's encoder reads `inputs.encoder_tokens`, once.
        """
        self._check_inputs(inputs)
        tokens_BT = inputs.tokens
        positions_BT = jnp.broadcast_to(order(tokens_BT.shape[1]), tokens_BT.shape)
        real_BT = positions_BT < lengths_B[:, None]
        cache, slot_BT = kv.advance(cache, positions_BT, real_BT)
        prefix_BT = real_BT.astype(jnp.int32) if self.config.architecture == "prefix_lm" else None
        # Padding is later than every real query.
        index_BT, window = positions_BT[:1], self.config.attention.window
        mask = Mask(positions_BT, positions_BT, None, None, prefix_BT, index_BT, index_BT, window=window)
        context, module = Context(mask, slot_BT=slot_BT), merge(self._graphdef, self._abstract, params)
        if self.config.architecture == "encoder_decoder":
            encoded_BSD, _ = self._encode(module, inputs, compute_dtype)
            context = context._replace(memory_BSD=encoded_BSD, memory_mask=self._memory_mask(inputs, mask))
            segments_BS: Any = 1 if inputs.encoder_segments is None else inputs.encoder_segments
            cache = dataclasses.replace(cache, memory_segment=jnp.broadcast_to(segments_BS, encoded_BSD.shape[:2]).astype(jnp.int32))
        x_BTD, cache = self._cached(module, tokens_BT, positions_BT, context, cache, compute_dtype)
        x_B1D = jnp.take_along_axis(x_BTD, (lengths_B - 1)[:, None, None], axis=1)
        return module.logits(x_B1D)[:, 0], cache

    def decode_step(
        self, params: Params, tokens_B: Int[Array, " B"], cache: kv.Cache, *, compute_dtype: Any = jnp.float32
    ) -> tuple[Float[Array, "B V"], kv.Cache]:
        """Appends one token to every row and returns (logits of the next one, cache). The caller keeps rows within the cache's length."""
        logits_B1V, cache = self.extend(params, tokens_B[:, None], cache, compute_dtype=compute_dtype)
        return logits_B1V[:, 0], cache

    def extend(
        self, params: Params, tokens_BT: Int[Array, "B T"], cache: kv.Cache, *, compute_dtype: Any = jnp.float32
    ) -> tuple[Float[Array, "B T V"], kv.Cache]:
        """Appends the same number of tokens to every row and returns (logits after each, cache).

        The caller keeps rows within the cache's length; with a window that is shorter than the text there may be one token only.
        """
        positions_BT = cache.length[:, None] + order(tokens_BT.shape[1])
        cache, slot_BT = kv.advance(cache, positions_BT, jnp.full_like(positions_BT, True, dtype=bool))
        filled_BS = (cache.position >= 0).astype(jnp.int32)
        mask = Mask(positions_BT, cache.position, jnp.ones_like(positions_BT), filled_BS, window=self.config.attention.window)
        context = Context(mask, slot_BT=slot_BT, attend_cache=True)
        if cache.memory_segment is not None:
            segments_BS = cache.memory_segment
            memory_mask = Mask(positions_BT, jnp.zeros_like(segments_BS), jnp.ones_like(positions_BT), segments_BS, kind="full")
            context = context._replace(memory_mask=memory_mask)
        module = merge(self._graphdef, self._abstract, params)
        x_BTD, cache = self._cached(module, tokens_BT, positions_BT, context, cache, compute_dtype)
        return module.logits(x_BTD), cache

    def _cached(
        self, module: Any, tokens_BT: Any, positions_BT: Any, context: Context, cache: kv.Cache, dtype: Any
    ) -> tuple[Float[Array, "B T D"], kv.Cache]:
        """Returns (states of the decoder, cache with these tokens' keys and values)."""
        cross = None if cache.memory_k is None or cache.memory_v is None else (cache.memory_k, cache.memory_v)
        x_BTD, stored, _ = module.decode(tokens_BT, positions_BT, context, Stored((cache.k, cache.v), cross), None, dtype)
        memory_k, memory_v = stored.cross or (None, None)
        cache = dataclasses.replace(cache, k=stored.own[0], v=stored.own[1], memory_k=memory_k, memory_v=memory_v)
        return x_BTD, cache

    def _check_inputs(self, inputs: Inputs) -> None:
        self._check_length(inputs.tokens.shape[1])
        if self.config.architecture == "encoder_decoder":
            if inputs.encoder_tokens is None:
                raise UserError("an encoder-decoder reads two streams: give encoder_tokens")
            self._check_length(inputs.encoder_tokens.shape[1])
        elif inputs.encoder_tokens is not None:
            raise UserError(f"encoder_tokens are for an encoder-decoder and this is architecture={self.config.architecture}")

    def _check_length(self, length: int) -> None:
        most = limit(self.config)
        if most is not None and length > most:
            raise UserError(f"{length} tokens, and the {self.config.positions} positions end at max_length={most}: shorten the text")


def _sequence_positions(inputs: Inputs, token: str) -> jax.Array:
    """Returns the indices [B, M] that stand for sequences; by default one a row, its first token or its last real one."""
    if inputs.sequence_positions is not None:
        return jnp.asarray(inputs.sequence_positions)
    batch, length = inputs.tokens.shape
    original_index_BT = original_index_of(inputs.original_index, length)
    if token == "first":
        return jnp.broadcast_to(jnp.argmin(original_index_BT, axis=1, keepdims=True), (batch, 1))
    real_BT = jnp.ones((batch, length), bool) if inputs.segments is None else jnp.broadcast_to(inputs.segments > 0, (batch, length))
    return jnp.argmax(jnp.where(real_BT, original_index_BT, -1), axis=1, keepdims=True)


@functools.lru_cache(maxsize=64)
def build(config: ModelConfig, execution: Execution = Execution()) -> Model:
    """Returns the model of a configuration. Raises UserError for one that cannot be built.

    A model has no state, and what asks for one again gets the same: to trace its initialisation for the shapes takes a tenth of a second.
    """
    return Model(config, execution)
