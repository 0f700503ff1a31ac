"""One small run: its configuration, compiled program, data and facts."""

import jax
import pytest

from lm.data.config import DataConfig
from lm.mesh import MeshConfig
from lm.optim.config import OptimConfig
from lm.sharding import make_mesh
from lm.train.config import ExecutionConfig, LogConfig, RunConfig
from lm.train.program import compile_program
from lm.train.record import Facts
from tests.train.stub import StubModel, StubStream

CONFIG = RunConfig(
    data=DataConfig(sequence_length=16),
    optim=OptimConfig(learning_rate=0.02, weight_decay=0.1),
    train_tokens=24 * 64,
    batch_size=4,
    execution=ExecutionConfig(steps_per_dispatch=4),
    log=LogConfig(every_steps=5, tensorboard=False),
)
FACTS = Facts(
    id="0123456789ab",
    data={"fingerprint": "f"},
    parameters={"total": 1},
    flops_per_token={"6nd": 6.0, "matmul_full": 7.0, "matmul_causal": 5.0},
    bytes_per_token=1.5,
)


@pytest.fixture(scope="session")
def mesh():
    return make_mesh(MeshConfig(), devices=jax.devices()[:1])


@pytest.fixture(scope="session")
def program(mesh):
    return compile_program(CONFIG, StubModel(), mesh)


@pytest.fixture
def stream():
    return StubStream()
