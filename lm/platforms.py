"""Chooses JAX's platform and its number of threads when `lm` is first imported, unless the user has chosen (imports no jax).

libtpu and the CUDA plugin, which lm.preflight needs, look for devices whenever JAX starts and complain when there are none. So on a machine
without an accelerator JAX is told to use the CPU. Virtual CPU devices get threads enough for their collectives.
"""

import glob
import importlib.util
import os
import re
import sys
from collections.abc import Mapping, MutableMapping

# Device files of NVIDIA's driver (on Windows' Linux: dxg), of TPUs (two generations of drivers), and of AMD's driver.
DEVICES = ("/dev/nvidia[0-9]*", "/dev/nvidiactl", "/dev/dxg", "/dev/accel*", "/dev/vfio/[0-9]*", "/dev/kfd")
SAID = ("JAX_PLATFORMS", "JAX_PLATFORM_NAME", "TPU_NAME", "TPU_WORKER_HOSTNAMES", "PJRT_DEVICE")
COMPILERS = ("libtpu", "jax_plugins.xla_cuda13", "jax_plugins.xla_cuda12")
# Threads per virtual device. XLA's pools have one thread per core, or one per device if there are more devices than cores. All of them may
# wait in collectives at once, and then the call never ends.
THREADS = 4


def set_default_platform(environment: MutableMapping[str, str] = os.environ, devices: tuple[str, ...] = DEVICES) -> None:
    """Sets JAX_PLATFORMS=cpu if a compiler for accelerators is installed, no accelerator is in sight and the user has not chosen.

    If the environment asks for several virtual CPU devices, it also sets the number of XLA's threads to one that suffices for them.

    Args:
      environment: the environment variables, which are read and changed.
      devices: patterns of the device files of accelerators.
    """
    if (several := virtual_devices(environment)) > 1:
        environment.setdefault("PJRT_NPROC", str(threads(several)))
    if any(name in environment for name in SAID) or not any(installed(name) for name in COMPILERS):
        return
    if any(glob.glob(pattern) for pattern in devices):
        return
    environment["JAX_PLATFORMS"] = "cpu"
    if "jax" in sys.modules:  # has read its environment already
        sys.modules["jax"].config.update("jax_platforms", "cpu")


def threads(devices: int) -> int:
    """Returns how many threads XLA should make for this many virtual devices."""
    return max(THREADS * devices, os.cpu_count() or 1)


def installed(module: str) -> bool:
    """Returns whether a module can be imported, without importing it."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # its parent package is missing
        return False


def virtual_devices(environment: Mapping[str, str]) -> int:
    """Returns how many CPU devices the environment asks for (default: 1)."""
    flag = re.search(r"--xla_force_host_platform_device_count=(\d+)", environment.get("XLA_FLAGS", ""))
    asked = environment.get("JAX_NUM_CPU_DEVICES", "")
    return max(int(asked) if asked.isdecimal() else 1, int(flag[1]) if flag else 1)
