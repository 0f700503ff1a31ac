"""One small model of every family, under an objective of its own that packs several examples into a row."""

import dataclasses
import functools

import numpy as np

from lm.data import packing
from lm.data.config import DataConfig
from lm.data.objectives.config import MaskedLM, NextToken, Objective, PrefixLM, SpanCorruption
from lm.data.objectives.draws import row_keys
from lm.data.objectives.examples import PackedRows
from lm.data.objectives.shape import row_maker, row_shape
from lm.data.tokenizer import Bytes
from lm.model.config import AttentionConfig, MLPConfig, ModelConfig
from lm.model.outputs import next_sentence
from lm.rows import RowShape
from lm.train.config import RunConfig
from lm.types import Batch

VOCAB = 272  # bytes, and what the objectives add at the top
LAYERS = 4
SIZES = {"vocab_size": VOCAB, "d_model": 32, "num_layers": LAYERS, "max_length": 48}


def heads(**options) -> AttentionConfig:
    return AttentionConfig(**{"num_heads": 4, "head_dim": 8, **options})


@dataclasses.dataclass(frozen=True)
class Case:
    model: ModelConfig
    objective: Objective
    text: int  # tokens of text in a row

    @property
    def data(self) -> DataConfig:
        return DataConfig(sequence_length=self.text, objective=self.objective)

    @property
    def row(self) -> RowShape:
        return row_shape(self.data, self.model.architecture)

    @property
    def config(self) -> RunConfig:
        return RunConfig(model=self.model, data=self.data)

    @functools.cache  # noqa: B019 there are four cases, which live as long as the tests
    def batch(self, rows: int, seed: int = 0) -> Batch:
        """Real rows of random bytes, cut from documents of 5 to 30 of them."""
        rng = np.random.default_rng(seed)
        lengths = rng.integers(5, 31, 40 * rows)
        flat = rng.integers(3, 259, lengths.sum()).astype(np.uint16)
        flat[np.cumsum(lengths) - 1] = Bytes.eos_id
        plan = packing.concatenate(np.cumsum(lengths) - lengths, lengths, self.text)
        chosen = np.arange(rows)
        make = row_maker(self.data, self.model.architecture, Bytes(), VOCAB)
        return make(PackedRows(flat, plan, chosen, row_keys("layouts", seed, np.zeros_like(chosen), chosen)))


LLAMA = ModelConfig(**SIZES, attention=heads(num_kv_heads=4, num_heads=8, head_dim=4), mlp=MLPConfig(64, activation="silu", gated=True))
T5 = ModelConfig(
    **SIZES, architecture="encoder_decoder", attention=heads(scale=1.0), mlp=MLPConfig(64, activation="relu"),
    positions="relative", relative_buckets=8, relative_max_distance=16, tied_head=True, logit_scale=32**-0.5,
)  # fmt: skip
BERT = ModelConfig(
    **SIZES, architecture="encoder", attention=heads(bias=True), mlp=MLPConfig(64, activation="gelu_exact", bias=True),
    norm="layernorm", norm_placement="post", final_norm=False, tied_head=True, head_transform=True, head_bias=True,
    positions="learned", embedding_norm=True, token_types=2, outputs=(next_sentence(),),
)  # fmt: skip
PREFIX = dataclasses.replace(  # with OLMo 2's norms, Qwen2's biases and SmolLM3's positions
    LLAMA, architecture="prefix_lm", logit_softcap=8.0, norm_placement="post_inside", no_rope_interval=3,
    attention=heads(num_kv_heads=4, num_heads=8, head_dim=4, qk_norm=True, qk_norm_over="heads", bias=True, out_bias=False),
)  # fmt: skip
# No example ends where a device's part of a split row does: what reads an index instead of a position would show.
CASES = {
    "decoder": Case(LLAMA, NextToken(), 32),
    "prefix_lm": Case(PREFIX, PrefixLM(examples_per_row=3, documents="isolated"), 30),
    "encoder_decoder": Case(T5, SpanCorruption(noise_density=0.3, sentinels=9, examples_per_row=3), 54),
    "encoder": Case(BERT, MaskedLM(examples_per_row=6, mask_rate=0.4), 30),
}
