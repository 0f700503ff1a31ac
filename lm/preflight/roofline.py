"""A step's time by its three rooflines (Williams, Waterman and Patterson 2009), and the bandwidth between devices (imports no jax).

Every figure here is an estimate from peak rates: the longest term alone, as if the others hid behind it perfectly. A real step is slower.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from lm.preflight.topologies import Chip


class Place(NamedTuple):
    """A device's node (host), and its coordinates in the torus of a TPU, else none."""

    node: int
    coordinates: tuple[int, ...] = ()


def bandwidth(chip: Chip, group: Sequence[Place]) -> float:
    """Returns the bytes/s that each device of a group can send to the others at once, all sending.

    GPUs of one node: NVLink. Of several: a ring has to leave each node, through the network adapters of all members in it (and no faster
    than NVLink). TPU: both directions of every dimension of the torus along which the group extends, or its only link where that has two
    chips; two cores of one chip count as neighbours on every link.
    """
    if chip.kind == "gpu":
        nodes = len({place.node for place in group})
        return chip.link if nodes == 1 else min(chip.link, chip.node * len(group) / nodes)
    extents = [len(set(positions)) for positions in zip(*(place.coordinates for place in group), strict=True)]
    links = sum(2 if extent > 2 else 1 for extent in extents if extent > 1)
    return chip.link * (links or 2 * chip.axes)


def estimate(
    chip: Chip,
    *,
    flops: float,
    bytes_moved: float,
    network: Sequence[tuple[float, float]],
    model_flops: dict[str, float],
) -> dict[str, Any]:
    """Returns seconds of each term and of the step, and the bound on model FLOP utilisation (MFU; Chowdhery et al. 2022, appendix B).

    All per device and step: `flops` and `bytes_moved` of the compiled program, `network` (bytes sent, bytes/s) of each collective,
    `model_flops` by convention, without what is computed twice.
    """
    terms = {
        "compute_seconds": flops / chip.flops,
        "memory_seconds": bytes_moved / chip.bandwidth,
        "network_seconds": sum(count / rate for count, rate in network),
    }
    step = max(terms.values())
    return {
        "note": "an estimate: the longest of three terms at peak rates; a real step takes longer",
        "step_seconds": step,
        **terms,
        "bound_by": max(terms, key=lambda name: terms[name]).removesuffix("_seconds"),
        "mfu_bound": {name: count / chip.flops / step if step else None for name, count in model_flops.items()},
    }
