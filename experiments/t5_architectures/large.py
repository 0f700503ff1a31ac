"""The same comparison with L = 6 and width 256, for one GPU. It has not been run.

python -m experiments experiments/t5_architectures/large.py
"""

from experiments.t5_architectures.study import Scale, study
from lm.study.cell import Speed
from lm.study.comparison import Comparison

SCALE = Scale(
    d_model=256,
    d_ff=1024,
    heads=4,
    layers=6,
    half=(3, 3),
    vocabulary=8192,
    sentinels=48,
    pairs=120_000,  # as many as the corpus holds
    batch=64,
    dtype="bfloat16",
    held_out_bytes=1_000_000,
)


def get_study() -> Comparison:
    return study("t5_architectures_large", SCALE, Speed(flops_per_second=5e13, per_token=1e-7))
