"""Hardware that is not there: its names, how many devices it has, and what a device can do (imports no jax).

Figures are the manufacturers' for dense 16-bit products, and the memory is what XLA hands out. Rates are peaks that no program reaches:
what is computed from them is an estimate, and so marked wherever it is printed.
"""

import dataclasses
import math
import re
from typing import Literal

from lm.errors import UserError

GIB = 2**30
NODE = 8  # GPUs that NVLink joins, at most
EXAMPLES = "tpu:v5p:4x4x4 (chips) or gpu:h100:2x8 (nodes x GPUs of a node)"


@dataclasses.dataclass(frozen=True)
class Chip:
    """One device as JAX counts them: a GPU, a TPU chip, or one of the two cores of a chip of TPU7x.

    memory     bytes that a program may use          link   bytes/s one way over one link: of the torus (ICI), or all NVLinks of a GPU
    flops      dense bfloat16 FLOP/s                 node   bytes/s one way per GPU between nodes; a TPU's slice has no such boundary
    bandwidth  bytes/s of the device's memory        axes   dimensions of the torus; 0 for GPUs
    """

    name: str
    kind: Literal["tpu", "gpu"]
    memory: int
    flops: float
    bandwidth: float
    link: float
    node: float = 0.0
    axes: int = 0
    per_chip: int = 1


# Memory of TPUs: the limit in libtpu's own out-of-memory errors. Other figures of TPUs: the "System architecture" tables of Google's
# documentation (cloud.google.com/tpu/docs/v4, v5e, v5p, v6e, tpu7x); a link's share of "ICI bandwidth" as in Austin et al. 2025, "How to
# Scale Your Model", chapter 2. Of GPUs: NVIDIA's data sheets of H100 SXM, H200 SXM and HGX B200, half of their figure "with sparsity",
# half of NVLink's "bidirectional" one, and memory in the decimal GB of the data sheet, slightly less than the driver reports. Between
# nodes: one 400 Gbit/s adapter per GPU, as in NVIDIA's DGX H100, H200 and B200.
CHIPS = {
    chip.name: chip
    for chip in (
        Chip("v4", "tpu", int(30.75 * GIB), 275e12, 1.228e12, 45e9, axes=3),
        Chip("v5e", "tpu", int(15.75 * GIB), 197e12, 0.819e12, 45e9, axes=2),
        Chip("v5p", "tpu", int(95.74 * GIB), 459e12, 2.765e12, 90e9, axes=3),
        Chip("v6e", "tpu", int(31.25 * GIB), 918e12, 1.638e12, 90e9, axes=2),
        Chip("tpu7x", "tpu", int(94.75 * GIB), 2307e12 / 2, 7.38e12 / 2, 90e9 / 2, axes=3, per_chip=2),
        Chip("h100", "gpu", 80 * 10**9, 989e12, 3.35e12, 450e9, node=50e9),
        Chip("h200", "gpu", 141 * 10**9, 989e12, 4.8e12, 450e9, node=50e9),
        Chip("b200", "gpu", 180 * 10**9, 2250e12, 8.0e12, 900e9, node=50e9),
    )
}


@dataclasses.dataclass(frozen=True)
class Topology:
    """Devices of one kind: `shape` is the torus of a TPU's chips, or (nodes, GPUs per node)."""

    text: str
    chip: Chip
    shape: tuple[int, ...]

    @property
    def kind(self) -> str:
        return self.chip.kind

    @property
    def devices(self) -> int:
        return math.prod(self.shape) * self.chip.per_chip


def parse(text: str) -> Topology:
    """Returns the topology of "tpu:v5p:4x4x4" or "gpu:h100:2x8". Raises UserError, with what is known, for anything else."""
    found = re.fullmatch(r"(\w+):(\w+):(\d+(?:x\d+)*)", text)
    if found is None:
        raise UserError(f"--topology={text}: give a kind, a device and a shape, such as {EXAMPLES}; devices: {known()}")
    kind, name, sizes = found.group(1), found.group(2), tuple(int(size) for size in found.group(3).split("x"))
    if name not in CHIPS or CHIPS[name].kind != kind:
        raise UserError(f"--topology={text}: no device {kind}:{name} is known; there are {known()}")
    chip = CHIPS[name]
    dimensions = chip.axes or 2
    if len(sizes) != dimensions or min(sizes) < 1:
        example = "x".join("4" * chip.axes) if chip.axes else "2x8"
        what = f"the torus of {name} has {dimensions} dimensions" if chip.axes else "a shape is nodes x GPUs of a node"
        raise UserError(f"--topology={text}: {what}, such as {kind}:{name}:{example}")
    if chip.axes:
        _check_torus(text, sizes)
    elif sizes[1] > NODE:
        raise UserError(f"--topology={text}: a node of {name}s has at most {NODE} GPUs: give nodes x GPUs of a node, such as 2x{NODE}")
    return Topology(text, chip, sizes)


def _check_torus(text: str, sizes: tuple[int, ...]) -> None:
    """Raises UserError for a torus of other hosts than of 2 x 2 chips, or of one chip."""
    if math.prod(sizes) > 1 and (sizes[0] % 2 or sizes[1] % 2):
        raise UserError(f"--topology={text}: a host holds 2 x 2 chips: the first two sizes must be even (or all 1, a single chip)")


def known() -> str:
    return ", ".join(f"{chip.kind}:{chip.name}" for chip in CHIPS.values())
