"""Bytes that the backward pass keeps, by formula (imports no jax): good to a factor of about 1.5, for plans; the compiler knows better."""

from typing import Union

from lm.model.config import ModelConfig
from lm.model.flops import predicted
from lm.model.parts.positions import bias_numbers, rotates
from lm.model.parts.stacks import Stream, members, streams
from lm.rows import RowShape

FLOAT32 = 4
PLAIN_PAIRS = 2048 * 2048  # of a query and a key in a row: with more, attention goes through blocks where no fused kernel serves


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
    """Returns the bytes of activations alive at the end of the forward pass of `batch` rows of a shape, on one device.

    Each layer keeps, in numbers of the compute dtype:

        none           everything that its components say they keep, with the norms and residual sums around them
        dots           the results of matrix products, and the logits of attention
        dots_no_batch  the same without the logits of attention
        full           the residual at the layer's entrance

    `none` keeps three float32 numbers per pair of a query and a key and head, and `dots` one, and a relative position bias holds one per
    stack, unless a `fused` kernel never holds them. With any `remat` the larger layer's `none` comes on top, while its backward pass runs.
    The head keeps float32 logits, their gradient and a softmax at the predicted positions. XLA on CPU drops the barriers that keep
    recomputation apart in straight code: with `unroll` every `remat` costs what `none` does.

    Args:
        row: a number is a length.
        times: how often each layer counts: a pipeline's keep more, or less.
    """
    row = RowShape(row) if isinstance(row, int) else row
    flows = streams(config, row)
    layers = sum(flow.stack.layers * _kept(config, flow, remat, compute_bytes, fused) for flow in flows)
    largest = max(_kept(config, flow, "none", compute_bytes, fused) for flow in flows)
    table = 0 if fused else FLOAT32 * sum(bias_numbers(config, flow.length) for flow in flows)
    head = 3 * config.vocab_size * FLOAT32 * predicted(row) if config.vocabulary_head else 0
    return batch * (round(times * layers) + (0 if remat == "none" else largest) + head) + table


def _kept(config: ModelConfig, stream: Stream, remat: str, compute_bytes: int, fused: bool) -> int:
    """Returns the bytes that one layer keeps of one row."""
    if remat == "full":
        return compute_bytes * stream.length * config.d_model
    bytes_kept = 0
    for part in members(config, stream.stack.cross):
        keys = stream.memory if part.reads_memory else stream.length
        rotated = rotates(config) and not part.reads_memory
        everything, products = part.component.kept(config.d_model, stream.length, keys, rotated=rotated)
        scores = 0 if fused else FLOAT32 * part.component.scores(stream.length, keys)
        bytes_kept += {
            "none": compute_bytes * everything + 3 * scores,
            "dots": compute_bytes * products + scores,
            "dots_no_batch": compute_bytes * products,
        }[remat]
    return bytes_kept
