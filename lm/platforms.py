"""Silence where a compiler for accelerators is installed and no accelerator is (imports no jax).

libtpu and the CUDA plugin, installed for lm.preflight, look for devices whenever jax starts, and complain of what they do not find. So
`lm` says "cpu" to jax on a machine without any, unless the user has said anything. It runs when `lm` is first imported.
"""

import glob
import importlib.util
import os
import sys
from collections.abc import MutableMapping

# Device files of NVIDIA's driver (on Windows' Linux: dxg), of TPUs (two generations of drivers), and of AMD's driver.
DEVICES = ("/dev/nvidia[0-9]*", "/dev/nvidiactl", "/dev/dxg", "/dev/accel*", "/dev/vfio/[0-9]*", "/dev/kfd")
SAID = ("JAX_PLATFORMS", "JAX_PLATFORM_NAME", "TPU_NAME", "TPU_WORKER_HOSTNAMES", "PJRT_DEVICE")
COMPILERS = ("libtpu", "jax_plugins.xla_cuda13", "jax_plugins.xla_cuda12")


def settle(environment: MutableMapping[str, str] = os.environ, devices: tuple[str, ...] = DEVICES) -> None:
    """Has jax use the CPU alone if a compiler is installed, nothing hints at an accelerator, and the user says nothing."""
    if any(name in environment for name in SAID) or not any(installed(name) for name in COMPILERS):
        return
    if any(glob.glob(pattern) for pattern in devices):
        return
    environment["JAX_PLATFORMS"] = "cpu"
    if "jax" in sys.modules:  # has read its environment already
        sys.modules["jax"].config.update("jax_platforms", "cpu")


def installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # its parent package is missing
        return False
