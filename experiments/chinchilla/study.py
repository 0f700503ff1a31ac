"""A Chinchilla study on bytes of Python source text: how should compute be divided between parameters and tokens?

    python -m experiments chinchilla

Two CPU cores, about 7 minutes of training; README.md has the numbers to expect.
"""

from lm.data.config import ByteTokenizer, Component, DataConfig
from lm.model.config import AttentionConfig, MLPConfig, ModelConfig
from lm.optim.config import WSD, OptimConfig
from lm.study.rules import ConstantBatch, PowerLawRate, WidthShape
from lm.study.study import Budget, Study
from lm.train.config import CheckpointConfig, EvalConfig, ExecutionConfig, LogConfig, RunConfig

SEQUENCE_LENGTH = 128

BASE = RunConfig(
    model=ModelConfig(
        vocab_size=259,  # bytes, padding, end of document, mask
        max_length=SEQUENCE_LENGTH,
        attention=AttentionConfig(qk_norm=True, bias=True, qk_bias_init=1.0),
        embedding_std=0.1,
        mlp=MLPConfig(activation="squared_relu"),
        rope_theta=30.0,
        zero_init_outputs=True,
    ),
    data=DataConfig(components=(Component("python_sources"),), tokenizer=ByteTokenizer(), sequence_length=SEQUENCE_LENGTH),
    optim=OptimConfig(beta1=0.9, beta2=0.98, clip_norm=1.0, schedule=WSD(cooldown=0.3), warmup_fraction=0.1),
    evaluation=EvalConfig(documents_bytes=98_304, longest_document=8_192, curve_bytes=8_192, points_per_decade=6),
    execution=ExecutionConfig(steps_per_dispatch=16),
    checkpoint=CheckpointConfig(keep=1),
    log=LogConfig(tensorboard=False),
)

# The dial is d_model; two layers, two heads of 16.
SIZES_0 = (14, 16, 24, 32, 40, 48, 64)
SIZES_1 = (16, 24, 32, 40, 48, 64, 80)
SIZES_2 = (16, 24, 32, 48, 64, 80, 96)
SIZES_3 = (24, 32, 48, 64, 80, 96, 128)


def get_study() -> Study:
    return Study(
        name="chinchilla",
        question="How should compute be divided between parameters and tokens, for bytes of Python source text?",
        base=BASE,
        shape=WidthShape(num_heads=2, head_dim=16, num_layers=2, mlp_ratio=4),
        learning_rate=PowerLawRate(
            rate=0.0065, batch=4, batch_exponent=0.5, params=33e3, params_exponent=-0.15, tokens=1.2e6, tokens_exponent=-0.15
        ),
        batch=ConstantBatch(2),
        budgets=(
            Budget(2.0e11, SIZES_0, repeats=SIZES_0, brackets=(16, 64)),
            Budget(4.2e11, SIZES_1, repeats=(48, 64, 80), brackets=(40,)),
            Budget(8.8e11, SIZES_2),
            Budget(1.85e12, SIZES_3, stage=1),
        ),
        seeds=(1, 2),
        bracket_factors=(0.5, 2.0),
    )
