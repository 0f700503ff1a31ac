"""Measures how fast this machine trains a study's cells: `python -m experiments NAME plan --calibrate`."""

import contextlib
import dataclasses
import os
import pathlib
import tempfile
from collections.abc import Callable, Sequence

from lm.errors import UserError, counted
from lm.study import worker
from lm.study.cell import Speed
from lm.study.plan import Planned
from lm.study.status import Status
from lm.train.config import CheckpointConfig, EvalConfig

STEPS = 64  # of each run, and at least two dispatches


def measure(planned: Sequence[Planned], before: Speed, data_dir: pathlib.Path, say: Callable[[str], None]) -> Speed:
    """Trains the smallest and the largest cell of one device for a few steps each and returns the speed that follows.

    On CPUs this process is bound to one core from here on, as each worker is.

    Args:
        planned: the cells
        before: the speed that the study states, of which the seconds for each cell and shape are kept
        data_dir: the folder of prepared data
        say: takes a line for each run

    Raises: UserError for a study whose cells all need several devices, or are all of one size.
    """
    alone = sorted((p for p in planned if p.cell.devices == 1), key=_flops_per_token)
    if not alone or _flops_per_token(alone[0]) == _flops_per_token(alone[-1]):
        raise UserError("--calibrate needs cells of two sizes that each train on one device: measure by hand, and set `speed` in the study")
    if hasattr(os, "sched_getaffinity") and not _has_gpu():
        worker.pin({min(os.sched_getaffinity(0))})
    times = [_seconds_per_token(p, data_dir, say) for p in (alone[0], alone[-1])]
    flops = [_flops_per_token(p) for p in (alone[0], alone[-1])]
    per_flop = max((times[1] - times[0]) / (flops[1] - flops[0]), 0.1 * times[1] / flops[1])  # noise must not make it negative
    per_token = max(times[0] - flops[0] * per_flop, 0.0)
    return dataclasses.replace(before, flops_per_second=float(f"{1 / per_flop:.3g}"), per_token=float(f"{per_token:.3g}"))


def _has_gpu() -> bool:
    from launch import places

    return bool(places.gpus())


def device() -> str:
    """Returns the name of the device that was measured, which for a CPU is its model's."""
    import jax

    kind = jax.devices()[0].device_kind
    with contextlib.suppress(OSError, StopIteration):
        if jax.devices()[0].platform == "cpu":
            lines = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
            return "a core of " + next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return kind


def _flops_per_token(p: Planned) -> float:
    return p.flops["matmul_causal"] / max(p.cell.config.train_tokens, 1)


def _seconds_per_token(p: Planned, data_dir: pathlib.Path, say: Callable[[str], None]) -> float:
    """Trains a cell for a few steps in a directory that is removed, without evaluation or checkpoints to speak of."""
    from lm.runner import train_run

    config = p.cell.config
    steps = max(STEPS, 2 * config.execution.steps_per_dispatch)
    short = dataclasses.replace(
        config,
        train_tokens=steps * p.cell.tokens_per_step,
        optim=dataclasses.replace(config.optim, warmup_tokens=0, warmup_fraction=0.1),
        evaluation=EvalConfig(documents_bytes=2_000, curve_bytes=1_000, points_per_decade=1),
        checkpoint=CheckpointConfig(keep=1),
        data_dir=str(data_dir),
    )
    with tempfile.TemporaryDirectory() as folder:
        record = train_run(short, pathlib.Path(folder) / "run")
    rate = record["seconds"]["train"] / record["tokens"]["document"]
    say(f"{p.shape['d_model']}x{p.shape['num_layers']}: {counted(steps, 'step')}, {1 / rate:,.0f} tokens/s on one device of this machine")
    return rate


def recorded(status: Status) -> str:
    """Says how long the cells that have ended took against their estimates; '' before any has."""
    ended = [c for c in status.cells if c.state == "completed" and c.seconds > 0]
    if not ended:
        return ""
    ratio = sum(c.seconds for c in ended) / sum(c.cell["seconds"] for c in ended)
    count = f"{counted(len(ended), 'cell')} that {'has' if len(ended) == 1 else 'have'} ended"
    return f"The {count} took {ratio:.2f} times the estimated time: expect the same of the rest."
