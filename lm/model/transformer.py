"""Every architecture as one module: a token table, an encoder or a decoder or both, and heads."""

from collections.abc import Callable
from typing import Any, Optional

import jax
import jax.numpy as jnp
from flax import nnx

from lm.model.activations import activate
from lm.model.attention import Context
from lm.model.block import Aux, Stored
from lm.model.config import ModelConfig
from lm.model.execution import Execution
from lm.model.heads import Bias, OutputHeads
from lm.model.norm import make_norm
from lm.model.parts.heads import heads
from lm.model.refusals import check
from lm.model.stack import Stack
from lm.model.weights import Embedding, Linear, at_least_float32, is_flat, key_for, read
from lm.sharding import constrain, is_split, resplit

VOCABULARY = 4096  # ids from which on a CPU does best to take the loss without the logits


class Transformer(nnx.Module):
    """Token table, stacks and heads by `config.architecture` (see ModelConfig). A model with shared stacks has its `decoder` only."""

    def __init__(self, config: ModelConfig, execution: Execution, *, key: jax.Array):
        rules, width = execution.rules, config.d_model
        check(config)
        self.config, self.execution = config, execution
        # A lookup has fan_in 1; a table that is also the head takes the head's scale, so that first logits have variance 1.
        std = config.embedding_std or (width**-0.5 / config.logit_scale if config.tied_head else 1.0)
        self.embed = Embedding({"vocab": config.vocab_size}, width, std, key=key_for(key, "embed"), rules=rules)
        kinds, type_key = {"token_types": config.token_types}, key_for(key, "token_type")
        self.token_type = Embedding(kinds, width, std, key=type_key, rules=rules) if config.token_types else None
        both, alone = config.architecture == "encoder_decoder", config.architecture == "encoder"
        layers = config.encoder_layers or config.num_layers
        has_encoder = alone or (both and not config.shared_stacks)
        self.encoder = Stack(config, execution, layers, std, key=key_for(key, "encoder")) if has_encoder else None
        decoder_key = key_for(key, "decoder")
        self.decoder = None if alone else Stack(config, execution, config.num_layers, std, key=decoder_key, cross=both)
        self._make_heads(key)

    def _make_heads(self, key: jax.Array) -> None:
        config, rules, on_cpu = self.config, self.execution.rules, self.execution.on_cpu
        specs = {name: head.linear for name, head in heads(config).items()}

        def linear(name: str) -> Any:
            return Linear(specs[name], key=key_for(key, name), rules=rules, on_cpu=on_cpu) if name in specs else None

        if config.tied_head:
            self.head: Any = Bias(config.vocab_size, key=key_for(key, "head"), rules=rules) if config.head_bias else None
        else:
            self.head = linear("head")
        self.head_transform, self.pooler = linear("head_transform"), linear("pooler")
        norm: Any = make_norm(config.norm, config.d_model, config.norm_epsilon, key=key, rules=rules) if config.head_transform else None
        self.head_transform_norm = norm
        self.outputs = OutputHeads(config, key=key_for(key, "outputs"), rules=rules) if config.outputs else None

    def encode(self, tokens_BS: Any, positions_BS: Any, context: Context, token_types_BS: Any, dtype: Any) -> tuple[jax.Array, Aux]:
        """Returns (states_BSD of the encoder, statistics)."""
        stack = self.encoder or self.decoder
        assert stack is not None
        states_BSD, _, aux = stack(self._embed(tokens_BS, token_types_BS, dtype), positions_BS, context)
        return self._whole(self._known(states_BSD, tokens_BS, token_types_BS)), aux

    def decode(
        self, tokens_BT: Any, positions_BT: Any, context: Context, stored: Stored, token_types_BT: Any, dtype: Any
    ) -> tuple[jax.Array, Stored, Aux]:
        """Returns (states_BTD of the decoder, stored keys and values, statistics)."""
        assert self.decoder is not None
        states_BTD, stored, aux = self.decoder(self._embed(tokens_BT, token_types_BT, dtype), positions_BT, context, stored)
        return self._whole(self._known(states_BTD, tokens_BT, token_types_BT)), stored, aux

    def _known(self, x_BTD: jax.Array, tokens_BT: Any, token_types_BT: Any) -> jax.Array:
        """Returns the states, those of a row NaN in which an id is of no token or type: its lookup has read something else.

        The states and not the lookup's results: where the table is split these are sums over the devices, and what stands between a sum
        and the split of its result would make every device fetch the whole.
        """
        known_B = jnp.all((tokens_BT >= 0) & (tokens_BT < self.config.vocab_size), axis=1)
        if self.token_type is not None and token_types_BT is not None:
            known_B &= jnp.all((token_types_BT >= 0) & (token_types_BT < self.config.token_types), axis=1)
        return jnp.where(known_B[:, None, None], x_BTD, jnp.nan)

    def _whole(self, x_BTD: jax.Array) -> jax.Array:
        """Returns states for heads and cross-attention, which tensor parallelism does not split along the sequence."""
        stream, whole = ("act_batch", "act_stream", "act_embed"), ("act_batch", "act_length", "act_embed")
        return resplit(x_BTD, stream, whole, rules=self.execution.rules) if is_split("act_stream", self.execution.rules) else x_BTD

    def _embed(self, tokens_BT: Any, token_types_BT: Any, dtype: Any) -> jax.Array:
        # Each device looks tokens up in its own part of the vocabulary, whatever the split of the stream that they go to.
        x_BTD = constrain(self.embed(tokens_BT, dtype), "act_batch", "act_length", "act_embed", rules=self.execution.rules)
        if self.config.embedding_scale != 1.0:
            x_BTD = x_BTD * jnp.asarray(self.config.embedding_scale, dtype)
        if self.token_type is not None:
            x_BTD = x_BTD + self.token_type(jnp.zeros_like(tokens_BT) if token_types_BT is None else token_types_BT, dtype)
        return x_BTD

    def logits(self, x_BPD: jax.Array) -> jax.Array:
        """Returns logits_BPV over the vocabulary, summed in float32 or wider.

        With a cap they are cap * tanh(logits / cap) (Gemma 2, section 2).
        """
        config, wide = self.config, at_least_float32(x_BPD.dtype)
        if self.head_transform is not None:
            x_BPD = self.head_transform_norm(activate(self.head_transform(x_BPD), config.mlp.activation))
        if config.logit_scale != 1.0:
            x_BPD = x_BPD * jnp.asarray(config.logit_scale, x_BPD.dtype)
        if config.tied_head:
            logits_BPV = self.embed.attend(x_BPD, accumulate=wide, on_cpu=self.execution.on_cpu)
            logits_BPV = logits_BPV if self.head is None else self.head(logits_BPV)
        else:
            logits_BPV = self.head(x_BPD, accumulate=wide)
        logits_BPV = constrain(logits_BPV, "act_batch", "act_length", "act_vocab", rules=self.execution.rules)
        cap = config.logit_softcap
        return logits_BPV if cap is None else cap * jnp.tanh(logits_BPV / cap)

    def factors(self, x_BPD: jax.Array) -> Optional[tuple[jax.Array, jax.Array]]:
        """Returns Outputs.factors: None where anything else is done to the product, or where it is small."""
        config, rules, dtype = self.config, self.execution.rules, x_BPD.dtype
        bias = self.head if config.tied_head else self.head.bias
        changed = bias is not None or self.head_transform is not None or config.logit_softcap is not None or config.logit_scale != 1.0
        if not self.execution.on_cpu or changed or dtype != jnp.float32 or config.vocab_size < VOCABULARY:
            return None
        kernel = read(self.embed.embedding if config.tied_head else self.head.kernel, dtype, rules)
        if not is_flat(kernel, x_BPD.shape[0] * x_BPD.shape[1]):
            return None
        # A barrier, or XLA would fold the transposition into the product of the gradient (lm.model.weights.flat_product).
        return x_BPD, jax.lax.optimization_barrier(kernel.T) if config.tied_head else kernel

    def read_out(self, x_BTD: jax.Array, positions: Callable[[str], jax.Array]) -> tuple[dict[str, jax.Array], Optional[jax.Array]]:
        """Returns (the further heads by name, pooled states, if there is a pooler); `positions(token)` [B, M] stand for sequences."""
        values: dict[str, jax.Array] = {}
        pooled_BMD = None
        if self.config.pooler:
            pooled_BMD = jnp.tanh(self.pooler(jnp.take_along_axis(x_BTD, positions("first")[..., None], axis=1)))
        for output in self.config.outputs:
            x = x_BTD if output.per == "token" else jnp.take_along_axis(x_BTD, positions(output.token)[..., None], axis=1)
            if output.pooled:
                x = jnp.tanh(self.pooler(x))
                pooled_BMD = x if pooled_BMD is None else pooled_BMD
            values[output.name] = getattr(self.outputs, output.name)(x, accumulate=at_least_float32(x.dtype))
        return values, pooled_BMD
