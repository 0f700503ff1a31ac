"""Block: attention and feed-forward on the residual stream."""

import functools
from typing import Any, NamedTuple, Optional

import jax
import jax.numpy as jnp
from flax import nnx

from lm.model.attention import Attention, Context, StoredPair
from lm.model.config import ModelConfig
from lm.model.execution import Execution
from lm.model.mlp import MLP
from lm.model.norm import make_norm
from lm.model.weights import key_for
from lm.sharding import constrain

Aux = dict[str, jax.Array]


class Stored(NamedTuple):
    """The cached keys and values of all layers: those of the stream's own tokens, and those of the memory."""

    own: Optional[StoredPair] = None
    cross: Optional[StoredPair] = None


class Block(nnx.Module):
    """Attention, cross-attention where there is a memory, and a feed-forward layer, each added to the residual stream.

    pre          x + f(norm(x))                                (Xiong et al. 2020; GPT-2, T5, Llama)
    post         norm(x + f(x))                                (Vaswani et al. 2017; BERT, BART)
    post_inside  x + norm(f(x))                                (Liu et al. 2022, section 3.2; OLMo 2)
    parallel     x + attention(norm_1(x)) + mlp(norm_2(x))     (GPT-NeoX, Black et al. 2022, section 2.1)
    """

    def __init__(self, config: ModelConfig, execution: Execution, *, key: jax.Array, cross: bool = False):
        norm = functools.partial(make_norm, config.norm, config.d_model, config.norm_epsilon, key=key, rules=execution.rules)
        self.config, self.execution = config, execution
        self.attention_norm = norm()
        self.attention = Attention(config, execution, key=key_for(key, "attention"))
        self.cross_norm = norm() if cross else None
        self.cross_attention = Attention(config, execution, key=key_for(key, "cross_attention"), cross=True) if cross else None
        self.mlp_norm = norm()
        self.mlp = MLP(config, execution, key=key_for(key, "mlp"))

    def __call__(self, x_BTD: jax.Array, context: Context, stored: Stored = Stored(), layer: Any = None) -> tuple[jax.Array, Stored, Aux]:
        """Returns (x, stored keys and values with this call's, statistics). Statistics that nobody reads are not computed."""
        pre = self.config.norm_placement == "pre"
        inner_BTD, own = self.attention(self.attention_norm(x_BTD) if pre else x_BTD, context, stored.own, layer)
        if self.config.parallel_residual:
            inner_BTD = inner_BTD + self.mlp(self.mlp_norm(x_BTD))
        x_BTD = self._add(x_BTD, inner_BTD, self.attention_norm)
        cross = stored.cross
        if self.cross_attention is not None and self.cross_norm is not None and context.memory_mask is not None:
            inner_BTD, cross = self.cross_attention(self.cross_norm(x_BTD) if pre else x_BTD, context, cross, layer)
            x_BTD = self._add(x_BTD, inner_BTD, self.cross_norm)
        if not self.config.parallel_residual:
            x_BTD = self._add(x_BTD, self.mlp(self.mlp_norm(x_BTD) if pre else x_BTD), self.mlp_norm)
        x_BTD = constrain(x_BTD, "act_batch", "act_stream", "act_embed", rules=self.execution.rules)
        square = jnp.square(jax.lax.stop_gradient(x_BTD).astype(jnp.float32))
        return x_BTD, Stored(own, cross), {"activation_rms": jnp.sqrt(jnp.mean(square))}

    def _add(self, x_BTD: jax.Array, inner_BTD: jax.Array, norm: Any) -> jax.Array:
        placement = self.config.norm_placement
        if placement == "post":
            return norm(x_BTD + inner_BTD)
        return x_BTD + (norm(inner_BTD) if placement == "post_inside" else inner_BTD)
