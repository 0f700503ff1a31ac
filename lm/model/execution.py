"""How a model is carried out, as opposed to what it computes."""

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
    """Layers split over `stages`, each of which runs `repeats` separate groups of consecutive layers, on `micro_batches` in turn.

    UserError for fewer micro-batches than stages when they go round more than once: the first would come back before the last has gone.
    """

    stages: int
    repeats: int
    micro_batches: int

    def __post_init__(self) -> None:
        if self.repeats > 1 and self.micro_batches < self.stages:
            raise UserError(
                f"execution.pipeline_micro_batches={self.micro_batches} is fewer than mesh.stage={self.stages}:"
                f" give {self.stages} or more, or execution.pipeline_repeats=1"
            )

    @property
    def ticks(self) -> int:
        """How often a stage runs a group of its layers, idle ones included."""
        return self.micro_batches * self.repeats + self.stages - 1

    @property
    def bubble(self) -> float:
        """The share of ticks in which a stage has nothing to do (Narayanan et al. 2021, section 2.2)."""
        return (self.stages - 1) / self.ticks

    def shape(self, layers: int) -> tuple[int, int, int]:
        """[repeats, stages, layers of a group]: the order of layers in memory. UserError where they do not divide."""
        groups = self.repeats * self.stages
        if layers % groups:
            raise UserError(
                f"{layers} layers cannot be split into {self.repeats} groups for each of {self.stages} stages: make model.num_layers"
                f" (and model.encoder_layers) a multiple of {groups}, or change mesh.stage or execution.pipeline_repeats"
            )
        return self.repeats, self.stages, layers // groups

    def rows_multiple(self, devices: int) -> int:
        """Of what a batch's rows are a multiple when they are split over `devices`, a pipeline's stages among them."""
        return math.lcm(devices, devices // self.stages * self.micro_batches)


@dataclasses.dataclass(frozen=True)
class Execution:
    """None of these changes what a model computes beyond rounding.

    remat        what the backward pass computes again instead of keeping: nothing; everything in a block; everything but the
                 results of matrix products; everything but those of products without batch dimensions (the weights' products).
                 A pipeline keeps no more than the inputs of each tick with the first two, and computes the blocks of a tick again,
                 with the second one by one
    unroll       the scan over layers as straight code: faster to run, slower to compile
    attention    the kernel; `auto` takes the fastest that can serve the mask
    context      how attention reads keys and values that lie on other devices of the context axis: all gathered first, or passed round
    platform     of the devices that will run it, which decides the kernel; None: of JAX's default devices
    rules        how logical axes are split over the mesh
    pipeline     layers as stages; the stacks' weights are then [repeats, stages, layers / (repeats stages), ...]; None: one stage
    param_dtype  of the parameters; float64, for checks against other implementations, needs `jax_enable_x64`
    """

    remat: Remat = "none"
    unroll: bool = True
    attention: AttentionKernel = "auto"
    context: ContextForm = "gather"
    platform: Optional[str] = None
    rules: Rules = RULES
    pipeline: Optional[Pipeline] = None
    param_dtype: Literal["float32", "float64"] = "float32"

    def rows_multiple(self, mesh: Any) -> int:
        """Of what the rows of a call on this mesh are a multiple."""
        devices = self.rules.batch_ways(mesh)
        return devices if self.pipeline is None else self.pipeline.rows_multiple(devices)


def _all_but_gathered(primitive: Any, *_: Any, **params: Any) -> bool:
    """Everything is kept for the backward pass but weights that fsdp gathered: those of all layers would lie whole on every device.

    They are known by their constraint, which splits no rows.
    """
    return primitive.name != "sharding_constraint" or "fsdp" in jax.tree.leaves(tuple(params["sharding"].spec))


def remat(function: Callable, how: Remat, *, straight: bool = False) -> Callable:
    """`function`, computed again in the backward pass but for what `how` keeps; `straight` where it is called in straight code."""
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
