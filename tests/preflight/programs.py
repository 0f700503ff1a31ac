"""Steps of small models compiled for a TPU and a GPU topology, layout by layout, in one process for each topology.

`python -m tests.preflight.programs TOPOLOGY FOLDER NAME...` writes FOLDER/NAME.txt, the optimized HLO.
"""

import dataclasses
import functools
import math
import os
import subprocess
import sys
import tempfile
import types
from pathlib import Path
from typing import Any

from lm.data.config import DataConfig
from lm.data.objectives.config import MaskedLM, NextToken, Objective, PrefixLM, SpanCorruption
from lm.mesh import AXES, MeshConfig
from lm.model.config import AttentionConfig, MLPConfig, ModelConfig
from lm.preflight.hlo import Analysis, analyse
from lm.preflight.job import ENVIRONMENT
from lm.train.config import ExecutionConfig, RunConfig

TOPOLOGIES = {"tpu": "tpu:v5e:2x4", "gpu": "gpu:h200:1x8"}
ROWS, LENGTH, LAYERS, WIDTH, HEADS, HEAD_DIM, HIDDEN, VOCAB = 16, 256, 4, 256, 8, 64, 768, 1024


def model(architecture: Any = "decoder", **options: Any) -> ModelConfig:
    heads = AttentionConfig(num_heads=HEADS, head_dim=HEAD_DIM)
    sizes: dict[str, Any] = {"vocab_size": VOCAB, "d_model": WIDTH, "num_layers": LAYERS, "max_length": 2 * LENGTH}
    return ModelConfig(architecture=architecture, attention=heads, mlp=MLPConfig(HIDDEN, activation="silu", gated=True), **sizes, **options)


T5: dict[str, Any] = {"positions": "relative", "relative_buckets": 8, "relative_max_distance": 16, "tied_head": True}
FAMILIES: dict[str, tuple[ModelConfig, Objective, int]] = {
    "decoder": (model(), NextToken(), LENGTH),
    "prefix_lm": (model("prefix_lm"), PrefixLM(examples_per_row=4), LENGTH),
    "encoder_decoder": (model("encoder_decoder", **T5), SpanCorruption(noise_density=0.25, sentinels=64, examples_per_row=4), LENGTH),
    "encoder": (model("encoder", positions="learned", tied_head=True), MaskedLM(next_sentence=False, examples_per_row=2), LENGTH),
}
LAYOUTS: dict[str, dict[str, Any]] = {
    "data": {"data": 8},
    "zero1": {"data": 8, "shard_optimizer": True},
    "fsdp": {"fsdp": 8},
    "tensor": {"tensor": 8},
    "sequence": {"tensor": 8, "sequence_parallel": True},
    "context": {"context": 8},
    "ring": {"context": 8, "context_attention": "ring"},
    "stage": {"stage": 4, "data": 2},
    "product": {"fsdp": 4, "tensor": 2, "sequence_parallel": True},
}
EVERY = [f"decoder-{layout}" for layout in LAYOUTS] + [f"{family}-product" for family in FAMILIES if family != "decoder"]
SHORT = ["decoder-zero1", "decoder-fsdp", "decoder-ring", "decoder-stage", "decoder-product", "encoder_decoder-product"]
NAMES = SHORT if os.environ.get("PREFLIGHT") == "short" else EVERY


def config(name: str) -> RunConfig:
    family, layout = name.split("-")
    shape, objective, length = FAMILIES[family]
    sizes = {axis: LAYOUTS[layout].get(axis, 1) for axis in AXES}
    how = {key: value for key, value in LAYOUTS[layout].items() if key not in AXES}
    return RunConfig(
        model=shape,
        data=DataConfig(sequence_length=length, objective=objective),
        mesh=MeshConfig(**sizes),
        execution=ExecutionConfig(unroll=False, **how),
        batch_size=ROWS,
        compute_dtype="bfloat16",
    )


def mesh(name: str) -> Any:
    """What `analyse` asks of a mesh."""
    return types.SimpleNamespace(shape=dataclasses.asdict(config(name).mesh))


@functools.cache
def analyses(kind: str) -> dict[str, Analysis]:
    """Every layout's step on the topology of a kind."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "tests.preflight.programs", TOPOLOGIES[kind], folder, *NAMES]
        environment = {**os.environ, **ENVIRONMENT}
        environment.pop("XLA_FLAGS", None)
        root = Path(__file__).parents[2]
        done = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, timeout=1800)
        assert done.returncode == 0, done.stderr[-3000:]
        return {name: analyse((Path(folder) / f"{name}.txt").read_text(), mesh(name)) for name in NAMES}


def main() -> None:
    import jax

    from lm.preflight.child import OPTIONS, devices_of, lower
    from lm.preflight.topologies import parse
    from lm.train.program import compiler_options

    topology, folder, *names = sys.argv[1:]
    devices = devices_of(parse(topology))
    for name in names:
        parts, lowered = lower(config(name), devices[: math.prod(mesh(name).shape.values())])
        with jax.set_mesh(parts.mesh):
            compiled = lowered.run.compile((compiler_options(parts.mesh) or {}) | OPTIONS[parse(topology).kind])
        (Path(folder) / f"{name}.txt").write_text(compiled.as_text())


if __name__ == "__main__":
    main()
