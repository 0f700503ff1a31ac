"""Builds the model and the mesh of a configuration. Nothing is allocated and nothing is compiled."""

import dataclasses
import functools
from typing import Any, Literal, Optional

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from lm.model import architectures
from lm.model.execution import Execution, Pipeline
from lm.model.kernels import packed
from lm.model.kernels.choose import choose, platform_of
from lm.model.mask import Mask
from lm.rows import RowShape
from lm.sharding import RULES, SEQUENCE_RULES, make_mesh
from lm.train.checks import check_rows
from lm.train.config import ExecutionConfig, RunConfig
from lm.train.derived import row_of
from lm.train.mesh_fit import check_mesh_fit

_model = functools.lru_cache(maxsize=8)(architectures.build)  # equal configurations get one Model, by which compiled programs are shared


@dataclasses.dataclass(frozen=True, eq=False)
class BuiltRun:
    """A configuration with the model and the mesh that are built from it.

    `attention` names the kernel that serves the training mask, or those of an encoder-decoder's three masks.
    """

    config: RunConfig
    model: architectures.Model
    mesh: Mesh
    attention: str

    @property
    def fused(self) -> bool:
        """Says whether attention never holds its [T, S] weights."""
        return "xla" not in self.attention


def build(config: RunConfig, devices: Optional[list] = None) -> BuiltRun:
    """Builds model and mesh of a configuration on these devices (default: all).

    Raises:
      UserError: objective, model, mesh and execution do not fit each other.
    """
    row = row_of(config)
    check_rows(config, row)
    mesh = make_mesh(config.mesh, devices)
    check_mesh_fit(config, mesh)
    model = _model(config.model, execution_of(config.execution, mesh))
    return BuiltRun(config, model, mesh, _attention_kernels(config, row, mesh))


def execution_of(how: ExecutionConfig, mesh: Mesh) -> Execution:
    """Returns the way in which a run's model is carried out on its mesh."""
    return Execution(
        remat=how.remat,
        unroll=how.unroll,
        attention=how.attention,
        context=how.context_attention,
        platform=platform_of(mesh.devices.flat[0]),
        rules=SEQUENCE_RULES if how.sequence_parallel else RULES,
        pipeline=pipeline_of(how, mesh.shape["stage"]),
    )


def pipeline_of(how: ExecutionConfig, stages: int) -> Optional[Pipeline]:
    """Returns the schedule of a run's pipeline, or None where the mesh has no stages."""
    return Pipeline(stages, how.pipeline_repeats, how.pipeline_micro_batches or stages) if stages > 1 else None


def prove_kernels(parts: BuiltRun) -> None:
    """Tries cuDNN's attention of packed documents on this machine's GPU, where the run uses it; UserError where it computes wrongly.

    What has no document boundaries runs through JAX's public function, which is tested on GPUs; packed documents do not.
    """
    model = parts.config.model
    kinds = {"encoder": [False], "encoder_decoder": [False, True]}.get(model.architecture, [True])
    has_boundaries = model.attention.documents == "isolated" or model.architecture == "encoder_decoder"
    if jax.default_backend() != "gpu" or "cudnn" not in parts.attention or not has_boundaries:
        return
    heads = {"heads": model.attention.num_heads, "kv_heads": model.attention.kv_heads, "head_dim": model.attention.head_dim}
    for causal in kinds:
        packed.prove(jnp.dtype(parts.config.compute_dtype), causal=causal, **heads)


def _attention_kernels(config: RunConfig, row: RowShape, mesh: Mesh) -> str:
    """Names the kernels that serve the masks of training, by stack where these are several; UserError when the one asked for cannot."""
    model, how, ways = config.model, config.execution, mesh.shape["context"]
    platform, is_ring = platform_of(mesh.devices.flat[0]), how.context_attention == "ring"

    def placeholder(length: int) -> Any:  # shapes stand in for arrays: the choice reads nothing else
        return jax.ShapeDtypeStruct((1, length), jnp.int32)

    def within(length: int, kind: Literal["full", "causal"], *, segmented: bool, prefix: Any = None) -> Mask:
        x = placeholder(length)
        segments = x if segmented else None
        return Mask(x, x, segments, segments, prefix, x, x, kind=kind, window=model.attention.window, permuted=ways > 1)

    def chosen(mask: Mask, *, relative: bool, cross: bool = False) -> str:
        kernel = choose(
            how.attention,
            mask,
            jnp.dtype(config.compute_dtype),
            platform,
            relative=relative,
            head_dim=model.attention.head_dim,
            ways=ways,
            ring=is_ring,
            cross=cross,
            staged=mesh.shape["stage"] > 1,
        )
        return f"{kernel} ring" if ways > 1 and is_ring else kernel

    x, relative = placeholder(row.length), model.positions == "relative"
    own = within(
        row.length,
        "full" if model.architecture == "encoder" else "causal",
        segmented=model.attention.documents == "isolated",
        prefix=x if model.architecture == "prefix_lm" else None,
    )
    decoder = chosen(own, relative=relative)
    if model.architecture != "encoder_decoder":
        return decoder
    memory = placeholder(row.encoder_length)
    encoder = chosen(within(row.encoder_length, "full", segmented=True), relative=relative)
    cross = chosen(Mask(x, memory, x, memory, kind="full"), relative=False, cross=True)
    return f"decoder {decoder}, encoder {encoder}, cross {cross}"
