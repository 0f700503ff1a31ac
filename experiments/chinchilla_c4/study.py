"""A Chinchilla study at the scale of Hoffmann et al. (2022): decoders of 36M to 3.3B parameters on English C4, 6e17 to 3e20 FLOPs.

    python -m experiments chinchilla_c4 plan --device=gpu:h100 --at-once=64 --price=2.5 --without-data
    python -m experiments chinchilla_c4 run --backend=slurm --gpus=h100 --workers=8

One node of 8 GPUs for each cell; `tpu.py` beside it is for slices of 16 TPU v5e. C4 is prepared beforehand as a TFDS data set in
array_record. Not run as a whole: docs/clusters.md has what it costs and what the compiler says of it.
"""

import dataclasses
from pathlib import Path

from lm.data.config import Component, DataConfig, SentencePieceTokenizer
from lm.model.config import AttentionConfig, MLPConfig, ModelConfig
from lm.optim.config import WSD, OptimConfig
from lm.study.cell import Limits
from lm.study.execution import ExecutionRule, Searched
from lm.study.rules import PowerLawRate, PowerOfTwoBatch
from lm.study.study import Budget, Study
from lm.train.config import CheckpointConfig, EvalConfig, ExecutionConfig, RunConfig

SEQUENCE_LENGTH = 2048
VOCABULARY = 32_768
HEAD = 128

BASE = RunConfig(
    model=ModelConfig(
        vocab_size=VOCABULARY,
        max_length=SEQUENCE_LENGTH,
        attention=AttentionConfig(head_dim=HEAD, qk_norm=True),
        mlp=MLPConfig(activation="silu", gated=True),
        zero_init_outputs=True,
    ),
    data=DataConfig(
        components=(Component("tfds:c4/en"),),
        tokenizer=SentencePieceTokenizer(vocab_size=VOCABULARY),
        sequence_length=SEQUENCE_LENGTH,
    ),
    optim=OptimConfig(weight_decay=0.1, beta2=0.95, clip_norm=1.0, schedule=WSD(cooldown=0.2), warmup_fraction=0.1),
    evaluation=EvalConfig(documents_bytes=8_000_000, curve_bytes=1_000_000, stride=1024),
    compute_dtype="bfloat16",
    checkpoint=CheckpointConfig(every_steps=500, keep=2),
    execution=ExecutionConfig(unroll=False),
)


@dataclasses.dataclass(frozen=True)
class DeepShape:
    """The dial is the number of heads of 128: width, depth and feed-forward width are proportional to it, so that no ratio jumps."""

    head_dim: int = HEAD
    layers_per_head: int = 2
    ff_per_head: int = 352  # 2.75 d_model, near the 8/3 of gated feed-forward layers

    def model(self, base: ModelConfig, heads: int) -> ModelConfig:
        """Returns `base` with this number of heads and the shape that follows from it."""
        return dataclasses.replace(
            base,
            d_model=self.head_dim * heads,
            num_layers=self.layers_per_head * heads,
            attention=dataclasses.replace(base.attention, num_heads=heads),
            mlp=dataclasses.replace(base.mlp, d_ff=self.ff_per_head * heads),
        )


# Learning rate and batch: the step law of Li et al. (2025, "Predictable Scale I", eq. 1), 1.79 N^-.713 D^.307 and .58 D^.571 tokens.
RATE = PowerLawRate(rate=2.54e-3, batch=64, batch_exponent=0.0, params=1e8, params_exponent=-0.713, tokens=2e9, tokens_exponent=0.307)
BATCH = PowerOfTwoBatch(sequences=57.6, tokens=2e9, exponent=0.571, low=32, high=512, min_steps=1000)
# The sizes of each budget span its expected N* by a factor of 4 to both sides.
BUDGETS = (
    Budget(6e17, (3, 4, 5, 6, 7, 8), repeats=(3, 4, 5, 6, 7, 8), brackets=(5,)),
    Budget(2.8e18, (4, 5, 6, 7, 8, 10), brackets=(7,)),
    Budget(1.35e19, (5, 6, 7, 8, 10, 12)),
    Budget(6.3e19, (7, 8, 10, 12, 14, 16)),
    Budget(3e20, (10, 12, 14, 16, 18, 20), stage=1),
)


def searched(topology: str, program: str) -> Searched:
    """Returns the rule of what a search found for the devices of a cell, such as "gpu:h100:1x8"; `program` is the study in commands."""
    table = f"experiments/chinchilla_c4/{topology.replace(':', '_')}.json"
    command = f"python -m experiments {program} plan --topology={topology} --search={table}"
    return Searched(str(Path(__file__).parent / Path(table).name), BASE.execution, command)


def study(name: str, execution: ExecutionRule) -> Study:
    """Returns the study with its cells carried out in one way."""
    return Study(
        name=name,
        question="How should compute be divided between parameters and tokens, for English C4 at 6e17 to 3e20 FLOPs?",
        base=BASE,
        shape=DeepShape(),
        learning_rate=RATE,
        batch=BATCH,
        budgets=BUDGETS,
        seeds=(1, 2),
        bracket_factors=(0.5, 2.0),
        limits=Limits(min_steps=500),
        execution=execution,
    )


def get_study() -> Study:
    return study("chinchilla_c4", searched("gpu:h100:1x8", "chinchilla_c4"))
