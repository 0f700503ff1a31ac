"""The same study on slices of 16 TPU v5e: `python -m experiments experiments/chinchilla_c4/tpu.py plan --device=tpu:v5e`."""

from experiments.chinchilla_c4.study import searched, study
from lm.study.study import Study


def get_study() -> Study:
    return study("chinchilla_c4_tpu", searched("tpu:v5e:4x4", "experiments/chinchilla_c4/tpu.py"))
