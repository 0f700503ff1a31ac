"""The choice of the kernel that serves a mask, with the reason why another cannot."""

from typing import Any, Literal, Optional

import jax.numpy as jnp

from lm.errors import UserError
from lm.model.mask import Mask
from lm.model.memory import PLAIN_PAIRS

Kernel = Literal["xla", "blockwise", "cudnn", "splash"]
AMPERE = "a GPU of compute capability 8"  # Ampere and Ada: fused attention, without packed documents
TILE = 128  # of a TPU's registers, which splash divides sequences into


def choose(
    asked: str,
    mask: Mask,
    dtype: Any,
    platform: str,
    *,
    head_dim: int,
    relative: bool = False,
    ways: int = 1,
    ring: bool = False,
    cross: bool = False,
    staged: bool = False,
) -> Kernel:
    """Returns the kernel for a mask (its arrays or their shapes). There is no silent fallback: one asked for by name serves or is refused.

    `cross` says that keys are those of another sequence, `staged` that layers are stages of a pipeline.

    mask                                    xla  blockwise  cudnn                       splash
    causal, full, window, joined documents  yes  yes        yes                         yes
    a window to both sides                  yes  yes        refused: a [T, S] mask      yes
    isolated documents (segments)           yes  yes        from Hopper on              yes
    the same with a window                  yes  yes        refused: a [T, S] mask      yes
    from one packed stream to another       yes  yes        refused: a [T, S] mask      yes
    prefix                                  yes  yes        refused: a [T, S] mask      refused: a [T, S] mask
    any, with relative positions            yes  yes        refused: an [N, T, S] bias  refused: an [N, T, S] bias
    cached keys                             yes  yes        refused: indices            refused: indices
    a sequence split over mesh.context      yes  yes        refused: indices            refused: indices
    the same, keys passed round in a ring   no   yes        no                          no

    cudnn needs a GPU, 16 bits and heads of a multiple of 8, 128 at most; splash a TPU, bfloat16 or float32, and lengths of a multiple of
    128. `auto` takes the fused kernel of the platform where it can; else xla, which holds [T, S] logits, up to 2,048 queries x 2,048 keys,
    and blockwise beyond.
    """
    if ring and ways > 1:
        if asked not in ("auto", "blockwise"):
            raise UserError(
                f"{asked} attention wants all keys at once and context_attention=ring passes them round:"
                " use --config.execution.attention=auto, or --config.execution.context_attention=gather"
            )
        return "blockwise"
    order = _disorder(mask, ways)
    refusals: dict[Kernel, Optional[str]] = {
        "cudnn": _cudnn(mask, dtype, platform, head_dim, relative) or _packed(mask, platform, cross, staged) or order,
        "splash": _splash(mask, dtype, platform, relative) or order,
    }
    for kernel, refusal in refusals.items():
        if asked == kernel and refusal:
            raise UserError(f"{kernel} attention {refusal}: use --config.execution.attention=auto")
        if asked in ("auto", kernel) and refusal is None:
            return kernel
    if asked == "blockwise" or (asked == "auto" and mask.q_position_BT.shape[1] * mask.k_position_BS.shape[1] > PLAIN_PAIRS):
        return "blockwise"
    return "xla"


def platform_of(device: Any) -> str:
    """Returns the platform of a device, or of the description of one, by which kernels are chosen.

    GPUs that cuDNN's attention does not serve, or not whole, have names of their own: AMD's, and NVIDIA's before Hopper (compute
    capability 9.0).
    """
    if device.platform not in ("gpu", "cuda"):
        return device.platform
    if "rocm" in str(getattr(getattr(device, "client", None), "platform_version", "")).lower():
        return "rocm"
    capability = float(getattr(device, "compute_capability", None) or 9.0)
    if capability >= 9.0:
        return device.platform
    return AMPERE if capability >= 8.0 else f"a GPU of compute capability {capability}"


def _cudnn(mask: Mask, dtype: Any, platform: str, head_dim: int, relative: bool) -> Optional[str]:
    if platform not in ("gpu", "cuda", AMPERE):
        return f"runs on NVIDIA GPUs from Ampere on and this is {platform}"
    if dtype not in (jnp.bfloat16, jnp.float16):
        return f"computes in 16 bits and compute_dtype is {jnp.dtype(dtype).name}"
    if head_dim % 8 or head_dim > 128:
        return f"takes heads of a multiple of 8 up to 128 and attention.head_dim is {head_dim}"
    if mask.window is not None and mask.kind != "causal":
        return "knows no window that reaches forward"
    return _pairs(mask, relative)


def _packed(mask: Mask, platform: str, cross: bool, staged: bool) -> Optional[str]:
    """Returns why cuDNN cannot keep documents apart; None where it can or need not."""
    if mask.q_segment_BT is None:
        return None
    if cross or mask.window is not None:
        return "knows document boundaries in self-attention without a window alone (attention.documents=joined has none)"
    if staged:
        return "knows no document boundaries in stages of a pipeline (attention.documents=joined has none)"
    return None if platform != AMPERE else "knows document boundaries from Hopper on (attention.documents=joined has none)"


def _splash(mask: Mask, dtype: Any, platform: str, relative: bool) -> Optional[str]:
    if platform != "tpu":
        return f"runs on TPUs and this is {platform}"
    if dtype not in (jnp.bfloat16, jnp.float32):
        return f"computes in bfloat16 or float32 and compute_dtype is {jnp.dtype(dtype).name}"
    refusal, lengths = _pairs(mask, relative), (mask.q_position_BT.shape[1], mask.k_position_BS.shape[1])
    if refusal is None and any(length % TILE for length in lengths):
        return f"takes lengths of a multiple of {TILE} and these are {lengths[0]} queries and {lengths[1]} keys"
    return refusal


def _pairs(mask: Mask, relative: bool) -> Optional[str]:
    """Returns the refusal of a kernel that would have to hold a number for every pair of a query and a key; None: it need not."""
    if relative:
        return "would hold the bias of relative positions for every pair of tokens"
    return None if mask.k_prefix_BS is None else "knows no prefix that all queries see"


def _disorder(mask: Mask, ways: int) -> Optional[str]:
    """Returns why array indices are not positions, which fused kernels take them for; None where they are."""
    if ways > 1:
        return "sees one device's part of a sequence and mesh.context splits it"
    if not mask.by_position:
        return None
    if mask.permuted:
        return "takes indices for positions and the sequence is permuted"
    if mask.q_original_index_BT is None or mask.q_original_index_BT.shape[1] != mask.k_position_BS.shape[1]:
        return "takes indices for positions, which cached keys and positions of their own are not"
    return None
