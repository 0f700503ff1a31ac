"""The environment that a run's numbers depend on beside its configuration: versions, revision, device, cores."""

import functools
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any, Optional

import lm

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


def environment(*, attention_backend: str, devices: Optional[list] = None) -> dict[str, Any]:
    """Returns the environment as JSON values. XLA on CPU gives other bits on another number of `cores`."""
    import jax

    devices = jax.devices() if devices is None else devices
    versions = {name: _version(name) for name in PACKAGES}
    return {
        "python": platform.python_version(),
        "lm": lm.__version__,
        **versions,
        "git": git_revision(),
        "platform": devices[0].platform,
        "device": f"{len(devices)} x {devices[0].device_kind}",
        "machine": platform.machine(),
        "cpu": _cpu_name(),
        "cores": cores(),
        "processes": jax.process_count(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "attention": attention_backend,
    }


def cores() -> int:
    """Returns the number of cores that this process may use (its affinity, where the system has one)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.cache
def git_revision() -> Optional[str]:
    """Returns the git revision of this code, with "+changes" when the work tree differs; None outside its repository."""
    root = Path(__file__).resolve().parent

    def git(*words: str) -> str:
        return subprocess.run(("git", *words), cwd=root, capture_output=True, text=True, timeout=10, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)  # fails where the repository around is not of this code
        changed = git("status", "--porcelain", "--untracked-files=no", "--", "..")
        return git("rev-parse", "HEAD") + ("+changes" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _version(package: str) -> Optional[str]:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


@functools.cache
def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()
