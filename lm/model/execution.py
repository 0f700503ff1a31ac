"""Options of execution: rematerialisation, kernels, sharding rules and pipeline stages. None changes what a model computes."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Literal, Optional

import jax

from lm.errors import UserError
from lm.model.config import AttentionKernel, ContextForm
from lm.sharding import RULES, Rules, is_split

Remat = Literal["none", "full", "dots", "dots_no_batch"]
# Fused attention's results, which every policy but `full` keeps: the name of ours and of splash's, and JAX's operation that is cuDNN's.
ATTENDED, CUDNN = "attended", "dot_product_attention_fwd_wrapper"


@dataclasses.dataclass(frozen=True)
class Pipeline:
    """Pipeline parallelism: each of `stages` runs `repeats` separate groups of consecutive layers, on `micro_batches` in turn.

    Raises UserError for fewer micro-batches than stages when they go round more than once: the first would come back before the last
    has gone.
    """

    stages: int
    repeats: int
    micro_batches: int

    def __post_init__(self) -> None:
        if self.repeats > 1 and self.micro_batches < self.stages:
            raise UserError(
                f"execution.pipeline_micro_batches={self.micro_batches} is fewer than mesh.stage={self.stages}:"
                f" give {self.stages} or more, or --config.execution.pipeline_repeats=1"
            )

    @property
    def ticks(self) -> int:
        """Number of times that a stage runs a group of its layers, idle ones included."""
        return self.micro_batches * self.repeats + self.stages - 1

    @property
    def bubble(self) -> float:
        """Share of ticks in which a stage has nothing to do (Narayanan et al. 2021, section 2.2)."""
        return (self.stages - 1) / self.ticks

    def shape(self, layers: int) -> tuple[int, int, int]:
        """Returns [repeats, stages, layers of a group], the order of layers in memory. Raises UserError where they do not divide."""
        groups = self.repeats * self.stages
        if layers % groups:
            raise UserError(
                f"{layers} layers cannot be split into {self.repeats} groups for each of {self.stages} stages: make"
                f" --config.model.num_layers (and --config.model.encoder_layers) a multiple of {groups}, or change --config.mesh.stage or"
                " --config.execution.pipeline_repeats"
            )
        return self.repeats, self.stages, layers // groups

    def rows_multiple(self, devices: int) -> int:
        """Returns the number that must divide a batch's rows when they are split over `devices`, a pipeline's stages among them."""
        return math.lcm(devices, devices // self.stages * self.micro_batches)


@dataclasses.dataclass(frozen=True)
class Execution:
    """Options of execution, none of which changes what a model computes beyond rounding.

    remat        what the backward pass recomputes instead of keeping: `none`, nothing; `full`, everything in a block; `dots`,
                 everything but the results of matrix products; `dots_no_batch`, everything but those of products without batch
                 dimensions (the weights' products). With `none` and `full` a pipeline keeps only the inputs of each tick and
                 recomputes its blocks, with `full` one by one
    unroll       the scan over layers as straight code: faster to run, slower to compile
    listed       every layer's weights, and its part of a cache, are arrays of their own, and the layers straight code: a step of decoding
                 then reads each weight where it lies, and not a copy of a layer's part (lm.model.layers.listed makes such parameters)
    attention    the kernel; `auto` takes the fastest that can serve the mask
    context      how attention reads keys and values that lie on other devices of the context axis: all gathered first, or passed round
    platform     platform of the devices that will run it, which decides the kernel; None: that of JAX's default devices
    rules        how logical axes are split over the mesh
    pipeline     layers as stages; the stacks' weights are then [repeats, stages, layers / (repeats stages), ...]; None: one stage
    param_dtype  dtype of the parameters; float64, for checks against other implementations, needs `jax_enable_x64`
    """

    remat: Remat = "none"
    unroll: bool = True
    listed: bool = False
    attention: AttentionKernel = "auto"
    context: ContextForm = "gather"
    platform: Optional[str] = None
    rules: Rules = RULES
    pipeline: Optional[Pipeline] = None
    param_dtype: Literal["float32", "float64"] = "float32"

    @property
    def on_cpu(self) -> bool:
        """True where CPUs will run it."""
        return (self.platform or jax.default_backend()) == "cpu"

    def rows_multiple(self, mesh: Any) -> int:
        """Returns the number that must divide the rows of a call on this mesh."""
        devices = self.rules.batch_ways(mesh)
        return devices if self.pipeline is None else self.pipeline.rows_multiple(devices)


AS_LISTED = Execution(listed=True, unroll=False, attention="xla")  # of models that write texts


def _all_but_gathered(primitive: Any, *_: Any, **params: Any) -> bool:
    """Returns whether a result is kept for the backward pass: all but weights that fsdp gathered, which would lie whole on every device.

    These are known by their constraint, which splits no rows.
    """
    return primitive.name != "sharding_constraint" or "fsdp" in jax.tree.leaves(tuple(params["sharding"].spec))


def remat(function: Callable, how: Remat, *, straight: bool = False) -> Callable:
    """Returns `function`, recomputed in the backward pass but for what `how` keeps; `straight` where it is called in straight code."""
    policies, both = jax.checkpoint_policies, jax.checkpoint_policies.save_from_both_policies
    if how == "none":
        return jax.checkpoint(function, policy=_all_but_gathered, prevent_cse=straight) if is_split("embed") else function
    attended = both(policies.save_only_these_names(ATTENDED), lambda primitive, *_, **__: primitive.name == CUDNN)
    policy = {
        "full": policies.nothing_saveable,
        "dots": both(policies.dots_saveable, attended),
        "dots_no_batch": both(policies.dots_with_no_batch_dims_saveable, attended),
    }[how]
    # Inside a loop nothing can merge the two computations; in straight code only the barriers of prevent_cse keep them apart.
    return jax.checkpoint(function, policy=policy, prevent_cse=straight)
