"""Descriptions of NVIDIA GPUs for XLA's compiler, which asks a device for these facts when it has one (imports no jax).

The text is a `stream_executor.GpuTargetConfigProto`. Figures of an SM: NVIDIA, "CUDA C++ Programming Guide", table "Technical
Specifications per Compute Capability"; numbers of SMs, L2 caches, clocks: NVIDIA's architecture papers of Hopper (H100 SXM5) and
Blackwell (HGX B200). Memory and its bandwidth are those of lm.preflight.topologies.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

from lm.preflight.topologies import CHIPS


@dataclasses.dataclass(frozen=True)
class Gpu:
    """One model of GPU: name as the driver reports it, compute capability, SMs, bytes of L2, boost clock in GHz."""

    name: str
    capability: tuple[int, int]
    cores: int
    l2_bytes: int
    clock_ghz: float


GPUS = {
    "h100": Gpu("NVIDIA H100 80GB HBM3", (9, 0), 132, 50 * 2**20, 1.98),
    "h200": Gpu("NVIDIA H200", (9, 0), 132, 50 * 2**20, 1.98),
    "b200": Gpu("NVIDIA B200", (10, 0), 148, 126 * 2**20, 1.965),
}
# Equal for capabilities 9.0 and 10.0.
PER_SM = {
    "threads_per_block_limit": 1024,
    "threads_per_warp": 32,
    "shared_memory_per_block": 48 * 1024,
    "shared_memory_per_block_optin": 227 * 1024,
    "shared_memory_per_core": 228 * 1024,
    "threads_per_core_limit": 2048,
    "fpus_per_core": 128,
    "registers_per_core_limit": 64 * 1024,
    "registers_per_block_limit": 64 * 1024,
    "block_dim_limit_x": 2**31 - 1,
    "block_dim_limit_y": 65_535,
    "block_dim_limit_z": 65_535,
    "thread_dim_limit_x": 1024,
    "thread_dim_limit_y": 1024,
    "thread_dim_limit_z": 64,
    "device_address_bits": 64,
}
CUDNN = (9, 10, 0)  # what the compiler may count on; features of later ones stay unused
CUDA = "13.0.0"


def target_text(name: str) -> str:
    """Returns the description of the GPU called `name` in lm.preflight.topologies."""
    gpu, chip = GPUS[name], CHIPS[name]
    major, minor = gpu.capability
    dnn = dict(zip(("major", "minor", "patch"), CUDNN, strict=True))
    info = PER_SM | {
        "name": gpu.name,
        "device_vendor": "NVIDIA Corporation",
        "core_count": gpu.cores,
        "l2_cache_size": gpu.l2_bytes,
        "clock_rate_ghz": gpu.clock_ghz,
        "memory_bandwidth": int(chip.bandwidth),
        "device_memory_size": chip.memory,
        "cuda_compute_capability": {"major": major, "minor": minor},
        "runtime_version": CUDA,
        "compile_time_toolkit_version": CUDA,
        "driver_version": CUDA,
        "dnn_version": ".".join(map(str, CUDNN)),
    }
    fields = {"gpu_device_info": info, "platform_name": "CUDA", "dnn_version_info": dnn, "device_description_str": gpu.name}
    return "\n".join(_lines(fields)) + "\n"


def _lines(fields: dict[str, Any], indent: str = "") -> Iterator[str]:
    for name, value in fields.items():
        if isinstance(value, dict):
            yield f"{indent}{name} {{"
            yield from _lines(value, indent + "  ")
            yield f"{indent}}}"
        else:
            yield f"{indent}{name}: " + (f'"{value}"' if isinstance(value, str) else str(value))
