"""Checks, before a program is compiled, that the devices can hold a run's weights and the optimizer's moments at all."""

import os
from typing import Any, Optional

from lm.errors import UserError
from lm.train.build import BuiltRun
from lm.train.placement import abstract_state, on_one_device


def require_room(parts: BuiltRun) -> None:
    """Raises UserError where the state of a run is larger than the memory of a device: no program can then run, whatever it recomputes."""
    state = abstract_state(parts.config, parts.model, parts.mesh)
    needed = on_one_device(state.params)
    if not parts.config.execution.offload_optimizer:
        needed += on_one_device(state.opt_state)
    local = parts.mesh.local_devices
    room = memory_of(local[0], len(local))
    if room is not None and needed > room:
        raise UserError(
            f"weights and optimizer take {needed / 1e9:,.1f} GB on each device, which has {room / 1e9:,.1f} GB: split them with"
            " --config.mesh.fsdp or --config.mesh.tensor over more devices, or take a smaller model"
        )


def memory_of(device: Any, sharing: int) -> Optional[float]:
    """Returns the bytes of a device's memory; of `sharing` devices of the CPU, its part of the machine's. None where it is not known."""
    if device.platform == "cpu":
        try:
            return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / sharing
        except (ValueError, OSError, AttributeError):
            return None
    stats = device.memory_stats() or {}
    return stats.get("bytes_limit")
