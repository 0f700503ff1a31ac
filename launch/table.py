"""The state of a study as text: a line for each group of cells, for each running cell, and for each kind of workers in a queue."""

import collections
import pathlib
import re
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from typing import Optional, TextIO

from launch import logs, scheduled
from launch.backend import Job
from lm.errors import counted
from lm.preflight.topologies import CHIPS, Chip
from lm.scaling.words import aligned, short, si
from lm.study import eta, naming, speed, states
from lm.study.plan_table import duration
from lm.study.status import CellStatus, Status, excluded

WATCH_SECONDS = 2.0
MOST_RUNNING = 40  # lines of running cells
TPU_NAMES = {"v5 lite": "v5e", "v6 lite": "v6e"}  # the names of some devices in JAX, and the manufacturer's


def render(status: Status, root: pathlib.Path, retry: str, queue: Sequence[Job] = ()) -> str:
    """Returns a study's state as text.

    Args:
        status: the state of the study
        root: the study's directory
        retry: the command that trains failed cells again
        queue: the live jobs in a scheduler's queue
    """
    workers = [scheduled.queue_words(queue)] if queue else _nobody(status, root)
    parts = [_groups(status.cells), _running(status.cells), workers, excluded(status, root, retry)]
    lines = [line for part in parts if part for line in (*part, "")]
    return "\n".join([*lines, _total(status, root)])


def _nobody(status: Status, root: pathlib.Path) -> list[str]:
    """Returns the last words of a scheduler's workers where cells are left, and no worker is there or on its way."""
    if status.finished == len(status.cells) or status.count("running"):
        return []
    words = logs.last_words(root)
    return [f"no worker is in a queue or trains; the last one, {words}"] if words else []


def _groups(cells: Sequence[CellStatus]) -> list[str]:
    """Returns a table of the groups of cells, with a column for each state that occurs."""
    found = [state for state in ("completed", *states.STATES) if any(c.state == state for c in cells)]
    shown = list(dict.fromkeys(["completed", *found]))
    groups: dict[str, list[CellStatus]] = collections.defaultdict(list)
    for c in cells:
        groups[naming.group(c.cell)].append(c)
    rows = [
        [name, str(len(members)), *(str(sum(c.state == state for c in members) or "-") for state in shown)]
        for name, members in groups.items()
    ]
    return aligned(["", "cells", *shown], rows, indent="", left=(0,))


def _running(cells: Sequence[CellStatus]) -> list[str]:
    """Returns a table of the running cells: how far they are, how fast, and when they end."""
    running = [c for c in cells if c.state == "running"]
    rows = []
    for c in running[:MOST_RUNNING]:
        rate = _flops_per_second(c)
        left = (1 - c.progress) * c.cell["tokens"] / c.tokens_per_second if c.tokens_per_second else None
        chip = _chip(c.device)
        rows.append([
            c.cell["id"], naming.short(c.cell), f"{c.step:,}/{c.cell['steps']:,}", "-" if c.loss is None else f"{c.loss:.3f}",
            "-" if c.tokens_per_second is None else si(c.tokens_per_second, 3), "-" if rate is None else si(rate, 3),
            "-" if rate is None or chip is None else f"{rate / (chip.flops * c.cell.get('devices', 1)):.0%}",
            "-" if left is None else duration(left),
        ])  # fmt: skip
    if not rows:
        return []
    more = [f"and {len(running) - MOST_RUNNING} more that run"] if len(running) > MOST_RUNNING else []
    head = ["running", "", "step", "loss", "tokens/s", "FLOP/s", "MFU", "left"]
    kept = [i for i in range(len(head)) if head[i] != "MFU" or any(row[i] != "-" for row in rows)]
    return [*aligned([head[i] for i in kept], [[row[i] for i in kept] for row in rows], indent="", left=(0, 1)), *more]


def _flops_per_second(c: CellStatus) -> Optional[float]:
    if c.tokens_per_second is None:
        return None
    return c.tokens_per_second * c.cell["flops"]["matmul_causal"] / max(c.cell["tokens"], 1)


def _chip(device: Optional[str]) -> Optional[Chip]:
    """Returns the device that a record names, such as "8 x NVIDIA H100 80GB HBM3"; None for one whose peak rate is not known."""
    name = (device or "").lower()
    for spoken, ours in TPU_NAMES.items():
        name = name.replace(spoken, ours)
    return next((chip for chip in CHIPS.values() if re.search(rf"\b{chip.name}\b", name)), None)


def _total(status: Status, root: pathlib.Path) -> str:
    """Returns the last line: cells by state, the work done, the time left, and whether a forecast is waited for."""
    others = "".join(f", {count} {state}" for state in reversed(states.STATES) if state != "completed" and (count := status.count(state)))
    total = f"{root}: {status.count('completed')}/{counted(len(status.cells), 'cell')} completed{others}; "
    total += short(f"{status.flops_done:.3g} of {status.flops:.3g} FLOPs")
    left = eta.seconds_left(status.cells)
    if left is not None:
        running = counted(status.count("running"), "cell")
        total += f", about {duration(left, ' ')} left with {running} at a time"
    elif status.finished < len(status.cells):
        planned = sum((1 - c.progress) * c.cell["seconds"] for c in status.cells if c.state in states.OPEN)
        known = speed.kept(root)
        total += f", {duration(planned, ' ')} of one worker left as planned" + (f" {known.words}" if known is not None else "")
    waiting = any(c.cell["stage"] for c in status.cells) and not status.forecast
    return total + ("; the forecast is not written yet" if waiting else "")


def watch(draw: Callable[[], tuple[str, bool]], out: TextIO = sys.stdout, seconds: float = WATCH_SECONDS) -> None:
    """Draws a text again and again, in place on a terminal, until it says that it is the last.

    Args:
        draw: returns the text, and whether it may change
        out: where it is drawn
        seconds: the time between two drawings
    """
    in_place = out.isatty()
    while True:
        text, changes = draw()
        if in_place:
            height = shutil.get_terminal_size().lines
            lines = text.splitlines()
            shown = lines if len(lines) < height else [*lines[: height - 3], "...", lines[-1]]
            out.write("\x1b[H\x1b[2J" + "\n".join(shown) + "\n")
        else:
            out.write(f"{time.strftime('%H:%M:%S')}\n{text}\n\n")
        out.flush()
        if not changes:
            return
        time.sleep(seconds)
