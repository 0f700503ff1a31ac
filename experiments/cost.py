"""The costs of a plan on devices that need not be there: hours, memory, money, energy (imports no jax).

`python -m experiments NAME plan --device=gpu:h100 --at-once=64 --price=2.5`. Times are FLOPs over an assumed share of the peak rate, and
memory is by formula; `plan --topology` compiles every shape and knows better.
"""

import collections
import dataclasses
import textwrap
from typing import Optional

from lm.errors import UserError, counted
from lm.preflight import formula, topologies
from lm.scaling.words import aligned, si
from lm.study.plan import Plan, Planned
from lm.study.plan_table import WIDTH, Estimates, duration
from lm.train.memory import device_bytes

STEP = 1e-3  # seconds: a step of fewer is bound by what starts its kernels, and not by FLOPs
MFU = 0.4  # assumed where nobody says: what well-tuned Transformers reach (Chowdhery et al. 2022, table 3: 21 to 46%)


@dataclasses.dataclass(frozen=True)
class Terms:
    """The terms of a plan's costs: the devices, what they do, and what they cost.

    Attributes:
        chip: the device
        mfu: the assumed share of its peak rate
        at_once: devices that are at work at a time (default: those of the largest cell)
        price: of one device for an hour
        watts: of one device, with its share of host and cooling
        co2: kilograms for a kilowatt-hour
    """

    chip: topologies.Chip
    mfu: float = MFU
    at_once: Optional[int] = None
    price: Optional[float] = None
    watts: Optional[float] = None
    co2: Optional[float] = None


def terms(device: str, **given: Optional[float]) -> Terms:
    """Returns the terms that flags give; `device` is KIND:NAME. Raises UserError for unknown devices and numbers that are not positive."""
    chip = topologies.CHIPS.get(device.rpartition(":")[2])
    if chip is None or device not in (f"{chip.kind}:{chip.name}", chip.name):
        raise UserError(f"--device={device}: there are {topologies.known()}")
    values = {name: value for name, value in given.items() if value is not None}
    if wrong := [name for name, value in values.items() if not 0 < value < float("inf")]:
        raise UserError(f"--{wrong[0].replace('_', '-')}={values[wrong[0]]:g}: give a number above 0")
    if values.get("mfu", MFU) > 1:
        raise UserError(f"--mfu={values['mfu']:g}: give the share of the peak rate that is reached, such as 0.4")
    if "co2" in values and "watts" not in values:
        raise UserError("--co2 needs --watts: the power of one device")
    return Terms(chip, **values)  # type: ignore[arg-type]


def hours(planned: Planned, how: Terms) -> float:
    """Returns the hours of a cell on its devices."""
    return planned.flops["matmul_causal"] / (planned.cell.devices * how.chip.flops * how.mfu) / 3600


def memory(planned: Planned, how: Terms) -> float:
    """Returns the bytes of one device under the cell's mesh, by formula."""
    return device_bytes(planned.cell.config, how.chip.kind)


def estimates(how: Terms) -> Estimates:
    """Returns where a plan's times and memory come from."""
    device = f"{how.chip.kind}:{how.chip.name}"
    words = f"time: of a cell on its devices, {device}. memory: of one device, by formula."
    return Estimates(lambda p: 3600 * hours(p, how), lambda p: memory(p, how), words)


def least_hours(plan: Plan, how: Terms) -> float:
    """Returns the hours of the whole plan at the least: each stage has its work to share out, and its longest cell to wait for.

    Raises UserError for fewer devices at once than a cell needs.
    """
    largest = max(p.cell.devices for p in plan.planned)
    if how.at_once is not None and how.at_once < largest:
        raise UserError(f"--at-once={how.at_once:g}: a cell needs {counted(largest, 'device')} at once; give as many or more")
    at_once = how.at_once or max(p.cell.devices for p in plan.planned)
    total = 0.0
    for stage in sorted({p.cell.stage for p in plan.planned}):
        cells = [p for p in plan.planned if p.cell.stage == stage]
        shared = sum(hours(p, how) * p.cell.devices for p in cells) / at_once
        total += max(shared, max(hours(p, how) for p in cells))
    return total


def too_large(plan: Plan, how: Terms) -> list[str]:
    """Returns a line for each shape that surely does not fit into a device: the formula is good to a factor of `formula.WITHIN`."""
    lines = {}
    for p in plan.planned:
        if memory(p, how) / formula.WITHIN > how.chip.memory:
            name = f"{p.shape['d_model']}x{p.shape['num_layers']} on {counted(p.cell.devices, 'device')}"
            sizes = f"about {memory(p, how) / 1e9:,.0f} GB a device, and {how.chip.name} has {how.chip.memory / 1e9:.0f} GB"
            lines[name] = f"{name}: {sizes}: give it a larger mesh, remat or micro-batches by the study's `execution`"
    return list(lines.values())


def render(plan: Plan, how: Terms) -> str:
    """Returns the costs as text: a line for each size and mesh, and totals."""
    rows: dict[tuple, list[Planned]] = collections.defaultdict(list)
    for p in plan.planned:
        rows[p.shape["d_model"], p.shape["num_layers"], p.params["total"], p.cell.devices, _mesh(p)].append(p)
    unit, size = _unit(plan, how)
    head = ["shape", "N total", "devices", "mesh", "cells", "time of one", unit, "memory/device"]
    table = []
    for (width, depth, params, devices, mesh), cells in sorted(rows.items(), key=lambda item: item[0][2]):
        times = sorted(hours(p, how) for p in cells)
        span = " to ".join(dict.fromkeys(duration(3600 * time) for time in (times[0], times[-1])))
        share = max(memory(p, how) for p in cells) / how.chip.memory
        doubt = "" if share * formula.WITHIN < 1 else " (compile)" if share / formula.WITHIN <= 1 else " (too large)"
        line = [f"{width}x{depth}", si(params, 3, zeros=True), str(devices), mesh, str(len(cells)), span]
        table.append([*line, _number(sum(times) * devices * size), ("<1%" if share < 0.01 else f"{share:.0%}") + doubt])
    said = f"Memory is by formula, of {how.chip.memory / 1e9:.0f} GB; (compile): too close to tell, `plan --topology` compiles it."
    return "\n".join([*aligned(head, table, indent=""), textwrap.fill(said, WIDTH), "", textwrap.fill(_totals(plan, how), WIDTH)])


def _mesh(p: Planned) -> str:
    sizes = {axis: getattr(p.cell.config.mesh, axis) for axis in formula.AXES}
    split = " ".join(f"{axis}={size}" for axis, size in sizes.items() if size > 1)
    how = p.cell.config.execution
    rest = [f"remat={how.remat}"] if how.remat != "none" else []
    rest += [f"micro_batches={how.micro_batches}"] if how.micro_batches > 1 else []
    return " ".join([*([split] if split else []), *rest]) or "-"


def _unit(plan: Plan, how: Terms) -> tuple[str, float]:
    """Returns the unit of devices' time that suits a plan, and how many of it an hour has."""
    total = sum(hours(p, how) * p.cell.devices for p in plan.planned)
    return ("device-hours", 1.0) if total >= 0.1 else ("device-seconds", 3600.0)


def _number(value: float) -> str:
    """Returns a number with three digits, or whole from 100 on."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _totals(plan: Plan, how: Terms) -> str:
    device_hours = sum(hours(p, how) * p.cell.devices for p in plan.planned)
    at_once = how.at_once or max(p.cell.devices for p in plan.planned)
    device = f"{how.chip.kind}:{how.chip.name}"
    unit, size = _unit(plan, how)
    said = f"{counted(len(plan.planned), 'cell')}, {_number(device_hours * size)} {unit} on {device} at an assumed {how.mfu:.0%} of "
    least = duration(3600 * least_hours(plan, how), " ")
    devices = counted(at_once, "device") + " at once" * (at_once > 1)
    said += f"{how.chip.flops / 1e12:,.0f} TFLOP/s (MFU); at least {least} with {devices}"
    if how.price is not None:
        money = device_hours * how.price
        said += f"; {money:,.2f} at {how.price:g} a device-hour" if money >= 1 else f"; {money:.3g} at {how.price:g} a device-hour"
    if how.watts is not None:
        energy = device_hours * how.watts / 1000
        said += f"; {_number(energy)} kWh at {how.watts:g} W a device"
        said += f", {_number(energy * how.co2)} kg of CO2 at {how.co2:g} kg/kWh" if how.co2 is not None else ""
    short = sum(3600 * hours(p, how) < STEP * p.cell.steps for p in plan.planned)
    if short:
        said += f". In {counted(short, 'cell')} a step would take less than {duration(STEP, ' ')}: starting its kernels takes longer than"
        said += " their FLOPs, so that these times are too short by far"
    return said + "."
