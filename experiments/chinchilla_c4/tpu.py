"""The same study on slices of 16 TPU v5e: `python -m experiments experiments/chinchilla_c4/tpu.py plan --device=tpu:v5e`."""

from experiments.chinchilla_c4.study import study
from lm.mesh import MeshConfig
from lm.study.rules import Tier, Tiers
from lm.study.study import Study
from lm.train.config import ExecutionConfig

# Fits a slice of 16 TPU v5e, as `plan --topology=tpu:v5e:4x4` says of every shape.
EXECUTION = Tiers(
    (
        Tier(params=3e8, mesh=MeshConfig(data=16), execution=ExecutionConfig(unroll=False, remat="full"), rows=4),
        Tier(params=4e9, mesh=MeshConfig(data=1, fsdp=16), execution=ExecutionConfig(unroll=False, remat="full"), rows=4),
    )
)


def get_study() -> Study:
    return study("chinchilla_c4_tpu", EXECUTION)
