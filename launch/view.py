"""The live view of a running study: a progress bar on a terminal, plain lines elsewhere."""

import time
from typing import Any, Optional, TextIO

from lm.study import locks, naming
from lm.study.status import CellStatus, Status

WIDTH = 24
EVERY_SECONDS = 30.0  # between plain lines while no cell ends


class View:
    """Shows cells and FLOPs done, the time left, and the last loss. The time left assumes this session's mean rate."""

    def __init__(self, out: TextIO):
        self._out, self._bar = out, out.isatty()
        self._seen: set[str] = set()
        self._start, self._flops_before = time.monotonic(), 0.0
        self._said, self._last = time.monotonic(), ""

    def start(self, state: Status) -> None:
        self._start, self._flops_before = time.monotonic(), state.flops_done
        self._seen = {c.cell["id"] for c in state.cells if c.state in locks.FINISHED}
        if self._seen and len(self._seen) < len(state.cells):
            self._line(f"{len(self._seen)} of {len(state.cells)} cells are finished already")

    def update(self, state: Status) -> None:
        for c in state.cells:
            if c.state in locks.FINISHED and c.cell["id"] not in self._seen:
                self._seen.add(c.cell["id"])
                self._last = f"{c.loss:.4f} {c.unit}" if c.loss is not None else c.state
                self._clear()
                self._line(f"[{len(self._seen)}/{len(state.cells)}] {_describe(c)}")
        summary = self._summary(state)
        if self._bar:
            self._out.write("\r" + summary + "\x1b[K")
            self._out.flush()
        elif time.monotonic() - self._said > EVERY_SECONDS:
            self._line(summary)

    def close(self) -> None:
        self._clear()

    def left(self, state: Status) -> Optional[float]:
        """Seconds until the last cell ends; None while nothing was done in this session."""
        done = state.flops_done - self._flops_before
        if done <= 0:
            return None
        return (state.flops - state.flops_done) / done * (time.monotonic() - self._start)

    def _summary(self, state: Status) -> str:
        share = state.flops_done / state.flops if state.flops else 1.0
        bar = "#" * int(share * WIDTH) + "." * (WIDTH - int(share * WIDTH))
        left = self.left(state)
        eta = "--:--" if left is None else f"{int(left) // 60}:{int(left) % 60:02d}"
        last = f"  last {self._last}" if self._last else ""
        cells = f"{state.finished}/{len(state.cells)} cells, {state.count('running')} running"
        return f"[{bar}] {cells}, {state.flops_done:.2e}/{state.flops:.2e} FLOPs, left {eta}{last}"

    def _line(self, text: str) -> None:
        self._out.write(text + "\n")
        self._out.flush()
        self._said = time.monotonic()

    def _clear(self) -> None:
        if self._bar:
            self._out.write("\r\x1b[K")
            self._out.flush()


def _describe(c: CellStatus) -> str:
    cell: dict[str, Any] = c.cell
    name = naming.short(cell)
    if c.state != "completed":
        return f"{name}: {c.state}, {c.reason}"
    return f"{name}: {c.loss:.4f} {c.unit}, {cell['steps']:,} steps, {c.seconds:.1f} s"
