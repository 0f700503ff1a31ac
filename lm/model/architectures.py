"""Whole models: short compositions of stacks, and `Model`, through which everything outside this folder sees them."""

import dataclasses
from typing import Any, Optional

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh
from jax.tree_util import keystr
from jaxtyping import Array, Float, Int

from lm.errors import UserError
from lm.model import cache as kv
from lm.model.attention import Context, KeyValue
from lm.model.block import Aux, Stack
from lm.model.config import ModelConfig
from lm.model.execution import Execution
from lm.model.mask import Mask
from lm.model.norm import make_norm
from lm.model.positions import rope
from lm.model.weights import Embedding, Linear, key_for, merge
from lm.sharding import Names, constrain, shardings
from lm.types import Params


class Decoder(nnx.Module):
    """Embedding, one causal stack, a final norm and the head."""

    def __init__(self, config: ModelConfig, execution: Execution, *, key: jax.Array):
        rules, width = execution.rules, config.d_model
        self.config, self.execution = config, execution
        # A lookup has fan_in 1; a table that is also the head takes the head's scale, so that first logits have variance 1.
        std = config.embedding_std or (width**-0.5 if config.tied_head else 1.0)
        self.embed = Embedding({"vocab": config.vocab_size}, width, std, key=key_for(key, "embed"), rules=rules)
        learned, rows = config.positions == "learned", {"positions": config.max_length}
        self.position = Embedding(rows, width, std, key=key_for(key, "position"), rules=rules) if learned else None
        self.decoder = Stack(config, execution, key=key_for(key, "decoder"))
        self.norm = make_norm(config.norm, width, config.norm_epsilon, key=key, rules=rules)
        out = {"vocab": config.vocab_size}
        head_options: dict[str, Any] = {"key": key_for(key, "head"), "rules": rules, "zero": config.zero_init_outputs}
        self.head = None if config.tied_head else Linear({"embed": width}, out, **head_options)

    def __call__(
        self, tokens_BT: jax.Array, positions_BT: jax.Array, context: Context, stored: Optional[KeyValue], dtype: Any
    ) -> tuple[jax.Array, Optional[KeyValue], Aux]:
        """(x_BTD after the final norm, stored keys and values, statistics)."""
        x_BTD = self.embed(tokens_BT, dtype)
        if self.position is not None:
            x_BTD = x_BTD + self.position(positions_BT, dtype)
        if self.config.positions == "rope":
            context = context._replace(rope=rope(positions_BT, self.config.attention.head_dim, self.config.rope_theta))
        x_BTD = constrain(x_BTD, "act_batch", "act_length", "act_embed", rules=self.execution.rules)
        x_BTD, stored, aux = self.decoder(x_BTD, context, stored)
        return self.norm(x_BTD), stored, aux

    def logits(self, x_BTD: jax.Array) -> jax.Array:
        """logits_BTV in float32, summed in float32; capped as cap * tanh(logits / cap) (Gemma 2, section 2) if the config says so."""
        head = self.embed.attend if self.head is None else self.head
        logits_BTV = head(x_BTD, accumulate=jnp.float32)
        logits_BTV = constrain(logits_BTV, "act_batch", "act_length", "act_vocab", rules=self.execution.rules)
        cap = self.config.logit_softcap
        return logits_BTV if cap is None else cap * jnp.tanh(logits_BTV / cap)


class Model:
    """Pure functions over a plain nested dict of float32 parameters. Made by `build`."""

    def __init__(self, config: ModelConfig, execution: Execution):
        self.config = config
        self.execution = execution
        module = nnx.eval_shape(lambda: Decoder(config, execution, key=jax.random.key(0)))
        self._graphdef, state = nnx.split(module, nnx.Param)
        self._abstract: Params = nnx.to_pure_dict(state)
        self._metadata: dict[str, Any] = {}  # by "a/b/c"
        for path, param in nnx.to_flat_state(state):
            self._metadata["/".join(map(str, path))] = param.get_metadata()

    def init(self, key: jax.Array) -> Params:
        """Initial parameters, a function of the key alone.

        `jax.jit(model.init, out_shardings=model.shardings(mesh))` makes each part on the device that holds it.
        """
        return nnx.to_pure_dict(nnx.state(Decoder(self.config, self.execution, key=key), nnx.Param))

    def abstract(self) -> Params:
        """Shapes and dtypes of the parameters."""
        return self._abstract

    def axes(self) -> dict[str, Any]:
        """Logical axes of every parameter: the tree of the parameters with tuples of names as leaves."""

        def names(path: Any, leaf: Any) -> Names:
            axes = self._metadata[keystr(path, simple=True, separator="/")]["axes"]
            return axes if len(axes) == len(leaf.shape) else ("layers", *axes)

        return jax.tree.map_with_path(names, self._abstract)

    def initials(self) -> dict[str, Any]:
        """Initial distribution of every parameter: the tree of the parameters with lm.model.weights' distributions as leaves."""
        return jax.tree.map_with_path(lambda path, _: self._metadata[keystr(path, simple=True, separator="/")]["initial"], self._abstract)

    def shardings(self, mesh: Mesh) -> Any:
        """A NamedSharding for every parameter; UserError if a split does not divide its dimension."""
        return shardings(self.axes(), mesh, self.execution.rules, abstract=self._abstract)

    def apply(
        self,
        params: Params,
        tokens_BT: Int[Array, "B T"],
        segments_BT: Optional[Int[Array, "B T"]] = None,
        positions_BT: Optional[Int[Array, "B T"]] = None,
        *,
        compute_dtype: Any = jnp.float32,
    ) -> tuple[Float[Array, "B T V"], Aux]:
        """(float32 logits of the next token, statistics by name with a leading layer axis).

        Without segments a row is one document; without positions they count from 0. `attention.documents = joined` ignores both:
        a row is then one text, as in GPT-2, whose padding, if any, is at its end.
        """
        length = tokens_BT.shape[1]
        self._check_length(length)
        if positions_BT is None or self.config.attention.documents == "joined":
            positions_BT = jnp.arange(length, dtype=jnp.int32)[None]
        if self.config.attention.documents == "joined":
            segments_BT = None
        module = merge(self._graphdef, self._abstract, params)
        mask = Mask(positions_BT, positions_BT, segments_BT, segments_BT, window=self.config.attention.window)
        x_BTD, _, aux = module(tokens_BT, positions_BT, Context(mask), None, compute_dtype)
        return module.logits(x_BTD), aux

    def init_cache(self, batch: int, length: int, dtype: Any = jnp.float32) -> kv.Cache:
        """An empty cache for `batch` rows of up to `length` tokens; with a window it holds the window only."""
        self._check_length(length)
        attention = self.config.attention
        slots = min(length, attention.window or length)
        kv_heads = attention.num_kv_heads or attention.num_heads
        return kv.empty(self.config.num_layers, batch, slots, kv_heads, attention.head_dim, dtype)

    def prefill(
        self,
        params: Params,
        tokens_BT: Int[Array, "B T"],
        lengths_B: Int[Array, " B"],
        cache: kv.Cache,
        *,
        compute_dtype: Any = jnp.float32,
    ) -> tuple[Float[Array, "B V"], kv.Cache]:
        """Reads prompts into an empty cache: (logits after each row's last token, cache).

        Row b is tokens_BT[b, :lengths_B[b]], at least one token; what follows it is padding.
        """
        self._check_length(tokens_BT.shape[1])
        positions_BT = jnp.broadcast_to(jnp.arange(tokens_BT.shape[1], dtype=jnp.int32), tokens_BT.shape)
        cache, slot_BT = kv.advance(cache, positions_BT, positions_BT < lengths_B[:, None])
        mask = Mask(positions_BT, positions_BT, window=self.config.attention.window)  # padding is later than every real query
        context = Context(mask, slot_BT=slot_BT)
        return self._cached(params, tokens_BT, positions_BT, context, cache, lengths_B - 1, compute_dtype)

    def decode_step(
        self, params: Params, tokens_B: Int[Array, " B"], cache: kv.Cache, *, compute_dtype: Any = jnp.float32
    ) -> tuple[Float[Array, "B V"], kv.Cache]:
        """Appends one token to every row: (logits of the next one, cache). The caller keeps rows within the cache's length."""
        positions_B1 = cache.length[:, None]
        cache, slot_B1 = kv.advance(cache, positions_B1, jnp.full_like(positions_B1, True, dtype=bool))
        filled_BS = (cache.position >= 0).astype(jnp.int32)
        mask = Mask(positions_B1, cache.position, jnp.ones_like(positions_B1), filled_BS, window=self.config.attention.window)
        context = Context(mask, slot_BT=slot_B1, attend_cache=True)
        return self._cached(params, tokens_B[:, None], positions_B1, context, cache, jnp.zeros_like(tokens_B), compute_dtype)

    def _cached(
        self, params: Params, tokens_BT: Any, positions_BT: Any, context: Context, cache: kv.Cache, last_B: Any, dtype: Any
    ) -> tuple[Float[Array, "B V"], kv.Cache]:
        """Runs the stack with the cache and the head on token last_B of each row."""
        module = merge(self._graphdef, self._abstract, params)
        x_BTD, stored, _ = module(tokens_BT, positions_BT, context, (cache.k, cache.v), dtype)
        assert stored is not None
        x_B1D = jnp.take_along_axis(x_BTD, last_B[:, None, None], axis=1)
        return module.logits(x_B1D)[:, 0], dataclasses.replace(cache, k=stored[0], v=stored[1])

    def _check_length(self, length: int) -> None:
        if self.config.positions == "learned" and length > self.config.max_length:
            raise UserError(f"{length} tokens, and the learned positions end at max_length={self.config.max_length}: shorten the text")


def build(config: ModelConfig, execution: Execution = Execution()) -> Model:
    """The model of a configuration. UserError for one that cannot be built."""
    return Model(config, execution)
