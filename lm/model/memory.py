"""What the backward pass keeps, by formula (imports no jax): good to a factor of about 1.5, for plans; the compiler knows better."""

import dataclasses
import math
from typing import Union

from lm.model import counts
from lm.model.config import ModelConfig
from lm.model.flops import predicted
from lm.rows import RowShape

FLOAT32 = 4


def activation_bytes(
    config: ModelConfig,
    batch: int,
    row: Union[RowShape, int],
    *,
    remat: str = "none",
    compute_bytes: int = 4,
    fused: bool = False,
    times: float = 1,
) -> int:
    """Bytes of activations alive at the end of the forward pass of `batch` rows of a shape (a number is a length), on one device.

    Per layer and token, in numbers of the compute dtype:

        none           inputs, norms and residuals (6 D), q k v before and after norm and rotation (3, or 1 without either), attended, 3 of
                       the feed-forward width (2 with relu)
        dots           the results of matrix products: q k v, attended, out, up (and gate), down, and the logits of attention
        dots_no_batch  the same without the logits of attention
        full           the residual at the layer's entrance

    `none` keeps 3 N T, and `dots` N T, float32 attention logits or weights per token, and a relative position bias holds N T T once per
    stack, unless a `fused` kernel never holds them. Cross-attention adds a third of a block's norms and residuals and its own q k v, with
    keys and values of the encoder's length. With any `remat` the larger layer's `none` comes on top, while its backward pass runs. The
    head keeps float32 logits, their gradient and a softmax at the predicted places. Layers count `times`: a pipeline's keep more, or less.
    XLA on CPU drops the barriers that keep recomputation apart in straight code: with `unroll` every `remat` costs what `none` does.
    """
    row = RowShape(row) if isinstance(row, int) else row
    block = _Block(config, compute_bytes, fused)
    layers, largest, table = (
        config.num_layers * block.kept(row.length, remat),
        block.kept(row.length, "none"),
        0 if fused else _bias(config, row.length),
    )
    if config.architecture == "encoder_decoder":
        layers += counts.encoder_layers(config) * block.kept(row.encoder_length, remat)
        layers += config.num_layers * block.kept_by_cross(row.length, row.encoder_length, remat)
        decoder = largest + block.kept_by_cross(row.length, row.encoder_length, "none")
        largest = max(decoder, block.kept(row.encoder_length, "none"))
        table += 0 if fused else _bias(config, row.encoder_length)
    head = 3 * config.vocab_size * FLOAT32 * predicted(row) if config.vocabulary_head else 0
    return batch * (round(times * layers) + (0 if remat == "none" else largest) + head) + table


def part_of(model: ModelConfig, tensor: int) -> ModelConfig:
    """What one of `tensor` devices computes of a model."""
    heads, kv_heads = model.attention.num_heads, model.attention.num_kv_heads or model.attention.num_heads
    return dataclasses.replace(
        model,
        vocab_size=math.ceil(model.vocab_size / tensor),
        attention=dataclasses.replace(model.attention, num_heads=math.ceil(heads / tensor), num_kv_heads=math.ceil(kv_heads / tensor)),
        mlp=dataclasses.replace(model.mlp, d_ff=math.ceil(model.mlp.d_ff / tensor)),
    )


@dataclasses.dataclass(frozen=True)
class _Block:
    """Bytes that one block keeps of one row."""

    config: ModelConfig
    compute_bytes: int
    fused: bool

    def kept(self, length: int, remat: str) -> int:
        """By self-attention and feed-forward."""
        width, mlp, (query, key_value) = self.config.d_model, self.config.mlp, self._projections()
        hidden = (2 if mlp.gated else 1) * mlp.d_ff
        scores = self._scores(length, length)
        products = length * self.compute_bytes * (2 * query + key_value + 2 * width + hidden)
        copies = 3 if self.config.positions == "rope" else self._copies()
        everything = length * self.compute_bytes * (6 * width + query + copies * (query + key_value) + self._hidden_copies() * hidden)
        entrance = length * self.compute_bytes * width
        return {"none": everything + 3 * scores, "dots": products + scores, "dots_no_batch": products, "full": entrance}[remat]

    def kept_by_cross(self, length: int, encoder_length: int, remat: str) -> int:
        """By cross-attention from `length` queries to `encoder_length` keys."""
        width, (query, key_value) = self.config.d_model, self._projections()
        scores = self._scores(length, encoder_length)
        products = self.compute_bytes * (length * (2 * query + width) + encoder_length * key_value)
        copies = self._copies()
        everything = self.compute_bytes * (length * (3 * width + (1 + copies) * query) + encoder_length * copies * key_value)
        return {"none": everything + 3 * scores, "dots": products + scores, "dots_no_batch": products, "full": 0}[remat]

    def _projections(self) -> tuple[int, int]:
        attention = self.config.attention
        return attention.num_heads * attention.head_dim, 2 * (attention.num_kv_heads or attention.num_heads) * attention.head_dim

    def _copies(self) -> int:
        """Of queries, keys and values that no position turns."""
        return 2 if self.config.attention.qk_norm else 1

    def _hidden_copies(self) -> int:
        return 2 if self.config.mlp.activation == "relu" else 3

    def _scores(self, queries: int, keys: int) -> int:
        return 0 if self.fused else self.config.attention.num_heads * queries * keys * FLOAT32


def _bias(config: ModelConfig, length: int) -> int:
    return config.attention.num_heads * length**2 * FLOAT32 if config.positions == "relative" else 0
