"""The same study on slices of 16 TPU v5e: `python -m experiments experiments/chinchilla_c4/tpu.py plan --device=tpu:v5e`."""

from experiments.chinchilla_c4.study import study
from lm.mesh import MeshConfig
from lm.study.rules import Tier, Tiers
from lm.study.study import Study
from lm.train.config import ExecutionConfig

# By hand, but for the largest size, whose mesh is the first candidate of a search: README.md has what was compiled.
EXECUTION = Tiers(
    (
        Tier(params=3e8, mesh=MeshConfig(data=16), execution=ExecutionConfig(unroll=False, remat="full"), rows=4),
        Tier(params=2.5e9, mesh=MeshConfig(data=1, fsdp=16), execution=ExecutionConfig(unroll=False, remat="full"), rows=4),
        Tier(params=4e9, mesh=MeshConfig(data=1, fsdp=4, tensor=4), execution=ExecutionConfig(unroll=False, remat="dots"), rows=2),
    )
)


def get_study() -> Study:
    return study("chinchilla_c4_tpu", EXECUTION)
