"""Bytes, FLOPs, collectives and times of a compiled step, as JSON values."""

from typing import Any

import jax
from jax.sharding import Mesh

from lm.model.execution import Pipeline
from lm.model.flops import ledger
from lm.preflight.hlo import analyse
from lm.preflight.roofline import Place, bandwidth, estimate
from lm.preflight.topologies import Topology
from lm.train.build import BuiltRun, execution_of
from lm.train.config import RunConfig
from lm.train.derived import row_of, tokens_per_step
from lm.train.placement import on_one_device
from lm.train.program import Lowered


def before(config: RunConfig, topology: Topology, parts: BuiltRun, lowered: Lowered) -> dict[str, Any]:
    """Returns the fields that are known before anything is compiled."""
    how = config.execution
    pipeline = execution_of(how, parts.mesh).pipeline
    return {
        "topology": topology.text,
        "devices": topology.devices,
        "device_kind": parts.mesh.devices.flat[0].device_kind,
        "mesh": {axis: size for axis, size in parts.mesh.shape.items() if size > 1},
        "execution": {"remat": how.remat, "micro_batches": how.micro_batches, "unroll": how.unroll},
        "attention": parts.attention,
        "pipeline": None if pipeline is None else _pipeline(pipeline),
        "state_bytes": {"parameters": on_one_device(lowered.state.params), "optimizer": on_one_device(lowered.state.opt_state)},
        "jax": jax.__version__,
    }


def _pipeline(pipeline: Pipeline) -> dict[str, Any]:
    names = ("stages", "repeats", "micro_batches", "bubble")
    return {name: getattr(pipeline, name) for name in names}


def refused(needs: dict[str, Any], topology: Topology) -> dict[str, Any]:
    """Returns the fields of a program that the compiler refused for the device's memory: a result like any other."""
    memory = {"memory": topology.chip.memory, "needed": needs["bytes"], "needed_for": needs["what"]}
    empty = dict.fromkeys(("flops_per_device", "collectives", "estimate"))
    return {"fits": False, "bytes_per_device": memory, "compiler_said": needs["said"], **empty}


def after(config: RunConfig, topology: Topology, parts: BuiltRun, stats: Any, text: str) -> dict[str, Any]:
    """Returns the fields that follow from the executable and its text."""
    sizes = bytes_of(stats)
    sizes["memory"] = topology.chip.memory
    fits = sizes["peak"] <= sizes["memory"]
    return {"fits": fits, "bytes_per_device": sizes} | _work(config, topology, parts.mesh, text)


def bytes_of(stats: Any) -> dict[str, int]:
    """Returns the bytes of memory that a compiled program needs on one device.

    Outputs that take the place of donated arguments are counted once, in `aliased`. `peak` is the most at once as the compiler places
    buffers. libtpu accepts programs whose `total` is beyond the memory and whose peak is not.
    """
    names = ("argument", "output", "alias", "temp", "generated_code")
    arguments, outputs, aliased, temporaries, code = (getattr(stats, f"{name}_size_in_bytes") for name in names)
    host = stats.host_argument_size_in_bytes + stats.host_temp_size_in_bytes
    total = arguments + outputs - aliased + temporaries + code
    return {
        "arguments": arguments,
        "outputs": outputs,
        "aliased": aliased,
        "temporaries": temporaries,
        "code": code,
        "total": total,
        "peak": stats.peak_memory_in_bytes or total,
        **({"host": host} if host else {}),
    }


def _work(config: RunConfig, topology: Topology, mesh: Mesh, text: str) -> dict[str, Any]:
    counts, per_device = ledger(config.model, row_of(config)), tokens_per_step(config) / topology.devices
    model_flops = {name: count * per_device for name, count in counts.flops_per_token.items()}
    found = analyse(text, mesh)
    flops = {"compiled": found.flops, **model_flops}
    rates = [bandwidth(topology.chip, _group(mesh, c.axes)) for c in found.collectives]
    products = {name: model_flops[name] for name in ("matmul_full", "matmul_causal")}
    network = [(c.wire, rate) for c, rate in zip(found.collectives, rates, strict=True)]
    times = estimate(topology.chip, flops=found.flops, bytes_moved=found.bytes_moved, network=network, model_flops=products)
    collectives = [{"kind": c.kind, "axes": list(c.axes), "bytes": c.payload, "sent": c.wire, "count": c.count} for c in found.collectives]
    return {"flops_per_device": flops, "bytes_moved_per_device": found.bytes_moved, "collectives": collectives, "estimate": times}


def _group(mesh: Mesh, axes: Any) -> list[Place]:
    """Returns the devices with which one device exchanges data along some axes; all of them where the axes are unknown."""
    names = mesh.axis_names
    if not all(axis in names for axis in axes):
        axes = names
    inside = mesh.devices[tuple(slice(None) if axis in axes else 0 for axis in names)]
    return [Place(d.process_index, tuple(getattr(d, "coords", ()))) for d in inside.flat]
