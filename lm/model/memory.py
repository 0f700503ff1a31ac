"""What the backward pass keeps, by formula (imports no jax): good to a factor of about 1.5, for plans; the compiler knows better."""

from lm.model.config import ModelConfig

FLOAT32 = 4


def activation_bytes(
    config: ModelConfig, batch: int, length: int, *, remat: str = "none", compute_bytes: int = 4, fused: bool = False
) -> int:
    """Bytes of activations alive at the end of the forward pass of `batch` rows of `length` tokens, on one device.

    Per layer and token, in numbers of the compute dtype:

        none           inputs, norms and residuals (6 D), q k v before and after norm and rotation, attended, 3 of the feed-forward width
        dots           the results of matrix products: q k v, attended, out, up (and gate), down, and the logits of attention
        dots_no_batch  the same without the logits of attention
        full           the residual at the layer's entrance

    `none` keeps 3 N T, and `dots` N T, float32 attention logits or weights per token, unless a `fused` kernel never holds them. With any
    `remat` one layer's `none` comes on top, while its backward pass runs. The head keeps float32 logits, their gradient and a softmax.
    XLA on CPU drops the barriers that keep recomputation apart in straight code: with `unroll` every `remat` costs what `none` does.
    """
    attention, mlp, tokens = config.attention, config.mlp, batch * length
    query = attention.num_heads * attention.head_dim
    key_value = 2 * (attention.num_kv_heads or attention.num_heads) * attention.head_dim
    hidden = (2 if mlp.gated else 1) * mlp.d_ff
    scores = 0 if fused else attention.num_heads * length * FLOAT32
    products = compute_bytes * (query + key_value + query + 2 * config.d_model + hidden)
    everything = compute_bytes * (6 * config.d_model + 3 * (query + key_value) + query + 3 * hidden) + 3 * scores
    kept = {"none": everything, "dots": products + scores, "dots_no_batch": products, "full": compute_bytes * config.d_model}[remat]
    layers = config.num_layers * kept + (0 if remat == "none" else everything)
    return tokens * (layers + 3 * config.vocab_size * FLOAT32)
