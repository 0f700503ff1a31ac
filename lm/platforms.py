"""What `lm` says to jax before it looks for devices, unless the user has said it (imports no jax). It runs when `lm` is first imported.

libtpu and the CUDA plugin, installed for lm.preflight, look for devices whenever jax starts, and complain of what they do not find: on a
machine without any, jax is told to use the CPU. And virtual devices are given threads.
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
# Of each virtual device. XLA's pools have as many as there are cores, or one for each device where those are more: all may come to wait in
# collectives, and the call never ends.
THREADS = 4


def settle(environment: MutableMapping[str, str] = os.environ, devices: tuple[str, ...] = DEVICES) -> None:
    """Has jax use the CPU alone if a compiler is installed, nothing hints at an accelerator, and the user says nothing. Where the user asks
    for several virtual devices, XLA makes threads enough for them, whatever the number of cores."""
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
    """How many XLA is to make for so many virtual devices."""
    return max(THREADS * devices, os.cpu_count() or 1)


def installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # its parent package is missing
        return False


def virtual_devices(environment: Mapping[str, str]) -> int:
    """How many CPU devices the environment asks of jax; 1 where it says nothing."""
    flag = re.search(r"--xla_force_host_platform_device_count=(\d+)", environment.get("XLA_FLAGS", ""))
    asked = environment.get("JAX_NUM_CPU_DEVICES", "")
    return max(int(asked) if asked.isdecimal() else 1, int(flag[1]) if flag else 1)
