"""A small causal language model and a data stream of plain functions, with the interfaces of the real ones."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from lm.model.execution import Execution
from lm.types import Batch, Outputs

VOCAB = 32


@dataclasses.dataclass(frozen=True)
class StubModel:
    """Two layers: a causal mean over each document, and an MLP; enough to learn from order and to mix positions."""

    width: int = 8
    layers: int = 2
    vocab: int = VOCAB
    execution: Execution = Execution()

    def init(self, key):
        e, a, h = jax.random.split(key, 3)
        return {
            "embed": {"table": 0.5 * jax.random.normal(e, (self.vocab, self.width))},
            "blocks": {
                "up": 0.3 * jax.random.normal(a, (self.layers, self.width, 2 * self.width)),
                "bias": jnp.zeros((self.layers, 2 * self.width)),
                "down": 0.3 * jax.random.normal(h, (self.layers, 2 * self.width, self.width)),
            },
            "norm": {"scale": jnp.ones((self.width,))},
        }

    def abstract(self):
        return jax.eval_shape(self.init, jax.random.key(0))

    def axes(self):
        return {
            "embed": {"table": ("vocab", "embed")},
            "blocks": {"up": ("layers", "embed", "mlp"), "bias": ("layers", "mlp"), "down": ("layers", "mlp", "embed")},
            "norm": {"scale": ("embed",)},
        }

    def shardings(self, mesh):
        return jax.tree.map(lambda _: NamedSharding(mesh, PartitionSpec()), self.abstract())

    def apply(self, params, inputs, *, compute_dtype=jnp.float32):
        tokens_BT, segments_BT = inputs.tokens, inputs.segments
        x_BTD = params["embed"]["table"][tokens_BT]
        same_BTS = segments_BT[:, :, None] == segments_BT[:, None, :]
        seen_BTS = same_BTS & (jnp.arange(tokens_BT.shape[1])[:, None] >= jnp.arange(tokens_BT.shape[1])[None, :])
        mix_BTS = seen_BTS / jnp.maximum(seen_BTS.sum(-1, keepdims=True), 1)

        def layer(x, w):
            x = x + jnp.einsum("BTS,BSD->BTD", mix_BTS, x)
            h = jax.nn.relu(x @ w["up"] + w["bias"])
            return x + h @ w["down"], None

        x_BTD, _ = jax.lax.scan(layer, x_BTD, params["blocks"])
        x_BTD = x_BTD * params["norm"]["scale"] * jax.lax.rsqrt(jnp.mean(x_BTD**2, -1, keepdims=True) + 1e-6)
        return Outputs(x_BTD @ params["embed"]["table"].T, x_BTD, {}, {})


@dataclasses.dataclass(frozen=True)
class StubStream:
    """Batch k is a pure function of (seed, k): runs of consecutive ids, so that there is something to learn."""

    batch_size: int = 4
    length: int = 16
    seed: int = 0

    def __getitem__(self, k: int) -> Batch:
        rng = np.random.default_rng((self.seed, k))
        start = rng.integers(VOCAB, size=(self.batch_size, 1))
        ids = ((start + np.arange(self.length + 1)) % VOCAB).astype(np.int32)
        ones = np.ones((self.batch_size, self.length), np.int32)
        positions = np.broadcast_to(np.arange(self.length, dtype=np.int32), ones.shape).copy()
        weights = ones.astype(np.float32)
        return Batch(ids[:, :-1].copy(), ids[:, 1:].copy(), weights, ones, positions)

    def iterate(self, start: int, stop: int):
        return (self[k] for k in range(start, stop))

    def document_tokens(self, start: int, stop: int) -> int:
        return (stop - start) * self.batch_size * self.length
