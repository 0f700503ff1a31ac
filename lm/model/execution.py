"""How a model is carried out, as opposed to what it computes."""

import dataclasses
from typing import Literal, Optional

from lm.model.config import AttentionKernel, ContextForm
from lm.sharding import RULES, Rules


@dataclasses.dataclass(frozen=True)
class Pipeline:
    """Layers split over `stages`, each of which runs `repeats` separate groups of consecutive layers, on `micro_batches` in turn."""

    stages: int
    repeats: int
    micro_batches: int


@dataclasses.dataclass(frozen=True)
class Execution:
    """None of these changes what a model computes beyond rounding.

    remat        what the backward pass computes again instead of keeping: nothing; everything in a block; everything but the
                 results of matrix products; everything but those of products without batch dimensions (the weights' products)
    unroll       the scan over layers as straight code: faster to run, slower to compile
    attention    the kernel; `auto` takes the fastest that can serve the mask
    context      how attention reads keys and values that lie on other devices of the context axis: all gathered first, or passed round
    platform     of the devices that will run it, which decides the kernel; None: of JAX's default devices
    rules        how logical axes are split over the mesh
    pipeline     layers as stages; the stacks' weights are then [repeats, stages, layers / (repeats stages), ...]; None: one stage
    param_dtype  of the parameters; float64, for checks against other implementations, needs `jax_enable_x64`
    """

    remat: Literal["none", "full", "dots", "dots_no_batch"] = "none"
    unroll: bool = True
    attention: AttentionKernel = "auto"
    context: ContextForm = "gather"
    platform: Optional[str] = None
    rules: Rules = RULES
    pipeline: Optional[Pipeline] = None
    param_dtype: Literal["float32", "float64"] = "float32"
