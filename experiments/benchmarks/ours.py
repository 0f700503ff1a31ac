"""This project's side: the compiled training step of lm.train on ready batches."""

import dataclasses
from typing import Any

import jax
import numpy as np

from experiments.benchmarks.shapes import DECODER, Shape
from experiments.benchmarks.side import Made
from lm.data.config import DataConfig
from lm.model.config import AttentionConfig, MLPConfig, ModelConfig
from lm.model.flops import ledger
from lm.optim.config import OptimConfig
from lm.train import environment, feed
from lm.train.build import BuiltRun, build
from lm.train.config import ExecutionConfig, RunConfig
from lm.train.derived import hyper_of, row_of
from lm.train.program import compile_program, compiler_options
from lm.types import Batch

# Of a dispatch. A call allocates the step's memory anew, and the system takes a third of a step to clear it.
STEPS = 4


def decoder_config(shape: Shape) -> RunConfig:
    """Returns the configuration of GPT-2's architecture at this shape."""
    model = ModelConfig(
        vocab_size=shape.vocab,
        d_model=shape.width,
        num_layers=shape.layers,
        max_length=shape.length,
        attention=AttentionConfig(shape.heads, head_dim=shape.width // shape.heads, bias=True, documents="joined"),
        mlp=MLPConfig(d_ff=4 * shape.width, bias=True),
        norm="layernorm",
        positions="learned",
        tied_head=True,
        embedding_std=0.02,
    )
    return RunConfig(
        model=model,
        data=DataConfig(sequence_length=shape.length),
        batch_size=shape.rows,
        train_tokens=10_000 * shape.tokens,
        optim=OptimConfig(learning_rate=1e-3, weight_decay=0.1, beta2=0.95),
        execution=ExecutionConfig(steps_per_dispatch=STEPS),
    )


def decoder() -> Made:
    """Returns the training step of the decoder."""
    return step_of(decoder_config(DECODER), DECODER)


def step_of(config: RunConfig, shape: Shape) -> Made:
    """Returns one dispatch of a configuration's program, on one batch of random tokens, and what is said of it."""
    built, steps = build(config), config.execution.steps_per_dispatch
    program = compile_program(config, built.model, built.mesh)
    hyper, count = (feed.put(x, program.abstract.step.sharding) for x in (hyper_of(config), np.int32(steps)))
    batches = feed.to_device([_batch(shape)] * steps, steps, program.batch_shardings)
    state = program.init(feed.put(np.uint32(0), program.abstract.step.sharding))
    loss = program.scalars.index("loss")

    def step() -> float:
        nonlocal state
        state, scalars, _ = program.run(state, None, batches, hyper, count)
        return float(scalars[-1, loss])

    return step, facts(config, built, shape)


def _batch(shape: Shape) -> Batch:
    """Returns full rows of random tokens, one document each."""
    rng, size = np.random.default_rng(0), (shape.rows, shape.length)
    tokens, targets = (rng.integers(0, shape.vocab, size, np.int32) for _ in range(2))
    positions = np.broadcast_to(np.arange(shape.length, dtype=np.int32), size)
    return Batch(tokens, targets, np.ones(size, np.float32), np.ones(size, np.int32), positions)


def facts(config: RunConfig, built: BuiltRun, shape: Shape) -> dict[str, Any]:
    """Returns what is said of this side."""
    counts = ledger(config.model, row_of(config))
    return {
        "program": f"jax {jax.__version__}",
        "parameters": sum(x.size for x in jax.tree.leaves(built.model.abstract())),
        "steps_per_dispatch": config.execution.steps_per_dispatch,
        "threads": environment.cores(),
        "attention": built.attention,
        "compiler_options": compiler_options(built.mesh) or {},
        "environment": environment.environment(attention_backend=built.attention),
        "flops_per_token": dict(counts.flops_per_token),
        "shape": dataclasses.asdict(shape),
    }
