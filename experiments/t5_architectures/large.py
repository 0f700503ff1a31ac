"""The same comparison at the scale of the paper: L = 12, width 768, 2^19 steps of 128 pairs of 512 tokens of English C4.

    python -m experiments experiments/t5_architectures/large.py plan --device=gpu:h100 --at-once=64 --price=2.5 --without-data

One node of 8 GPUs for each run. C4 is prepared beforehand as a TFDS data set in array_record. It has not been run.
"""

from experiments.t5_architectures.study import Scale, study
from lm.mesh import MeshConfig
from lm.study.cell import Speed
from lm.study.comparison import Comparison
from lm.train.config import CheckpointConfig, ExecutionConfig

BATCH, STEPS = 128, 2**19  # Raffel et al. 2020, section 3.1.2

SCALE = Scale(
    d_model=768,
    d_ff=3072,
    heads=12,
    layers=12,
    half=(6, 6),
    vocabulary=32_128,
    sentinels=128,
    text=512,
    pairs=STEPS * BATCH,
    batch=BATCH,
    constant_steps=10_000,
    dtype="bfloat16",
    held_out_bytes=8_000_000,
    corpus="tfds:c4/en",
    tokenizer_bytes=100_000_000,
    mesh=MeshConfig(data=8),
    execution=ExecutionConfig(unroll=False, remat="dots"),
    checkpoint=CheckpointConfig(every_steps=5000, keep=2),
)


def get_study() -> Comparison:
    return study("t5_architectures_large", SCALE, Speed())
