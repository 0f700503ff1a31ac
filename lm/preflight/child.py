"""`python -m lm.preflight.child REQUEST RESULT`: compiles one training step for a topology, in a process of its own.

A compiler may crash, hang, or write what it likes on stderr; the parent (lm.preflight.job) sees a result file, or its absence. Lines on
stdout name what is being done.
"""

import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any, Optional

import jax

from lm import config as config_lib
from lm.errors import UserError
from lm.preflight import refusal, report
from lm.preflight.targets import target_text
from lm.preflight.topologies import Topology, parse
from lm.train import derived, program
from lm.train.build import BuiltRun, build
from lm.train.config import RunConfig

ORPHANED = 3  # exit status when the parent is gone
# Which of XLA's own kernels multiplies matrices best is measured on a GPU. Where there is none its first guess may not compile at all, so
# cuBLAS multiplies; whatever else the run's options say stands.
OPTIONS: dict[str, dict[str, Any]] = {"tpu": {}, "gpu": {"xla_gpu_autotune_level": 0, "xla_gpu_enable_triton_gemm": False}}


def devices_of(topology: Topology) -> list:
    """Returns descriptions of the topology's devices, in the order in which a run would see them."""
    from jax.experimental.topologies import get_topology_desc

    chip, shape = topology.chip, topology.shape
    if chip.kind == "gpu":
        # partitions x hosts of each x GPUs of each: JAX gives every node that NVLink does not leave a partition of its own
        layout: Any = {"topology": f"{shape[0]}x1x{shape[1]}", "target_config": target_text(chip.name)}
        return list(get_topology_desc(platform="cuda", topology_name=chip.name, **layout).devices)
    options: dict[str, Any] = {"chip_config_name": "megacore"} if chip.name == "v4" else {}  # two cores as one device, as on Cloud TPU
    if shape == (1,) * len(shape):
        options["chips_per_host_bounds"] = (1, 1, 1)
    return list(get_topology_desc(platform="tpu", topology_name=f"{chip.name}:{'x'.join(map(str, shape))}", **options).devices)


def lower(config: RunConfig, devices: list) -> tuple[BuiltRun, program.Lowered]:
    """Lowers what `lm.run` would compile for these devices: the same `build`, and the same functions of the same shape."""
    shape = derived.shape_of(config)
    parts = build(config, devices)
    return parts, program.lower(shape, parts.model, parts.mesh)


def preflight(config: RunConfig, topology: Topology, hlo: Optional[str] = None) -> dict[str, Any]:
    """Returns the JSON object of `python -m lm.preflight`, and writes the program's text to the file `hlo`."""
    print("reading the topology", flush=True)
    devices = devices_of(topology)
    print("lowering", flush=True)
    start = time.monotonic()
    parts, lowered = lower(config, devices)
    lowering = time.monotonic() - start
    print("compiling", flush=True)
    start = time.monotonic()
    found = report.before(config, topology, parts, lowered)
    try:
        with jax.set_mesh(parts.mesh):
            compiled = lowered.run.compile((program.compiler_options(parts.mesh) or {}) | OPTIONS[topology.kind])
    except jax.errors.JaxRuntimeError as error:
        needs = refusal.out_of_memory(str(error))
        if needs is None:
            raise
        return found | {"lower_seconds": lowering, "compile_seconds": time.monotonic() - start} | report.refused(needs, topology)
    seconds = {"lower_seconds": lowering, "compile_seconds": time.monotonic() - start}
    print("reading the program", flush=True)
    text = compiled.as_text()
    if hlo is not None:
        Path(hlo).write_text(text, encoding="utf-8")
    return found | seconds | report.after(config, topology, parts, compiled.memory_analysis(), text)


def main() -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    request, result = (Path(word) for word in sys.argv[1:3])
    asked = json.loads(request.read_text(encoding="utf-8"))
    try:
        answer = preflight(config_lib.from_dict(RunConfig, asked["config"]), parse(asked["topology"]), asked["hlo"])
    except UserError as error:
        answer = {"error": str(error)}
    except jax.errors.JaxRuntimeError as error:
        answer = {"error": f"the compiler failed: {' '.join(str(error).split())[:400]}"}
    part = result.with_suffix(".part")
    part.write_text(json.dumps(answer), encoding="utf-8")
    part.rename(result)


def _end_with_parent() -> None:
    """Ends this process with its parent, which holds the other end of stdin: it closes however the parent ends."""
    while os.read(0, 1):
        pass
    os._exit(ORPHANED)


if __name__ == "__main__":
    main()
