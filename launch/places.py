"""The places of workers on this machine: what each has to itself, a core or some GPUs (imports no jax)."""

import dataclasses
import os
import shutil
import subprocess
from typing import Optional

from lm import platforms
from lm.errors import UserError

MEMORY = "0.92"  # share of a GPU's memory that its one worker takes at the start; the rest is the driver's and the libraries'
PLUGINS = ("jax_cuda13_plugin", "jax_cuda12_plugin", "jax_plugins.xla_cuda13", "jax_plugins.xla_cuda12")


@dataclasses.dataclass(frozen=True)
class Place:
    """The place of one worker, with what it has to itself: its name in the log's name, the worker's flags, and environment variables."""

    name: str
    flags: tuple[str, ...] = ()
    environment: dict[str, str] = dataclasses.field(default_factory=dict)


def places(devices: int = 1, workers: Optional[int] = None) -> list[Place]:
    """Returns the places of workers for cells of a number of devices.

    With GPUs, each worker gets so many of its own. Without, one of a single device gets a core of its own; one of several gets all cores,
    and each of its devices is a share of them.

    Args:
        devices: the devices of a cell
        workers: the number of workers (default: as many as fit)

    Raises: UserError for more devices or workers than fit.
    """
    if found := gpus():
        fitting = [_on_gpus(found[i : i + devices]) for i in range(0, len(found) - devices + 1, devices)]
        if not fitting:
            raise UserError(f"a cell needs {devices} GPUs and this machine shows {len(found)}: train it with --backend=slurm or kubernetes")
        workers = workers and min(workers, len(fitting)) if devices > 1 else workers  # those of small cells were asked for
        return fitting[: _count(workers, len(fitting), f"{devices} of the {len(found)} GPUs that it shows" if devices > 1 else "a GPU")]
    if devices > 1:
        environment = {"JAX_NUM_CPU_DEVICES": str(devices)}
        return [Place(f"cpu-x{devices}", environment=environment)][: _count(workers and min(workers, 1), 1, "all cores")]
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [None] * (os.cpu_count() or 1)
    every = [Place(str(core), (f"--cores={core}",)) if core is not None else Place("all") for core in cores]
    return every[: _count(workers, len(every), "a core")]


def gpus() -> list[str]:
    """Returns the GPUs that JAX would use here, as CUDA_VISIBLE_DEVICES names them; [] without any, or without JAX's plugin."""
    chosen = os.environ.get("JAX_PLATFORMS", "cuda")
    if not any(name in chosen.split(",") for name in ("cuda", "gpu")) or not any(map(platforms.installed, PLUGINS)):
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name.strip() for name in visible.split(",") if name.strip() and name.strip() != "-1"]
    if shutil.which("nvidia-smi") is None:
        return []
    asked = subprocess.run(
        ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"], capture_output=True, text=True, check=False, timeout=60
    )
    return asked.stdout.split() if asked.returncode == 0 else []


def _on_gpus(names: list[str]) -> Place:
    environment = {"CUDA_VISIBLE_DEVICES": ",".join(names), "XLA_PYTHON_CLIENT_MEM_FRACTION": MEMORY}
    return Place("gpu-" + "-".join(name.replace("/", "_") for name in names), environment=environment)


def _count(workers: Optional[int], fitting: int, what: str) -> int:
    if workers is not None and not 0 < workers <= fitting:
        raise UserError(f"--workers={workers}: {fitting} fit on this machine, and each worker needs {what}; give 1 to {fitting}")
    return fitting if workers is None else workers
