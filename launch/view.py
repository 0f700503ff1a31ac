"""The progress of a running study: tqdm's bar on a terminal, plain lines elsewhere."""

import time
from typing import Any, Optional, TextIO

from tqdm import tqdm

from lm.errors import counted
from lm.study import eta, naming, records
from lm.study.status import CellStatus, Status

EVERY_SECONDS = 30.0  # between plain lines while no cell ends
FORMAT = "{n_fmt}/{total_fmt} [{elapsed}<LEFT, {rate_fmt}{postfix}]"  # of the bar, and of a plain line
UNIT: Any = {"unit": "FLOP", "unit_scale": True}


class View:
    """Writes a line for each cell that ends and shows FLOPs done, the time left and the last loss.

    The time left is that of `lm.study.eta`, with as many cells at a time as this session has seen.
    """

    def __init__(self, out: TextIO):
        self._out = out
        self._bar: Optional[tqdm] = None
        self._seen: set[str] = set()
        self._last = ""
        self._began, self._flops_before = time.monotonic(), 0.0
        self._said = self._began
        self._workers = 0  # the most cells that have run at a time

    def start(self, state: Status) -> None:
        """Begins at `state`; the bar counts the FLOPs of all cells, those of earlier sessions included."""
        self._began, self._flops_before = time.monotonic(), state.flops_done
        self._seen = {c.cell["id"] for c in state.cells if c.state in records.FINISHED}
        if self._seen and len(self._seen) < len(state.cells):
            failed = f", and {state.count('failed')} of them failed" if state.count("failed") else ""
            self._line(f"{len(self._seen)} of {counted(len(state.cells), 'cell')} have ended already{failed}")
        self._bar = tqdm(
            total=state.flops,
            initial=state.flops_done,
            file=self._out,
            disable=not self._out.isatty(),
            smoothing=0,  # the mean rate of the session
            leave=False,
            dynamic_ncols=True,
            **UNIT,
        )

    def update(self, state: Status) -> None:
        """Writes the cells that have ended since the last call, and brings the bar up to date."""
        assert self._bar is not None, "start comes first"
        for c in state.cells:
            if c.state in records.FINISHED and c.cell["id"] not in self._seen:
                self._seen.add(c.cell["id"])
                self._last = f", last {c.loss:.4f} {c.unit}" if c.loss is not None else f", last {c.state}"
                self._line(f"[{len(self._seen)}/{len(state.cells)}] {_describe(c)}")
        # A run that goes on from its checkpoint has done less than it had when it was killed.
        self._flops_before = self._bar.initial = min(self._flops_before, state.flops_done)
        self._workers = max(self._workers, state.count("running"))
        left = eta.seconds_left(state.cells, self._workers)
        shape = FORMAT.replace("LEFT", "?" if left is None else tqdm.format_interval(left))
        summary = f"{state.finished}/{counted(len(state.cells), 'cell')}, {state.count('running')} running{self._last}"
        if not self._bar.disable:
            self._bar.set_postfix_str(summary, refresh=False)
            self._bar.n = state.flops_done
            self._bar.bar_format = "{l_bar}{bar}| " + shape
            self._bar.refresh()
        elif time.monotonic() - self._said > EVERY_SECONDS:
            elapsed, before = time.monotonic() - self._began, self._flops_before
            shape = "{percentage:3.0f}%| " + shape
            meter = tqdm.format_meter(state.flops_done, state.flops, elapsed, bar_format=shape, postfix=summary, initial=before, **UNIT)
            self._line(meter)

    def close(self) -> None:
        """Removes the bar."""
        if self._bar is not None:
            self._bar.close()

    def _line(self, text: str) -> None:
        """Writes a line, above the bar where there is one."""
        tqdm.write(text, file=self._out)
        self._out.flush()
        self._said = time.monotonic()


def _describe(c: CellStatus) -> str:
    name = naming.short(c.cell)
    if c.state != "completed":
        return f"{name}: {c.state}, {c.reason}"
    return f"{name}: {c.loss:.4f} {c.unit}, {c.cell['steps']:,} steps, {c.seconds:.1f} s"
