"""FLOPs of matrix products in optimized HLO (imports no jax).

A multiply-add is two. Elementwise work is left out, as in `lm.model.flops`.
"""

import math
import re
from collections.abc import Sequence

import numpy as np

from lm.preflight.hlo_text import Array, Computation, Instruction


def products(instruction: Instruction, computation: Computation) -> float:
    """Returns the FLOPs of a dot, a convolution or a library's or kernel's matrix products; 0 for any other instruction."""
    if instruction.opcode == "dot":
        return dot(instruction, computation.arrays(instruction)[0], instruction.numbers("lhs_contracting_dims"))
    if instruction.opcode == "convolution":
        return convolution(instruction, *computation.arrays(instruction)[:2])
    if instruction.opcode == "custom-call":
        return custom_call(instruction, computation.arrays(instruction))
    return 0.0


def dot(instruction: Instruction, left: Array, contracted: Sequence[int]) -> float:
    return 2.0 * instruction.result[0].size * math.prod(left.dims[dim] for dim in contracted)


def convolution(instruction: Instruction, left: Array, right: Array) -> float:
    """Returns the FLOPs of a convolution, as which TPUs compute every product: pairs of output and window position that meet an element."""
    labels = re.search(r"dim_labels=(\S+?)_(\S+?)->([^,\s]+)", instruction.attributes)
    assert labels is not None, instruction.name
    (lhs, rhs, out), result = labels.groups(), instruction.result[0]
    pairs = 1
    for axis, window in enumerate(_windows(instruction.attributes)):
        sizes = left.dims[lhs.index(str(axis))], right.dims[rhs.index(str(axis))], result.dims[out.index(str(axis))]
        pairs *= _valid(*sizes, *window)
    batch = left.dims[lhs.index("b")] // (instruction.number("batch_group_count") or 1)
    # A kernel's own input features are those of one group.
    return 2.0 * pairs * batch * right.dims[rhs.index("i")] * right.dims[rhs.index("o")]


def _windows(attributes: str) -> list[tuple[int, int, int, int]]:
    """Returns (stride, low padding, dilation of the input, dilation of the kernel) by spatial axis."""
    window = re.search(r"window=\{([^}]*)\}", attributes)
    if window is None:
        return []
    fields = {name: values.split("x") for name, values in re.findall(r"(\w+)=(\S+)", window[1])}
    count = len(fields["size"])
    one = ["1"] * count
    pad = [low.split("_")[0] for low in fields.get("pad", ["0"] * count)]
    columns = (fields.get("stride", one), pad, fields.get("lhs_dilate", one), fields.get("rhs_dilate", one))
    return [(int(stride), int(low), int(left), int(right)) for stride, low, left, right in zip(*columns, strict=True)]


def _valid(size: int, kernel: int, outputs: int, stride: int, low: int, dilate: int, kernel_dilate: int) -> int:
    """Returns the pairs of output and kernel position that read an element of the input, not its padding or a hole of its dilation."""
    if kernel == 1 and low == 0 and dilate == 1:
        return outputs
    starts, count = np.arange(outputs, dtype=np.int64) * stride - low, 0
    for position in range(kernel):
        at = starts + position * kernel_dilate
        count += int(np.count_nonzero((at >= 0) & (at % dilate == 0) & (at < size * dilate)))
    return count


def custom_call(instruction: Instruction, operands: list[Array]) -> float:
    """Returns the FLOPs of cuBLAS's products, cuDNN's fused attention, and Pallas kernels, which state theirs in a cost estimate."""
    found = re.search(r'custom_call_target="([^"]*)"', instruction.attributes)
    target = found[1] if found else ""
    if target.startswith("__cublas"):
        return dot(instruction, operands[0], instruction.numbers("lhs_contracting_dimensions"))
    if target.startswith("__cudnn$fmha"):
        return _fused_attention(instruction, operands, backward="Backward" in target)
    if target == "tpu_custom_call":
        return _pallas(instruction, operands)
    return 0.0


def _fused_attention(instruction: Instruction, operands: list[Array], *, backward: bool) -> float:
    """Returns 2 products forward or 5 backward (one recomputes the weights) of [B, N, T, S] weights; a causal mask shows half of these."""
    shape = re.search(r'"intermediate_tensor_shape": *\{.*?"dimensions": *\[([^\]]*)\]', instruction.attributes)
    weights = math.prod(int(n) for n in re.findall(r"\d+", shape[1])) if shape else 0
    shown = 0.5 if re.search(r'"mask_type": *"(PADDING_)?CAUSAL', instruction.attributes) else 1.0
    return (10.0 if backward else 4.0) * weights * operands[0].dims[-1] * shown


def _pallas(instruction: Instruction, operands: list[Array]) -> float:
    estimate = re.search(r'"flops":"?(\d+)', instruction.attributes)
    return float(estimate[1]) if estimate else _splash(instruction, operands)


def _splash(instruction: Instruction, operands: list[Array]) -> float:
    """Returns the FLOPs of a splash attention kernel, known by its name.

    It makes 2 products forward, 3 for the queries' gradient, and 4 for the keys' and values'.
    All pairs are counted: which blocks its mask leaves out does not stand in the text.
    """
    name = re.search(r"splash\w*?_(fwd|dq|dkv)", instruction.name + instruction.attributes)
    arrays = [array for array in operands if len(array.dims) >= 3 and array.dtype in ("bf16", "f32")]
    if name is None or len(arrays) < 2:
        return 0.0
    query, key = arrays[:2]
    return 2.0 * {"fwd": 2, "dq": 3, "dkv": 4}[name[1]] * query.size * key.dims[-2]
